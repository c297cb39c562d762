//! Without a decider's verdict, the configured fallback decides, and is recorded as such.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use importguard_core::{Cause, DecidedBy, Dialect, VerdictKind};
use importguard_proto::decider::{Modify, decide_response::Verdict};
use importguard_tests::{
    FixedDecider, Line, NatsServer, OpenIm, Proxy, SOON, Service, Settings, StoredEvent,
    eventually, free_port, load, stored, wait_for_count,
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_stream::wrappers::TcpListenerStream;

use crate::asserts;

/// [`budgeted`]'s, and more than a busy machine takes for an answer that waits for nothing.
const BUDGET: Duration = Duration::from_secs(20);

fn budgeted() -> Settings {
    Settings::new().set("IMPORTGUARD_REQUEST_BUDGET", "20s")
}

#[track_caller]
fn is_fallback(event: &StoredEvent, cause: Cause, refusal: Option<i32>) {
    let data = &event.decision().data;
    assert_eq!(data.decided_by, DecidedBy::Fallback);
    assert_eq!(data.cause, Some(cause));
    assert_eq!(data.refusal.as_ref().map(|r| r.code), refusal);
    let verdict = refusal.map_or(VerdictKind::Allow, |_| VerdictKind::Refuse);
    assert_eq!(data.verdict, verdict);
    assert_eq!(data.policy, None);
}

/// The event of that operation.
async fn event_of(nats: &NatsServer, operation: &str) -> StoredEvent {
    eventually("its event is stored", SOON, async || {
        let mut events = stored(nats).await.into_iter();
        let found = events.find(|event| event.operation_id() == operation);
        found.ok_or("it is not")
    })
    .await
}

/// A gateway that waits so long for a stopped decider, and does not find out by a health check before.
fn impatient(timeout: &str) -> Settings {
    budgeted()
        .set("IMPORTGUARD_DECIDER_TIMEOUT", timeout)
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h")
}

/// Waits until the decider decides.
async fn is_asked(server: &OpenIm, operation_id: &str) {
    eventually("the decider is asked", SOON, async || {
        let answer = server.import(operation_id, "a", &["b"]).await;
        match asserts::code(&answer) {
            0 => Ok(()),
            code => Err(code),
        }
    })
    .await;
}

#[tokio::test]
async fn without_a_decider_imports_are_refused_with_5910() {
    let nats = NatsServer::start().await;
    let gateway = Service::gateway(budgeted().nats(&nats)).await;
    for dialect in [Dialect::Documented, Dialect::Server] {
        let began = Instant::now();
        let answer = OpenIm::new(dialect, gateway.url())
            .import("op", "a", &["b"])
            .await;
        asserts::refuses(dialect, &answer, 200, 5910);
        assert!(began.elapsed() < BUDGET, "{:?}", began.elapsed());
    }
    for event in wait_for_count(&nats, 2).await {
        is_fallback(&event, Cause::DeciderUnavailable, Some(5910));
    }
}

#[tokio::test]
async fn or_allowed_if_so_configured() {
    let nats = NatsServer::start().await;
    let settings = Settings::new()
        .nats(&nats)
        .set("IMPORTGUARD_ON_DECIDER_UNAVAILABLE", "allow");
    let gateway = Service::gateway(settings).await;
    for dialect in [Dialect::Documented, Dialect::Server] {
        let answer = OpenIm::new(dialect, gateway.url())
            .import("op", "a", &["b"])
            .await;
        asserts::allows(dialect, &answer);
    }
    for event in wait_for_count(&nats, 2).await {
        is_fallback(&event, Cause::DeciderUnavailable, None);
    }
}

#[tokio::test]
async fn a_decider_that_stands_still_is_given_up_in_time() {
    let line = Line::with(impatient("2s")).await;
    let server = line.server();
    is_asked(&server, "before").await;

    line.decider.freeze().await;
    let began = Instant::now();
    let answer = server.import("frozen", "a", &["b"]).await;
    let took = began.elapsed();
    asserts::refuses(Dialect::Server, &answer, 200, 5911);
    // A busy machine may take some seconds more.
    let expected = Duration::from_millis(1_900)..Duration::from_secs(8);
    assert!(expected.contains(&took), "{took:?}");

    line.decider.thaw();
    is_asked(&server, "after").await;

    let frozen = event_of(&line.nats, "frozen").await;
    is_fallback(&frozen, Cause::DeciderTimeout, Some(5911));
}

#[tokio::test]
async fn a_decider_that_accepts_connections_and_sends_nothing_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let nats = NatsServer::start().await;
    let settings = impatient("2s").nats(&nats);
    let gateway = Service::gateway(settings.set("IMPORTGUARD_DECIDER_URL", url)).await;
    let began = Instant::now();
    let answer = OpenIm::server(gateway.url())
        .import("op", "a", &["b"])
        .await;
    asserts::refuses(Dialect::Server, &answer, 200, 5911);
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn each_cause_has_a_setting_of_its_own() {
    let nats = NatsServer::start().await;
    let frozen = Service::decider(Settings::new()).await;
    frozen.freeze().await;
    let unused = format!("http://127.0.0.1:{}", free_port());
    let causes = [
        (
            Cause::DeciderUnavailable,
            "DECIDER_UNAVAILABLE",
            5910,
            unused,
        ),
        (
            Cause::DeciderTimeout,
            "DECIDER_TIMEOUT",
            5911,
            frozen.grpc_url(),
        ),
        (
            Cause::DeciderFailed,
            "DECIDER_ERROR",
            5912,
            no_decider().await,
        ),
    ];
    for (cause, own, code, url) in causes {
        for allowing in [true, false] {
            let answer = |is_allow: bool| if is_allow { "allow" } else { "refuse" };
            // The others answer in time also on a busy machine.
            let mut settings = impatient("4s")
                .nats(&nats)
                .set("IMPORTGUARD_DECIDER_URL", &url);
            for name in ["OVERLOAD", "UNRECORDABLE"] {
                settings = settings.set(&format!("IMPORTGUARD_ON_{name}"), answer(!allowing));
            }
            for name in ["DECIDER_UNAVAILABLE", "DECIDER_TIMEOUT", "DECIDER_ERROR"] {
                let set = answer(allowing == (name == own));
                settings = settings.set(&format!("IMPORTGUARD_ON_{name}"), set);
            }
            let gateway = Service::gateway(settings).await;
            let operation = format!("{own}-{allowing}");
            let server = OpenIm::server(gateway.url());
            let answer = server.import(&operation, "a", &["b"]).await;
            match allowing {
                true => asserts::allows(Dialect::Server, &answer),
                false => asserts::refuses(Dialect::Server, &answer, 200, code),
            }
            let event = event_of(&nats, &operation).await;
            is_fallback(&event, cause, (!allowing).then_some(code));
        }
    }
}

#[tokio::test]
async fn a_decider_that_keeps_friends_that_were_not_asked_for_fails_with_5912() {
    let verdict = Verdict::Modify(Modify { friends: vec![99] });
    let (_decider, url) = FixedDecider::answering(verdict).await;
    let nats = NatsServer::start().await;
    let settings = budgeted().nats(&nats).set("IMPORTGUARD_DECIDER_URL", url);
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url());
    let answer = server.import("op", "a", &["b", "c"]).await;
    asserts::refuses(Dialect::Server, &answer, 200, 5912);
    let event = event_of(&nats, "op").await;
    is_fallback(&event, Cause::DeciderFailed, Some(5912));
    gateway.wait_for_log(&["is not a subset"]).await;
}

