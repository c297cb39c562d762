//! What is logged about a callback, and what never is.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    process::{ChildStderr, Stdio},
};

use importguard_tests::{
    Binary, Http2Connection, Line, MountedSecret, OpenIm, PolicyDir, SOON, Service, Settings,
    eventually, load, wait_for_count,
};
use serde_json::Value;
use tokio::{task::spawn_blocking, time::timeout};

use crate::asserts;

fn lines(service: &Service) -> Vec<Value> {
    let output = service.stderr();
    // The last one may still be being written.
    let (complete, _) = output.rsplit_once('\n').unwrap_or_default();
    let lines = complete.lines().map(|line| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))
    });
    lines.collect()
}

fn of<'a>(lines: &'a [Value], operation_id: &str) -> Vec<&'a Value> {
    let lines = lines.iter();
    lines
        .filter(|line| line["operationID"] == operation_id)
        .collect()
}

fn json_logs() -> Settings {
    Settings::new().set("IMPORTGUARD_LOG_FORMAT", "json")
}

#[tokio::test]
async fn a_decision_is_one_line_at_info() {
    let line = Line::with(json_logs()).await;
    line.server()
        .import("op-one", "user123", &["user456", "bot_7"])
        .await;
    wait_for_count(&line.nats, 1).await;
    let lines = eventually("the line is written", SOON, async || {
        let lines = lines(&line.gateway);
        let found = of(&lines, "op-one").len();
        if found > 0 { Ok(lines) } else { Err(found) }
    })
    .await;
    let told = of(&lines, "op-one");
    let [told] = told[..] else {
        panic!("not one line: {told:#?}");
    };
    for (name, value) in [
        ("level", Value::from("INFO")),
        ("message", "decided".into()),
        ("verdict", "modify".into()),
        ("friends", 2.into()),
        ("kept", 1.into()),
        ("removed", "blocked-friends 1".into()),
    ] {
        assert_eq!(told[name], value, "{told}");
    }
}

#[tokio::test]
async fn a_refusal_says_which_list_and_which_rules_but_no_id() {
    let line = Line::with(json_logs()).await;
    line.server()
        .import("op-one", "blocked_owner", &["user456"])
        .await;
    line.server()
        .import("op-two", "user123", &["user123", "bot_7", "bot_8"])
        .await;
    wait_for_count(&line.nats, 2).await;
    let lines = eventually("the lines are written", SOON, async || {
        let lines = lines(&line.gateway);
        let found = of(&lines, "op-two").len();
        if found > 0 { Ok(lines) } else { Err(found) }
    })
    .await;
    let blocked = of(&lines, "op-one")[0];
    assert_eq!(blocked["rule"], "blocked-owner");
    assert_eq!(blocked["matched"], "list blocked");
    let emptied = of(&lines, "op-two")[0];
    assert_eq!(emptied["rule"], "nobodyLeft");
    assert_eq!(emptied["removed"], "self 1, blocked-friends 2");
    for told in [blocked, emptied] {
        let text = told.to_string();
        for id in ["user", "bot_", "blocked_owner"] {
            assert!(!text.contains(id), "{id}: {text}");
        }
    }
}

/// A rule with the default `onError: refuse`.
const FAILS: &str = r#"apiVersion: importguard/v1
name: fails
rules:
  - { id: numeric, refuseIf: 'int(ownerUserID) > 1', refusal: { code: 5105, message: "no" } }
"#;

