//! The system's clock is set while the gateway runs, or between two of its runs. faketime does that.

use std::time::Duration;

use importguard_tests::{
    FakeClock, NatsServer, OpenIm, SOON, Service, Settings, Spool, create_stream, eventually,
    stored,
};

use crate::asserts;

const OLDEST: &str = "importguard_recorder_oldest_unpublished_seconds";

async fn ask(gateway: &Service, id: &str) {
    let answer = OpenIm::server(gateway.url()).import(id, "a", &["b"]).await;
    // There is no decider.
    assert_eq!(asserts::code(&answer), 5910);
}

#[tokio::test]
async fn the_age_of_an_event_follows_no_step_of_the_clock() {
    let Some(clock) = FakeClock::start("a clock that is set") else {
        return;
    };
    let gateway = Service::gateway(clock.settings(Settings::new().with_long_timeouts())).await;
    ask(&gateway, "op").await;
    for step in ["-1d", "+1d", "+0"] {
        clock.set(step);
        let before = gateway.metric(OLDEST).await.unwrap();
        gateway
            .wait_for_metric(OLDEST, |age| age > before && age < 3600.0)
            .await;
    }
}

#[tokio::test]
async fn events_keep_their_order_when_the_clock_is_set_back() {
    let Some(clock) = FakeClock::start("a clock that is set back") else {
        return;
    };
    let mut nats = NatsServer::not_started();
    let settings = Settings::new().with_long_timeouts().nats(&nats);
    let gateway = Service::gateway(clock.settings(settings)).await;
    let mut asked = Vec::new();
    for (number, step) in ["+0", "-1d", "-1d", "+1d", "+0", "-2d"].iter().enumerate() {
        clock.set(step);
        asked.push(format!("op-{number}"));
        ask(&gateway, &asked[number]).await;
    }
    assert_eq!(Spool::of(&gateway).operation_ids(), asked);
    nats.restart().await;
    gateway.wait_for_recorder("streaming").await;
    let streamed = stored(&nats).await;
    let streamed: Vec<_> = streamed.iter().map(|event| event.operation_id()).collect();
    assert_eq!(streamed, asked);
}

/// An event that was published at a time `before` and whose ack did not come is stored once by a gateway that starts at a time
/// `after`, when NATS has forgotten its id.
async fn is_stored_once(before: &str, after: &str) {
    let Some(clock) = FakeClock::start("a clock that is set between two runs") else {
        return;
    };
    let nats = NatsServer::start().await;
    let window = Duration::from_millis(200);
    create_stream(nats.client().await, |config| {
        config.duplicate_window = window
    })
    .await;
    clock.set(before);
    let settings = Settings::new().with_long_ack_timeout().nats(&nats);
    let mut gateway = Service::gateway(clock.settings(settings)).await;
    gateway.wait_for_recorder("streaming").await;
    ask(&gateway, "first").await;
    gateway.settles().await;
    nats.freeze().await;
    ask(&gateway, "doubtful").await;
    assert_eq!(Spool::of(&gateway).operation_ids(), ["doubtful"]);
    gateway.kill9();
    nats.thaw();
    eventually("NATS stores what it had received", SOON, async || {
        let count = stored(&nats).await.len();
        anyhow::ensure!(count == 2, "{count}");
        Ok(())
    })
    .await;
    // NATS forgets the ids of what it has stored; this is that time, and not a hope.
    tokio::time::sleep(window * 2).await;
    clock.set(after);
    gateway.restart().await;
    gateway.wait_for_recorder("streaming").await;
    let stored = stored(&nats).await;
    let ids: Vec<_> = stored.iter().map(|event| event.operation_id()).collect();
    assert_eq!(ids, ["first", "doubtful"], "{before} and then {after}");
}

#[tokio::test]
async fn an_event_of_a_clock_of_tomorrow_is_looked_up() {
    is_stored_once("+1d", "+0").await;
}

#[tokio::test]
async fn so_it_is_when_tomorrow_is_past() {
    is_stored_once("+1d", "+2d").await;
}

#[tokio::test]
async fn so_is_an_event_of_a_clock_of_yesterday() {
    is_stored_once("-1d", "+0").await;
}