/// The URL of a gRPC server that is healthy and has no `Decide`.
async fn no_decider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    url
}

#[tokio::test]
async fn something_that_is_no_decider_fails_with_5912() {
    let nats = NatsServer::start().await;
    let settings = Settings::new()
        .nats(&nats)
        .set("IMPORTGUARD_DECIDER_URL", no_decider().await);
    let gateway = Service::gateway(settings).await;
    for dialect in [Dialect::Documented, Dialect::Server] {
        let answer = OpenIm::new(dialect, gateway.url())
            .import("op", "a", &["b"])
            .await;
        asserts::refuses(dialect, &answer, 200, 5912);
    }
    for event in wait_for_count(&nats, 2).await {
        is_fallback(&event, Cause::DeciderFailed, Some(5912));
    }
}

#[tokio::test]
async fn a_decider_killed_and_started_again_is_found_again() {
    let mut line = Line::with(budgeted()).await;
    let server = line.server();
    asserts::allows(Dialect::Server, &server.import("before", "a", &["b"]).await);

    line.decider.kill9();
    for _ in 0..20 {
        let began = Instant::now();
        let answer = server.import("killed", "a", &["b"]).await;
        assert_eq!(asserts::code(&answer), 5910);
        assert!(began.elapsed() < BUDGET, "{:?}", began.elapsed());
    }

    line.decider.restart().await;
    is_asked(&server, "after").await;
}

#[tokio::test]
async fn a_kill_under_load_changes_verdicts_only_to_fallbacks() {
    const REQUESTS: usize = 600;
    let mut line = Line::start().await;
    let server = line.server();
    let (answered, some) = (Cell::new(0), Notify::new());
    let calls = load(REQUESTS, 16, async |number| {
        let began = Instant::now();
        let answer = server.import(&format!("op-{number}"), "a", &["b"]).await;
        answered.set(answered.get() + 1);
        if answered.get() == 50 {
            some.notify_one();
        }
        (asserts::code(&answer), began.elapsed())
    });
    let (answers, ()) = tokio::join!(calls, async {
        some.notified().await;
        line.decider.kill9();
    });
    for (number, (code, took)) in answers.iter().enumerate() {
        let expected = [0, 5910].contains(code);
        assert!(expected, "op-{number} got {code} after {took:?}");
    }
    assert_eq!(answers[0].0, 0);
    assert_eq!(answers[REQUESTS - 1].0, 5910);
    assert_eq!(wait_for_count(&line.nats, REQUESTS).await.len(), REQUESTS);
}

#[tokio::test]
async fn a_connection_that_breaks_costs_no_verdict_though_another_decider_is_dead() {
    let nats = NatsServer::start().await;
    let decider = Service::decider(Settings::new().nats(&nats).with_long_timeouts()).await;
    let address = decider.grpc_url().trim_start_matches("http://").to_owned();
    let proxy = Proxy::to(address).await;
    let settings = Settings::new()
        .nats(&nats)
        .with_long_timeouts()
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h")
        .set(
            "IMPORTGUARD_DECIDER_URL",
            format!(
                "http://{},http://127.0.0.1:{}",
                proxy.address(),
                free_port()
            ),
        );
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::new(Dialect::Server, gateway.url());
    is_asked(&server, "before").await;

    decider.freeze().await;
    let broken = server.import("broken", "a", &["b"]);
    let (answer, ()) = tokio::join!(broken, async {
        gateway
            .wait_for_metric("importguard_in_flight", |callbacks| callbacks == 1.0)
            .await;
        proxy.cut().await;
        decider.thaw();
    });
    asserts::allows(Dialect::Server, &answer);
}
