//! SIGTERM and Ctrl-C: requests in progress are answered and recorded, then the process exits with 0.

use std::time::Duration;

use importguard_tests::{
    Binary, HeldCall, Line, OpenIm, Process, SOON, Service, Settings, Spool, eventually,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

/// Nobody balances load here, and a body may be late on a busy machine.
fn settings() -> Settings {
    Settings::new()
        .set("IMPORTGUARD_SHUTDOWN_GRACE", "0s")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "15s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "15s")
        .set("IMPORTGUARD_SHUTDOWN_TIMEOUT", "30s")
}

const ALLOW: &str = r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}"#;

/// Has a request in flight, sends the signal, waits until nobody is let in any more, finishes the request, and returns
/// its answer when the process has ended.
async fn drains(service: &mut Service, signal: impl Fn(&Process)) -> String {
    let body = OpenIm::server(service.url()).body("user123", &["user456"]);
    let held = HeldCall::begin(service.http_address(), "op-held", &body).await;
    signal(service);
    eventually(
        "new connections are refused",
        SOON,
        async || match TcpStream::connect(service.http_address()).await {
            Ok(_) => Err("somebody listens"),
            Err(_) => Ok(()),
        },
    )
    .await;
    assert_eq!(service.ended(), None, "it ended with a request in flight");

    let answer = held.finish().await;
    assert_eq!(answer.status, 200);
    let status = service.exit(SOON).await;
    assert!(status.success(), "{status}");
    assert_eq!(Spool::of(service).operation_ids(), ["op-held"]);
    answer.text().to_owned()
}

#[tokio::test]
async fn sigterm_lets_the_all_in_one_process_finish_what_it_began() {
    let mut service = Service::all_in_one(settings()).await;
    assert_eq!(drains(&mut service, Process::sigterm).await, ALLOW);
}

#[tokio::test]
async fn so_does_ctrl_c() {
    let mut service = Service::all_in_one(settings()).await;
    assert_eq!(drains(&mut service, Process::sigint).await, ALLOW);
}

#[tokio::test]
async fn sigterm_lets_a_gateway_finish_what_it_began() {
    let mut line = Line::without_nats(settings()).await;
    assert_eq!(drains(&mut line.gateway, Process::sigterm).await, ALLOW);
}

