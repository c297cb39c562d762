//! OpenIM 3.6.0 ignores refusals. IMPORTGUARD_REFUSALS=unreadable makes the import fail there, too; without it, an import that is
//! reported as done despite its verdict is counted and logged.

use importguard_core::Dialect::{Documented, Server};
use importguard_tests::{
    Call, Client, Line, MountedSecret, OpenIm, Reading, Response, ServerVersion, Service, Settings,
    read_as_server,
};

use crate::asserts;

const EVERY_VERSION: [ServerVersion; 3] = [
    ServerVersion::UpTo35,
    ServerVersion::V36,
    ServerVersion::From37,
];

fn unreadable() -> Settings {
    Settings::new().set("IMPORTGUARD_REFUSALS", "unreadable")
}

/// No version of open-im-server can parse `answer`, so that none imports with `failedContinue: false`.
#[track_caller]
fn cannot_be_read(answer: &Response, status: u16, code: i32) {
    assert_eq!(answer.status, status, "{}", answer.text());
    for version in EVERY_VERSION {
        let reading = read_as_server(version, &answer.body);
        let fails = matches!(&reading, Reading::Fails(why) if why.contains("nextCode"));
        assert!(fails, "{version:?} reads {}: {reading:?}", answer.text());
    }
    let errors = format!("\"errCode\":{code}");
    assert!(answer.text().contains(&errors), "{}", answer.text());
}

#[tokio::test]
async fn a_readable_refusal_does_not_stop_version_3_6() {
    let line = Line::start().await;
    let answer = line.server().import("op", "blocked_owner", &["a"]).await;
    asserts::refuses(Server, &answer, 200, 5001);
    let reading = read_as_server(ServerVersion::V36, &answer.body);
    assert_eq!(reading, Reading::Imports { instead: None });
}

#[tokio::test]
async fn an_unreadable_refusal_stops_every_version() {
    let line = Line::with(unreadable()).await;
    let server = line.server();
    let refused = server.import("op1", "blocked_owner", &["a"]).await;
    cannot_be_read(&refused, 200, 5001);
    let allowed = server.import("op2", "user123", &["a"]).await;
    let shortened = server.import("op3", "user123", &["a", "bot_1"]).await;
    for version in EVERY_VERSION {
        let imports = |instead| Reading::Imports { instead };
        assert_eq!(read_as_server(version, &allowed.body), imports(None));
        let list = Some(vec!["a".to_owned()]);
        assert_eq!(read_as_server(version, &shortened.body), imports(list));
    }
    let documented = line.documented();
    let refused = documented.import("op4", "blocked_owner", &["a"]).await;
    asserts::refuses(Documented, &refused, 200, 5001);
}

#[tokio::test]
async fn so_does_every_fallback_and_rejection() {
    let secret = MountedSecret::new(&[("passwords", "openim:right")]);
    let settings = unreadable()
        .set("IMPORTGUARD_BASIC_AUTH_FILE", secret.setting("passwords"))
        .set("IMPORTGUARD_MAX_FRIENDS", "2");
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url());
    let authorised = |call: Call| call.header("Authorization", "Basic b3BlbmltOnJpZ2h0");
    let ask = |call: Call| async move { Client::default().send(call).await };
    let import = server.before_import("op", "user123", &["a"]);
    cannot_be_read(&ask(import.clone()).await, 401, 5902);
    let import = authorised(import);
    cannot_be_read(&ask(import.clone()).await, 200, 5910);
    cannot_be_read(&ask(import.clone().body("{")).await, 400, 5900);
    let unnamed = import.clone().without_header("operationID");
    cannot_be_read(&ask(unnamed).await, 400, 5904);
    let elsewhere = import.clone().url(gateway.url() + "/elsewhere");
    cannot_be_read(&ask(elsewhere).await, 404, 5901);
    let large = server.before_import("op", "user123", &["a", "b", "c"]);
    cannot_be_read(&ask(authorised(large)).await, 413, 5903);
}

/// An unreadable one would make OpenIM 3.6 report a completed import as failed.
#[tokio::test]
async fn answers_to_callbacks_after_an_import_stay_readable() {
    let secret = MountedSecret::new(&[("tokens", "t0ken")]);
    let settings = unreadable().set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"));
    let gateway = Service::gateway(settings).await;
    let report = OpenIm::server(gateway.url()).after_import("op", "a", &["b"]);
    let answer = Client::default().send(report.clone()).await;
    asserts::refuses(Server, &answer, 401, 5902);
    let report = report.header("Authorization", "Bearer t0ken");
    let answer = Client::default().send(report).await;
    asserts::allows(Server, &answer);
}

async fn ignored(line: &Line, verdict: &str) -> f64 {
    let name = format!("importguard_verdicts_ignored_total{{verdict=\"{verdict}\"}}");
    line.gateway.metric(&name).await.unwrap()
}

#[tokio::test]
async fn an_import_reported_as_done_despite_its_verdict_is_counted_and_logged() {
    let line = Line::start().await;
    let server = line.server();
    let report = async |operation_id, owner, friends: &[&str]| {
        let call = server.after_import(operation_id, owner, friends);
        asserts::allows(Server, &server.send(call).await);
    };
    server.import("op1", "user123", &["a"]).await;
    report("op1", "user123", &["a"]).await;
    server.import("op2", "user123", &["a", "bot_1"]).await;
    report("op2", "user123", &["a"]).await;
    assert_eq!(ignored(&line, "refuse").await, 0.0);
    assert_eq!(ignored(&line, "modify").await, 0.0);

    server.import("op3", "blocked_owner", &["a"]).await;
    report("op3", "blocked_owner", &["a"]).await;
    assert_eq!(ignored(&line, "refuse").await, 1.0);
    server.import("op4", "user123", &["a", "bot_1"]).await;
    report("op4", "user123", &["a", "bot_1"]).await;
    assert_eq!(ignored(&line, "modify").await, 1.0);
    line.gateway
        .wait_for_log(&["ERROR", "reports an import as done", "op3"])
        .await;
}