#[tokio::test]
async fn a_refusal_by_a_failed_expression_is_an_error_in_log_event_and_metrics() {
    let policy = PolicyDir::new(FAILS, &[]);
    let settings = Settings::new().policy(&policy);
    let line = Line::with(settings.set("IMPORTGUARD_LOG_FORMAT", "json")).await;
    line.server()
        .import("op-failed", "user123", &["user456"])
        .await;
    let events = wait_for_count(&line.nats, 1).await;
    let data = &events[0].json["data"];
    assert_eq!(data["verdict"], "refuse");
    assert_eq!(data["refusal"]["rule"], "numeric");
    let rules = &data["rules"];
    assert_eq!(rules.as_array().unwrap().len(), 1, "{rules}");
    assert_eq!(rules[0]["outcome"], "error", "{rules}");
    let reason = rules[0]["reason"].as_str().unwrap();
    assert!(reason.contains("invalid digit"), "{reason}");
    let metrics = line.gateway.admin("/metrics").await.unwrap();
    let counted =
        r#"importguard_rules_fired_total{mode="enforce",outcome="error",rule="numeric"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    let failed = eventually("the line is written", SOON, async || {
        let lines = lines(&line.gateway);
        let told = of(&lines, "op-failed")
            .first()
            .map(|told| told["failed"].clone());
        told.ok_or("no line yet")
    })
    .await;
    assert_eq!(failed, format!("numeric: {reason}"));
}

