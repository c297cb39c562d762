//! NATS becomes unavailable and returns: every event is stored, none twice.

use std::collections::HashSet;

use importguard_tests::{Line, OpenIm, SOON, Settings, StoredEvent, load, wait_for_count};

use crate::asserts;

/// `count` requests, all allowed.
async fn ask(server: &OpenIm, name: &str, count: usize) {
    load(count, 16, async |number| {
        let answer = server
            .import(&format!("{name}-{number}"), "a", &["b"])
            .await;
        assert_eq!(asserts::code(&answer), 0);
    })
    .await;
}

/// Waits for `count` events, ends the gateway, and returns all that are stored then.
async fn all_events(line: &mut Line, count: usize) -> Vec<StoredEvent> {
    wait_for_count(&line.nats, count).await;
    let status = line.gateway.terminate(SOON).await;
    assert!(status.success(), "{status}");
    wait_for_count(&line.nats, count).await
}

#[track_caller]
fn each_once(events: &[StoredEvent], count: usize) {
    let operations: HashSet<_> = events.iter().map(StoredEvent::operation_id).collect();
    assert_eq!((events.len(), operations.len()), (count, count));
}

#[tokio::test]
async fn nats_is_killed_and_comes_back_and_500_requests_are_500_events() {
    let mut line = Line::start().await;
    let server = line.server();
    ask(&server, "before", 20).await;
    wait_for_count(&line.nats, 20).await;

    line.nats.kill9();
    ask(&server, "away", 500).await;
    line.nats.restart().await;

    let events = all_events(&mut line, 520).await;
    each_once(&events, 520);
}

#[tokio::test]
async fn nats_is_killed_under_load_and_every_answer_has_its_event_once() {
    let mut line = Line::start().await;
    let server = line.server();
    tokio::join!(ask(&server, "op", 1_000), async {
        wait_for_count(&line.nats, 100).await;
        line.nats.kill9();
        line.nats.restart().await;
    });
    let events = all_events(&mut line, 1_000).await;
    each_once(&events, 1_000);
}

#[tokio::test]
async fn nats_stands_still_and_goes_on_and_every_event_is_stored_once() {
    let mut line = Line::start().await;
    let server = line.server();
    ask(&server, "before", 20).await;
    wait_for_count(&line.nats, 20).await;

    line.nats.freeze().await;
    // These are on their way to NATS when their acks are given up, and in the spool as well.
    ask(&server, "frozen", 200).await;
    line.nats.thaw();

    let events = all_events(&mut line, 220).await;
    each_once(&events, 220);
}

#[tokio::test]
async fn with_nats_away_only_the_first_requests_wait_for_it() {
    let mut line = Line::with(Settings::new().set("IMPORTGUARD_ACK_TIMEOUT", "1s")).await;
    let server = line.server();
    ask(&server, "before", 20).await;
    line.nats.freeze().await;
    ask(&server, "first", 32).await;
    // One wait of a second for each of these would be 100 s.
    let began = std::time::Instant::now();
    for number in 0..100 {
        let answer = server.import(&format!("later-{number}"), "a", &["b"]).await;
        assert_eq!(asserts::code(&answer), 0);
    }
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    line.nats.thaw();
    let events = all_events(&mut line, 152).await;
    each_once(&events, 152);
}

#[tokio::test]
async fn after_an_outage_events_stream_again() {
    let mut line = Line::with(Settings::new().with_long_ack_timeout()).await;
    let server = line.server();
    line.nats.kill9();
    ask(&server, "away", 5).await;
    line.nats.restart().await;
    wait_for_count(&line.nats, 5).await;
    line.gateway.wait_for_recorder("streaming").await;
    ask(&server, "after", 5).await;
    let spool = importguard_tests::Spool::of(&line.gateway);
    assert_eq!(spool.operation_ids(), Vec::<String>::new());
    wait_for_count(&line.nats, 10).await;
}
