use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use importguard_gateway::recorder::{RecordError, StartError};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_an_event_is_in_the_spool_before_it_counts_as_recorded() {
    let (nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
    let recording = Recording::start(&nats, &spool).await;
    for n in 0..50 {
        assert_eq!(recording.record(n).await, Recorded::Spooled);
        assert_eq!(recording.spooled().last(), Some(&n));
    }
    let status = recording.recorder.status();
    assert_eq!((status.state, status.spooled_events), (State::Spooling, 50));
    assert_eq!(recording.metric("importguard_recorder_spool_events"), 50.0);
    assert_eq!(
        recording.metric("importguard_recorder_state{state=\"spooling\"}"),
        1.0
    );
    assert!(recording.metric("importguard_recorder_oldest_unpublished_seconds") > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_drains_by_itself_and_in_order_when_nats_appears() {
    let (mut nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
    let recording = Recording::with(patient(settings(&nats, &spool))).await;
    for n in 0..600 {
        assert_eq!(recording.record(n).await, Recorded::Spooled);
    }
    nats.restart().await;
    recording.until(State::Streaming).await;
    assert_eq!(stored(&nats).await, (0..600).collect::<Vec<_>>());
    assert_eq!(recording.record(600).await, Recorded::Streamed);
    let status = recording.recorder.status();
    assert_eq!((status.spooled_events, status.last_error), (0, None));
    let events = |path| format!("importguard_recorder_events_total{{path=\"{path}\"}}");
    assert_eq!(recording.metric(&events("spooled")), 600.0);
    assert_eq!(recording.metric(&events("drained")), 600.0);
    assert_eq!(recording.metric(&events("streamed")), 1.0);
    assert_eq!(
        recording.metric("importguard_recorder_ack_seconds_count"),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_wrong_with_the_spool_is_no_error_of_nats_once_it_is_over() {
    let (mut nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
    let recording = Recording::start(&nats, &spool).await;
    assert_eq!(recording.record(0).await, Recorded::Spooled);
    let other = rusqlite::Connection::open(spool.path().join("spool.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    nats.restart().await;
    eventually("the drain says so", SOON, async || {
        let error = recording.recorder.status().last_error;
        match error.is_some_and(|error| error.contains("another program has locked")) {
            true => Ok(()),
            false => Err(format!("{:?}", recording.recorder.status())),
        }
    })
    .await;
    other.execute_batch("ROLLBACK").unwrap();
    let status = recording.until(State::Streaming).await;
    assert_eq!((status.spooled_events, status.last_error), (0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_events_while_nats_is_killed_and_restarted_each_is_stored_once() {
    let (mut nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let recording = Arc::new(Recording::streaming(&nats, &spool).await);
    let next = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (recording, next, done) = (recording.clone(), next.clone(), done.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    recording.record(next.fetch_add(1, Ordering::Relaxed)).await;
                }
            })
        })
        .collect();
    let reached = async |count| {
        eventually("the load goes on", SOON, async || {
            let now = next.load(Ordering::Relaxed);
            if now >= count { Ok(()) } else { Err(now) }
        })
        .await;
    };
    for round in 0..3 {
        reached(2000 * round + 500).await;
        nats.kill9();
        recording.until(State::Spooling).await;
        let now = next.load(Ordering::Relaxed);
        reached(now + 500).await;
        nats.restart().await;
        let now = next.load(Ordering::Relaxed);
        reached(now + 500).await;
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    recording.until(State::Streaming).await;
    assert_each_once(&nats, next.load(Ordering::Relaxed)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nats_is_frozen_only_the_first_event_waits_for_its_ack() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let recording = Recording::streaming(&nats, &spool).await;
    recording.record(0).await;
    recording.until(State::Streaming).await;
    nats.freeze().await;
    let ack_timeout = recording.settings.ack_timeout;
    let timed = async |n| {
        let start = Instant::now();
        assert_eq!(recording.record(n).await, Recorded::Spooled);
        start.elapsed()
    };
    let first = timed(1).await;
    assert!(first >= ack_timeout, "{first:?}");
    let mut others = Duration::ZERO;
    for n in 2..100 {
        others += timed(n).await;
    }
    // Not even half of them, on a busy machine.
    assert!(others < ack_timeout * 49, "98 events took {others:?}");
    nats.thaw();
    recording.until(State::Streaming).await;
    assert_each_once(&nats, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_is_not_waited_for_longer_than_half_the_time_that_is_left() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let recording = Recording::patient(&nats, &spool).await;
    nats.freeze().await;
    let budget = Duration::from_secs(8);
    let start = Instant::now();
    let recorded = recording.recorder.record(event(0), start + budget).await;
    assert_eq!(recorded, Ok(Recorded::Spooled));
    assert!(start.elapsed() < budget, "{:?}", start.elapsed());
    nats.thaw();
    recording.until(State::Streaming).await;
    assert_each_once(&nats, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_deadline_is_over_is_neither_sent_nor_spooled() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let recording = Recording::patient(&nats, &spool).await;
    let late = recording.recorder.record(event(0), Instant::now()).await;
    assert_eq!(late, Err(RecordError::NoTime));
    assert_eq!(
        recording.metric("importguard_recorder_events_total{path=\"unrecordable\"}"),
        1.0
    );
    // What was sent or queued before it would arrive before it.
    assert_eq!(recording.record(1).await, Recorded::Streamed);
    recording.close().await;
    assert_eq!(stored(&nats).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_stored_behind_our_back_is_not_published_again() {
    let (nats, spool) = (NatsServer::start().await, TempDir::new().unwrap());
    let window = Duration::from_millis(300);
    let mut settings = settings(&nats, &spool);
    settings.stream.duplicate_window = window;
    // Only the ack that the frozen server does not give is to be late.
    settings.ack_timeout = Duration::from_secs(5);
    let recording = Recording::with(settings).await;
    recording.until(State::Streaming).await;
    for n in 0..5 {
        assert_eq!(recording.record(n).await, Recorded::Streamed);
    }
    nats.freeze().await;
    assert_eq!(recording.record(5).await, Recorded::Spooled);
    assert_eq!(recording.record(6).await, Recorded::Spooled);
    let settings = recording.close().await;
    nats.thaw();
    eventually(
        "the frozen server stores what it had received",
        SOON,
        async || {
            let stored = stored(&nats).await;
            if stored.len() == 6 {
                Ok(())
            } else {
                Err(format!("{stored:?}"))
            }
        },
    )
    .await;
    // NATS forgets the ids of what it has stored; this is that time, and not a hope.
    tokio::time::sleep(window * 2).await;
    let recording = Recording::with(settings).await;
    recording.until(State::Streaming).await;
    assert_eq!(stored(&nats).await, [0, 1, 2, 3, 4, 5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_says_so_and_recording_goes_on_once_nats_is_back() {
    let (mut nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
    let mut settings = patient(settings(&nats, &spool));
    settings.spool_max_bytes = 2 << 20;
    let recording = Recording::with(settings).await;
    let mut large = event(0);
    let text = json!({"data": {"n": 0, "text": "x".repeat(300_000)}}).to_string();
    large.payload = Bytes::from(text);
    let mut accepted = 0;
    let deadline = Instant::now() + SOON;
    let error = loop {
        large.id = EventId::new();
        match recording.recorder.record(large.clone(), deadline).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, RecordError::SpoolFull { max_bytes: 2 << 20 });
    assert_eq!(
        recording.metric("importguard_recorder_events_total{path=\"unrecordable\"}"),
        1.0
    );
    nats.restart().await;
    recording.until(State::Streaming).await;
    assert_eq!(stored(&nats).await.len(), accepted);
    assert_eq!(recording.record(1).await, Recorded::Streamed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_spooled_the_next_one_drains() {
    let (mut nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
    let recording = Recording::start(&nats, &spool).await;
    for n in 0..20 {
        recording.record(n).await;
    }
    let closed = recording.recorder.clone();
    let settings = recording.close().await;
    let late = closed.record(event(20), Instant::now() + SOON).await;
    assert_eq!(late, Err(RecordError::Closed));
    assert!(closed.ended().is_cancelled());
    nats.restart().await;
    let recording = Recording::with(settings).await;
    recording.until(State::Streaming).await;
    assert_eq!(stored(&nats).await, (0..20).collect::<Vec<_>>());
    assert!(!recording.recorder.ended().is_cancelled());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_told_that_the_spool_is_held() {
    let (nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
    let first = Recording::start(&nats, &spool).await;
    let second = Recorder::start(first.settings.clone(), &mut runtime()).await;
    let error = second.unwrap_err();
    assert!(matches!(error, StartError::Spool(_)), "{error}");
    assert!(error.to_string().contains("IMPORTGUARD_SPOOL"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_nats_interrupts_goes_on_where_it_was() {
    let (mut nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
    let recording = Arc::new(Recording::start(&nats, &spool).await);
    let count = 10_000;
    let recorders = (0..16).map(|first| {
        let recording = recording.clone();
        tokio::spawn(async move {
            for n in (first..count).step_by(16) {
                recording.record(n).await;
            }
        })
    });
    for recorder in recorders.collect::<Vec<_>>() {
        recorder.await.unwrap();
    }
    for round in 1..=2 {
        nats.restart().await;
        let some = count * (3 - round) / 3;
        eventually("some are drained", SOON, async || {
            let status = recording.recorder.status();
            assert_ne!(
                status.state,
                State::Streaming,
                "too few events to interrupt"
            );
            if status.spooled_events < some && status.state == State::Draining {
                Ok(())
            } else {
                Err(format!("{status:?}"))
            }
        })
        .await;
        nats.kill9();
        recording.until(State::Spooling).await;
    }
    nats.restart().await;
    recording.until(State::Draining).await;
    nats.freeze().await;
    recording.until(State::Spooling).await;
    nats.thaw();
    recording.until(State::Streaming).await;
    assert_each_once(&nats, count).await;
}