#[tokio::test]
async fn a_gateway_waits_for_its_decider_before_it_ends() {
    // A health check would find out before.
    let settings = settings()
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "2s");
    let mut line = Line::without_nats(settings).await;
    line.decider.freeze().await;
    let answer = drains(&mut line.gateway, Process::sigterm).await;
    assert!(answer.contains(r#""errCode":5911"#), "{answer}");
}

#[tokio::test]
async fn new_connections_are_answered_and_closed_while_load_balancers_take_notice() {
    let settings = settings().set("IMPORTGUARD_SHUTDOWN_GRACE", "10s");
    let mut gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url());
    let before = server.import("op-before", "user1", &["user2"]).await;
    assert!(!before.headers.contains_key("connection"), "{before:?}");

    gateway.sigterm();
    eventually("it isn't ready", SOON, async || {
        match gateway.admin("/readyz").await {
            Err(error) if error.to_string().contains("503") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // On a kept connection, and on a new one.
    for caller in [server, OpenIm::server(gateway.url())] {
        let answer = caller.import("op-in-grace", "user1", &["user2"]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["connection"], "close");
    }
    assert!(gateway.exit(SOON).await.success());
}

#[tokio::test]
async fn who_never_finishes_is_cut_when_the_time_is_over() {
    let settings = settings()
        .set("IMPORTGUARD_SHUTDOWN_TIMEOUT", "1s")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "90s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "90s");
    let mut gateway = Service::gateway(settings).await;
    let body = OpenIm::server(gateway.url()).body("user123", &["user456"]);
    let _held = HeldCall::begin(gateway.http_address(), "op-held", &body).await;
    let began = std::time::Instant::now();
    assert!(gateway.terminate(SOON).await.success());
    assert!(began.elapsed() < Duration::from_secs(50));
    let said = gateway.stderr();
    assert!(said.contains("their connections were closed"), "{said}");
    let abandoned = |line: &str| line.contains("abandoned") && line.contains("op-held");
    assert!(said.lines().any(abandoned), "{said}");
}

#[tokio::test]
async fn connections_without_a_callback_are_not_counted_as_cut() {
    let settings = settings()
        .set("IMPORTGUARD_SHUTDOWN_TIMEOUT", "8s")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "90s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "90s");
    let mut gateway = Service::gateway(settings).await;
    let mut idle = Vec::new();
    for number in 0..5 {
        let caller = OpenIm::server(gateway.url());
        let id = format!("op-{number}");
        assert_eq!(caller.import(&id, "user1", &["user2"]).await.status, 200);
        idle.push(caller);
    }
    let body = OpenIm::server(gateway.url()).body("user123", &["user456"]);
    let _held = HeldCall::begin(gateway.http_address(), "op-held", &body).await;
    assert!(gateway.terminate(SOON).await.success());
    let said = gateway.stderr();
    let mut lines = said.lines();
    let cut = lines.find(|line| line.contains("their connections were closed"));
    assert!(
        cut.is_some_and(|line| line.contains("connections=1")),
        "{said}"
    );
}

#[tokio::test]
async fn a_second_signal_stops_it_immediately() {
    for (second, code) in [("SIGTERM", 143), ("SIGINT", 130)] {
        let mut gateway = Service::gateway(settings()).await;
        let body = OpenIm::server(gateway.url()).body("user123", &["user456"]);
        let _held = HeldCall::begin(gateway.http_address(), "op-held", &body).await;
        gateway.sigterm();
        gateway.wait_for_log(&["SIGTERM received"]).await;
        match second {
            "SIGTERM" => gateway.sigterm(),
            _ => gateway.sigint(),
        }
        let status = gateway.exit(SOON).await;
        assert_eq!(status.code(), Some(code), "{status}");
        let said = gateway.stderr();
        let stopping = format!("{second} received again: stopping immediately");
        assert!(said.contains(&stopping), "{said}");
    }
}

#[tokio::test]
async fn idle_processes_end_at_once() {
    let settings = || {
        Settings::new()
            .set("IMPORTGUARD_SHUTDOWN_TIMEOUT", "90s")
            .set("IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT", "90s")
    };
    for (binary, service) in [
        (Binary::Gateway, Service::gateway(settings()).await),
        (Binary::Decider, Service::decider(settings()).await),
        (Binary::AllInOne, Service::all_in_one(settings()).await),
    ] {
        let mut service = service;
        let began = std::time::Instant::now();
        let status = service.terminate(SOON).await;
        assert!(status.success(), "{binary:?}: {status}");
        assert!(
            began.elapsed() < Duration::from_secs(50),
            "{binary:?}: {:?}",
            began.elapsed()
        );
    }
}

/// The lines of a shutdown are in `log`, in this order.
#[track_caller]
fn in_order(log: &str, lines: &[&str]) {
    let mut rest = log;
    for line in lines {
        let Some((_, after)) = rest.split_once(line) else {
            panic!("no {line:?} after the one before it in {log}");
        };
        rest = after;
    }
    assert!(rest.trim_end().lines().count() <= 1, "more lines: {rest}");
}

#[tokio::test]
async fn a_gateway_logs_a_line_for_each_step() {
    let settings = Settings::new().set("IMPORTGUARD_SHUTDOWN_GRACE", "50ms");
    let mut line = Line::without_nats(settings).await;
    line.server().import("op", "user123", &["user456"]).await;
    assert!(line.gateway.terminate(SOON).await.success());
    in_order(
        &line.gateway.stderr(),
        &[
            "SIGTERM received: shutting down gracefully",
            "accepting connections for another 50ms (IMPORTGUARD_SHUTDOWN_GRACE)",
            "no longer accepting connections: answering the callbacks in progress",
            "all callbacks are answered",
            "closed the connection to NATS and the spool: 1 event left in it for the next start",
            "INFO stopped",
        ],
    );
}

#[tokio::test]
async fn so_does_a_decider() {
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_SHUTDOWN_GRACE", "50ms");
    let mut decider = Service::decider(settings).await;
    assert!(decider.terminate(SOON).await.success());
    in_order(
        &decider.stderr(),
        &[
            "SIGTERM received: shutting down gracefully",
            "accepting calls for another 50ms (IMPORTGUARD_DECIDER_SHUTDOWN_GRACE)",
            "no longer accepting calls: answering those in progress",
            "all calls are answered",
            "INFO stopped",
        ],
    );
}

#[tokio::test]
async fn so_does_one_process() {
    let mut service = Service::all_in_one(settings()).await;
    service.sigint();
    assert!(service.exit(SOON).await.success());
    in_order(
        &service.stderr(),
        &[
            "SIGINT received: shutting down gracefully",
            "no longer accepting connections: answering the callbacks in progress",
            "all callbacks are answered",
            "closed the connection to NATS and the spool, which is empty",
            "no longer accepting calls: answering those in progress",
            "all calls are answered",
            "INFO stopped",
        ],
    );
}

#[tokio::test]
async fn a_command_that_is_interrupted_while_it_connects_does_not_succeed_unless_it_has_no_end() {
    for (arguments, code) in [
        (&["stats", "--since", "7d"][..], 1),
        (&["why", "--owner", "u1"], 1),
        (&["list", "history", "bad"], 1),
        (&["detect", "--dry-run", "--since", "24h", "--no-follow"], 1),
        (&["tail"], 0),
    ] {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", silent.local_addr().unwrap());
        let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../policy/detector.yaml");
        let settings = Settings::new()
            .set("NATS_URL", url)
            .set("IMPORTGUARD_DETECT_RULES", rules);
        let mut command = settings.command(Binary::AllInOne.path());
        command.args(arguments);
        let logs = TempDir::new().unwrap();
        let mut process = Process::spawn("importguard", command, logs.path());
        let _connected = silent.accept().await.unwrap();
        process.sigint();
        let ended = process.exit(SOON).await.code();
        assert_eq!(ended, Some(code), "{arguments:?}: {}", process.output());
        let told = process.stderr().contains("interrupted");
        assert_eq!(told, code == 1, "{arguments:?}: {}", process.output());
    }
}
