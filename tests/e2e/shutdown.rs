//! SIGTERM and Ctrl-C: what is in flight is answered and recorded, then the process ends with 0.

use std::time::Duration;

use importguard_tests::{
    Binary, HeldCall, Line, OpenIm, Process, Service, Settings, Spool, eventually,
};
use tokio::net::TcpStream;

use crate::asserts;

const SOON: Duration = Duration::from_secs(15);

/// Has a request in flight, sends the signal, waits until nobody is let in any more, and finishes the request.
async fn drains(mut service: Service, signal: impl Fn(&Process)) {
    let body = OpenIm::server(service.url()).body("user123", &["user456"]);
    let held = HeldCall::begin(service.http_address(), "op-held", &body).await;
    signal(&service);
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

    let (status, answer) = held.finish().await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(
        answer,
        r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}"#
    );
    let status = service.exit(SOON).await;
    assert!(status.success(), "{status}");
    assert_eq!(Spool::of(&service).operation_ids(), ["op-held"]);
}

#[tokio::test]
async fn sigterm_lets_the_all_in_one_process_finish_what_it_began() {
    drains(Service::all_in_one(Settings::new()).await, Process::sigterm).await;
}

#[tokio::test]
async fn so_does_ctrl_c() {
    drains(Service::all_in_one(Settings::new()).await, Process::sigint).await;
}

#[tokio::test]
async fn sigterm_lets_a_gateway_finish_what_it_began() {
    let line = Line::without_nats(Settings::new()).await;
    drains(line.gateway, Process::sigterm).await;
}

#[tokio::test]
async fn a_gateway_waits_for_its_decider_before_it_ends() {
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_TIMEOUT", "1s");
    let mut line = Line::without_nats(settings).await;
    let server = line.server();
    assert_eq!(
        asserts::code(&server.import("before", "a", &["b"]).await),
        0
    );
    line.decider.freeze().await;
    let call = tokio::spawn(async move { server.import("held", "a", &["b"]).await });
    // The decider's socket has the question when the gateway is told to end.
    tokio::task::yield_now().await;
    eventually("the question is on its way", SOON, async || {
        let metrics = line.gateway.admin("/metrics").await?;
        anyhow::ensure!(!metrics.is_empty());
        Ok(())
    })
    .await;
    line.gateway.sigterm();
    let answer = call.await.unwrap();
    assert_eq!(asserts::code(&answer), 5911);
    let status = line.gateway.exit(SOON).await;
    assert!(status.success(), "{status}");
    assert_eq!(Spool::of(&line.gateway).operation_ids(), ["before", "held"]);
}

#[tokio::test]
async fn idle_processes_end_at_once() {
    for (binary, service) in [
        (Binary::Gateway, Service::gateway(Settings::new()).await),
        (Binary::Decider, Service::decider(Settings::new()).await),
        (Binary::AllInOne, Service::all_in_one(Settings::new()).await),
    ] {
        let mut service = service;
        let began = std::time::Instant::now();
        let status = service.terminate(SOON).await;
        assert!(status.success(), "{binary:?}: {status}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{binary:?}: {:?}",
            began.elapsed()
        );
    }
}
