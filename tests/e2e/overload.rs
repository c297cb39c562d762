//! More callbacks than can be answered in time: the excess immediately gets the configured fallback.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use importguard_core::{Cause, DecidedBy, Dialect, VerdictKind};
use importguard_tests::{
    Line, Occupied, OpenIm, RawConnection, SOON, Settings, eventually, load, wait_for_count,
};

use crate::asserts;

/// Room for one callback, and nobody waits.
fn narrow() -> Settings {
    Occupied::settings()
        .set("IMPORTGUARD_MAX_IN_FLIGHT", "1")
        .set("IMPORTGUARD_QUEUE_TIMEOUT", "0ms")
}

/// Takes the one place of a narrow gateway.
async fn occupy(line: &Line) -> Occupied<'_> {
    Occupied::start(line, 1).await
}

#[tokio::test]
async fn who_gets_no_place_is_refused_with_5913_and_recorded() {
    let line = Line::with(narrow()).await;
    let held = occupy(&line).await;
    for dialect in [Dialect::Documented, Dialect::Server] {
        let caller = OpenIm::new(dialect, line.gateway.url());
        let began = Instant::now();
        let answer = caller.import("op-late", "user1", &["user2"]).await;
        asserts::refuses(dialect, &answer, 200, 5913);
        // The one who has the place keeps it for 30 seconds.
        assert!(began.elapsed() < Duration::from_secs(15));
    }
    for event in wait_for_count(&line.nats, 2).await {
        let data = &event.decision().data;
        assert_eq!(data.operation_id.as_str(), "op-late");
        assert_eq!(data.decided_by, DecidedBy::Fallback);
        assert_eq!(data.cause, Some(Cause::Overloaded));
        assert_eq!(
            data.refusal.as_ref().map(|refusal| refusal.code),
            Some(5913)
        );
    }

    for answer in held.release().await {
        asserts::allows(Dialect::Server, &answer);
    }
    let answer = line.server().import("op-after", "user1", &["user2"]).await;
    asserts::allows(Dialect::Server, &answer);
}

#[tokio::test]
async fn or_allowed_and_recorded_if_so_configured() {
    let line = Line::with(narrow().set("IMPORTGUARD_ON_OVERLOAD", "allow")).await;
    let _held = occupy(&line).await;
    for dialect in [Dialect::Documented, Dialect::Server] {
        let caller = OpenIm::new(dialect, line.gateway.url());
        asserts::allows(dialect, &caller.import("op", "user1", &["user2"]).await);
    }
    for event in wait_for_count(&line.nats, 2).await {
        assert_eq!(event.decision().data.cause, Some(Cause::Overloaded));
    }
}

#[tokio::test]
async fn what_is_too_much_to_record_is_counted_and_only_let_through_where_that_is_allowed() {
    for (on_overload, on_unrecordable, code) in [
        ("refuse", "refuse", 5913),
        ("refuse", "allow", 5913),
        ("allow", "refuse", 5914),
        ("allow", "allow", 0),
    ] {
        let settings = narrow()
            .set("IMPORTGUARD_OVERLOAD_EVENTS", "0")
            .set("IMPORTGUARD_ON_OVERLOAD", on_overload)
            .set("IMPORTGUARD_ON_UNRECORDABLE", on_unrecordable);
        let line = Line::without_nats(settings).await;
        let _held = occupy(&line).await;
        let answer = line.server().import("op", "user1", &["user2"]).await;
        assert_eq!(
            asserts::code(&answer),
            code,
            "{on_overload} {on_unrecordable}"
        );
        let metrics = line.gateway.admin("/metrics").await.unwrap();
        for line in [
            "importguard_overload_unrecorded_total 1\n",
            "importguard_in_flight 1\n",
        ] {
            assert!(metrics.contains(line), "no {line} in {metrics}");
        }
    }
}

#[tokio::test]
async fn a_report_that_there_is_no_room_for_passes() {
    let line = Line::with(narrow()).await;
    let _held = occupy(&line).await;
    let server = line.server();
    let answer = server.send(server.after_import("op", "a", &["b"])).await;
    asserts::allows(Dialect::Server, &answer);
    let counted = "importguard_rejections_total{code=\"5913\"}";
    assert_eq!(line.gateway.metric(counted).await.unwrap(), 1.0);
    line.gateway
        .wait_for_log(&["callbacks exceeded the capacity"])
        .await;
    let said = line.gateway.stderr();
    assert!(!said.contains("rejected"), "a line for each: {said}");
}

/// Opening another costs both sides more than the answer does, and an overload is no time for it.
#[tokio::test]
async fn who_gets_no_place_keeps_the_connection() {
    let line = Line::with(narrow().set("IMPORTGUARD_OVERLOAD_EVENTS", "1")).await;
    let _held = occupy(&line).await;
    let mut connection = RawConnection::open(line.gateway.http_address()).await;
    let body = line.server().body("user1", &["user2"]);
    for (command, report) in [
        ("callbackBeforeImportFriendsCommand", false),
        ("callbackBeforeImportFriendsCommand", false),
        ("callbackAfterImportFriendsCommand", true),
        ("callbackBeforeImportFriendsCommand", false),
    ] {
        let body = body.replace("callbackBeforeImportFriendsCommand", command);
        connection.send(request(command, body.len())).await.unwrap();
        connection.send(&body).await.unwrap();
        let answer = connection.answer().await;
        if report {
            asserts::allows(Dialect::Server, &answer);
        } else {
            asserts::refuses(Dialect::Server, &answer, 200, 5913);
        }
        assert!(!answer.headers.contains_key("connection"), "{answer:?}");
    }
    let metrics = line.gateway.admin("/metrics").await.unwrap();
    let unrecorded = "importguard_overload_unrecorded_total ";
    assert!(!metrics.contains(&format!("{unrecorded}0\n")), "{metrics}");
}

