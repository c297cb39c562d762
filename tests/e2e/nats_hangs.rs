//! A nats-server that hangs: its connections stay open, and nothing comes. Every command that reads events says so.

use importguard_tests::{Detector, NatsServer, SOON, Settings};

use crate::tail::{Tail, import, line_with, operation_ids};

#[tokio::test]
async fn tail_says_so_and_goes_on_where_it_was() {
    let line = line_with(1).await;
    let plain = Tail::start(&line.nats, &["--json", "--since", "1h"]);
    let durable = Tail::start(
        &line.nats,
        &["--json", "--since", "1h", "--durable", "archive"],
    );
    for tail in [&plain, &durable] {
        tail.prints(1).await;
    }
    line.nats.freeze().await;
    for tail in [&plain, &durable] {
        tail.process.wait_for_log(&["NATS", "retrying"]).await;
    }
    line.nats.thaw();
    for tail in [&plain, &durable] {
        tail.process.wait_for_log(&["reading events"]).await;
    }
    import(&line, 1..3).await;
    for tail in [&plain, &durable] {
        let lines = tail.prints(3).await;
        assert_eq!(operation_ids(&lines), ["op-0", "op-1", "op-2"]);
    }
}

#[tokio::test]
async fn commands_that_end_by_themselves_fail_and_say_so() {
    let nats = NatsServer::start().await;
    let settings = Settings::new().nats(&nats);
    // It is built first, if it must be.
    settings.run(["--version"]).await;
    nats.freeze().await;
    for command in [
        &["stats"][..],
        &["why", "--operation-id", "op-0"],
        &["list", "history", "vip"],
        &["list", "show", "vip"],
    ] {
        let output = tokio::time::timeout(SOON, settings.run(command)).await;
        let output = output.unwrap_or_else(|_| panic!("{command:?} waits"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("does not respond"), "{command:?}: {said}");
        assert!(!output.status.success());
    }
}

#[tokio::test]
async fn the_detector_says_so() {
    let line = line_with(1).await;
    let rules = "[{ id: three, refusals: 3, within: 1m, list: suspects, for: 10m }]";
    let detector = Detector::start(rules, Settings::new().nats(&line.nats)).await;
    line.nats.freeze().await;
    detector.wait_for_log(&["not detecting"]).await;
    line.nats.thaw();
    detector.ready().await;
}