#[tokio::test]
async fn a_fallback_is_logged_with_its_cause_and_remedy() {
    let gateway = Service::gateway(Settings::new().set("IMPORTGUARD_LOG_FORMAT", "json")).await;
    let server = OpenIm::server(gateway.url());
    server.import("op-alone", "user123", &["user456"]).await;
    let lines = eventually("both lines are written", SOON, async || {
        let lines = lines(&gateway);
        let found = of(&lines, "op-alone").len();
        if found == 2 { Ok(lines) } else { Err(found) }
    })
    .await;
    let told = of(&lines, "op-alone");
    assert_eq!(told[0]["level"], "WARN");
    let text = told[0]["message"].as_str().unwrap();
    for part in [
        "no decider is reachable",
        "fallback",
        "IMPORTGUARD_DECIDER_URL",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert_eq!(told[1]["level"], "INFO");
    assert_eq!(told[1]["cause"], "deciderUnavailable");
}

#[tokio::test]
async fn what_ends_a_process_is_a_line_in_the_logs_form_too() {
    let policy = PolicyDir::new("apiVersion: importguard/v1\nname: 7\nrulez: []\n", &[]);
    let settings = Settings::new()
        .policy(&policy)
        .set("IMPORTGUARD_LOG_FORMAT", "json");
    let mut decider = Service::spawn(Binary::Decider, settings);
    assert_eq!(decider.exit(SOON).await.code(), Some(1));
    let lines = lines(&decider);
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR", "{lines:#?}");
    assert!(
        last["message"].as_str().unwrap().contains("rulez"),
        "{last}"
    );

    let settings = json_logs().set("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json");
    let mut gateway = Service::spawn(Binary::Gateway, settings);
    assert_eq!(gateway.exit(SOON).await.code(), Some(1));
    assert_eq!(self::lines(&gateway).last().unwrap()["level"], "ERROR");
}

#[tokio::test]
async fn secrets_bodies_and_users_are_in_no_line_at_any_level() {
    let passwords = MountedSecret::new(&[("passwords", "openim:pass-word-secret\n")]);
    let settings = Settings::new()
        .set("IMPORTGUARD_BASE_PATH", "/base-path-secret")
        .set(
            "IMPORTGUARD_BASIC_AUTH_FILE",
            passwords.setting("passwords"),
        )
        .set(
            "RUST_LOG",
            "info,importguard_gateway=trace,importguard_decider=trace",
        )
        .set("IMPORTGUARD_LOG_FORMAT", "json");
    let line = Line::with(settings).await;
    let server = OpenIm::server(line.gateway.url() + "/base-path-secret");
    // openim:pass-word-secret
    let password = "Basic b3BlbmltOnBhc3Mtd29yZC1zZWNyZXQ=";
    let malformed = r#"{"callbackCommand":"callbackBeforeImportFriendsCommand","ownerUserID":"user-body","friendUserIDs":"friend-body"}"#;
    for call in [
        server.before_import("op", "owner-body", &["friend-body", "bot_body"]),
        server.after_import("op", "owner-body", &["friend-body"]),
        server.with_body("op-malformed", malformed),
    ] {
        server.send(call.header("Authorization", password)).await;
    }
    let wrong = server.before_import("op-wrong", "owner-body", &["friend-body"]);
    server
        .send(wrong.header("Authorization", "Basic d3JvbmctcGFzc3dvcmQ="))
        .await;
    eventually("all is told", SOON, async || {
        let lines = lines(&line.gateway);
        let found = of(&lines, "op-wrong").len() + of(&lines, "op-malformed").len();
        if found == 2 { Ok(()) } else { Err(found) }
    })
    .await;
    for service in [&line.gateway, &line.decider] {
        let output = service.stderr();
        for secret in ["secret", "b3Blbmlt", "d3JvbmctcGFzc3dvcmQ", "-body", "bot_"] {
            assert!(!output.contains(secret), "{secret} in {output}");
        }
    }
}

#[tokio::test]
async fn frames_that_a_peer_may_not_send_are_no_lines() {
    let gateway = Service::gateway(json_logs()).await;
    let decider = Service::decider(json_logs()).await;
    let grpc = decider.grpc_url().replace("http://", "");
    for (service, address) in [(&gateway, gateway.http_address()), (&decider, &grpc)] {
        let mut peer = Http2Connection::open(address).await;
        peer.acknowledge_pings(1000).await;
        // What is answered arrived behind the frames.
        peer.post(1, "/importguard.decider.v1.Decider/Decide", b"")
            .await;
        peer.next(1).await;
        let lines = lines(service);
        let of_h2 = |line: &&Value| {
            line["target"]
                .as_str()
                .is_some_and(|target| target.starts_with("h2"))
        };
        assert_eq!(lines.iter().find(of_h2), None);
    }
}

#[tokio::test]
async fn a_process_whose_stderr_is_not_read_ends_on_sigterm() {
    let (mut gateway, _unread) = stuck().await;
    assert!(gateway.terminate(SOON).await.success());
}

/// A gateway that has written more lines than wait for a reader and than a pipe holds, and answered all the same.
async fn stuck() -> (Service, ChildStderr) {
    const CALLS: usize = 12_000;
    let settings = Settings::new()
        .with_long_timeouts()
        .set("IMPORTGUARD_LOG_FORMAT", "json");
    let mut gateway = Service::gateway_with_stderr(settings, Stdio::piped).await;
    let unread = gateway.take_stderr().unwrap();
    let server = OpenIm::server(gateway.url());
    // Rejections would have few lines.
    load(CALLS, 16, async |number| {
        let answer = server.import(&format!("op-{number}"), "a", &["b"]).await;
        assert_eq!(asserts::code(&answer), 5910);
    })
    .await;
    (gateway, unread)
}

#[tokio::test]
async fn an_unread_stderr_blocks_no_callback_and_dropped_lines_are_counted() {
    let (gateway, unread) = stuck().await;
    let left_out = gateway.metric("importguard_log_lines_dropped_total").await;
    let left_out = left_out.unwrap();
    assert!(left_out > 0.0, "all lines found a place");

    // Once somebody reads, there are lines again, and one says how many are missing.
    let told = spawn_blocking(move || {
        BufReader::new(unread).lines().find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let message = line["message"].as_str().unwrap();
            message
                .contains("were dropped")
                .then(|| line["lines"].as_f64())
        })
    });
    let told = timeout(SOON, told).await.expect("it is told").unwrap();
    assert_eq!(told.flatten(), Some(left_out));
}

#[tokio::test]
async fn lines_that_a_full_disk_does_not_take_are_counted() {
    let full = || File::create("/dev/full").unwrap().into();
    // Nothing but the lines of callbacks.
    let settings = Settings::new().set("RUST_LOG", "importguard_gateway::request=info");
    let gateway = Service::gateway_with_stderr(settings, full).await;
    let server = OpenIm::server(gateway.url());
    let left_out = "importguard_log_lines_dropped_total";
    let before = gateway.metric(left_out).await.unwrap();
    for number in 0..10 {
        let call = server.with_body(&format!("op-{number}"), "no JSON");
        assert_eq!(server.send(call).await.status, 400);
    }
    gateway
        .wait_for_metric(left_out, |found| found >= before + 10.0)
        .await;
    // The lines about dropped lines are none of them.
    assert_eq!(gateway.metric(left_out).await.unwrap(), before + 10.0);
}