#[tokio::test]
async fn a_body_that_does_not_come_waits_for_no_place_and_is_given_up() {
    let settings = narrow()
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "300ms")
        .set("IMPORTGUARD_OVERLOAD_EVENTS", "0");
    let line = Line::with(settings).await;
    let _held = occupy(&line).await;
    for length in [100, 1_000_000] {
        let mut connection = RawConnection::open(line.gateway.http_address()).await;
        let head = request("callbackBeforeImportFriendsCommand", length);
        let began = Instant::now();
        connection.send(head).await.unwrap();
        let answer = connection.answer().await;
        assert!(began.elapsed() < Duration::from_secs(15));
        asserts::refuses(Dialect::Server, &answer, 408, 5900);
        assert_eq!(answer.headers["connection"], "close");
    }
}

/// A head whose body is to follow.
fn request(command: &str, length: usize) -> String {
    format!(
        "POST /{command} HTTP/1.1\r\nHost: x\r\nOperationid: op\r\nContent-Length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn who_waits_gets_the_place_that_becomes_free() {
    let settings = narrow().set("IMPORTGUARD_QUEUE_TIMEOUT", "15s");
    let line = Line::with(settings).await;
    let held = occupy(&line).await;
    let server = line.server();
    let waiting = server.import("op-waiting", "user1", &["user2"]);
    let (answer, ()) = tokio::join!(waiting, async {
        eventually("somebody waits", SOON, async || {
            let metrics = line.gateway.admin("/metrics").await?;
            anyhow::ensure!(metrics.contains("importguard_queued 1\n"));
            Ok(())
        })
        .await;
        held.release().await;
    });
    asserts::allows(Dialect::Server, &answer);
    let metrics = line.gateway.admin("/metrics").await.unwrap();
    assert!(
        metrics.contains("importguard_queue_seconds_count 1\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn four_times_the_limit_is_answered_within_the_budget_and_logged_in_few_lines() {
    const REQUESTS: usize = 2_000;
    let settings = Settings::new()
        .set("IMPORTGUARD_REQUEST_BUDGET", "30s")
        // Within the budget, and no fallback of another cause on a busy machine.
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "20s")
        .set("IMPORTGUARD_MAX_IN_FLIGHT", "4")
        .set("IMPORTGUARD_QUEUE_TIMEOUT", "1ms")
        .set("RUST_LOG", "warn");
    let line = Line::with(settings).await;
    let server = line.server();
    let began = Instant::now();
    let answers = load(REQUESTS, 32, async |number| {
        let began = Instant::now();
        let answer = server.import(&format!("op-{number}"), "a", &["b"]).await;
        (asserts::code(&answer), began.elapsed())
    })
    .await;
    let took = began.elapsed();
    let overloaded = answers.iter().filter(|(code, _)| *code == 5913).count();
    let allowed = answers.iter().filter(|(code, _)| *code == 0).count();
    assert_eq!(overloaded + allowed, REQUESTS, "{answers:?}");
    assert!(overloaded > 0 && allowed > 0, "{overloaded} of {REQUESTS}");
    let slowest = answers.iter().map(|(_, took)| *took).max().unwrap();
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");

    eventually("the overload is told of", SOON, async || {
        let lines = line.gateway.stderr();
        let lines = lines.matches("callbacks exceeded the capacity").count();
        let seconds = usize::try_from(took.as_secs()).unwrap() + 2;
        assert!(lines <= seconds, "{lines} lines in {took:?}");
        if lines > 0 { Ok(()) } else { Err("it isn't") }
    })
    .await;
    let answer = server.import("op-after", "a", &["b"]).await;
    asserts::allows(Dialect::Server, &answer);
}

#[tokio::test]
async fn nobody_is_refused_beside_a_recorded_allow_however_late_a_decider_was_asked() {
    const REQUESTS: u32 = 800;
    // The decider never answers, so that the callback which has waited longest is always the next to be decided, just in time.
    let settings = Settings::new()
        .set("IMPORTGUARD_REQUEST_BUDGET", "4s")
        .set("IMPORTGUARD_QUEUE_TIMEOUT", "3900ms")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "1s")
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h")
        .set("IMPORTGUARD_MAX_IN_FLIGHT", "16")
        .set("IMPORTGUARD_ON_DECIDER_TIMEOUT", "allow");
    let line = Line::with(settings).await;
    line.decider.freeze().await;
    let server = line.server();
    let began = tokio::time::Instant::now();
    let one = async |number: u32| {
        tokio::time::sleep_until(began + Duration::from_millis(5) * number).await;
        let operation_id = format!("op-{number}");
        let answer = server.import(&operation_id, "a", &["b"]).await;
        (operation_id, asserts::code(&answer))
    };
    let answers: HashMap<String, i32> =
        join_all((0..REQUESTS).map(one)).await.into_iter().collect();
    let allowed = answers.values().filter(|code| **code == 0).count();
    assert!(allowed > 16, "{answers:?}");

    let mut recorded = 0;
    for event in wait_for_count(&line.nats, allowed).await {
        let code = answers[event.operation_id()];
        let verdict = event.decision().data.verdict;
        assert_eq!(
            verdict == VerdictKind::Allow,
            code == 0,
            "answered with {code}: {}",
            event.json
        );
        recorded += usize::from(code == 0);
    }
    assert_eq!(recorded, allowed);
}
