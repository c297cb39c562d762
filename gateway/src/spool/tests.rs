use std::{fs, path::Path};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{store::Store, *};

mod corruption;
mod directory;
mod faults;
mod parking;
mod reader;

const MIB: u64 = 1 << 20;

pub(super) fn event(payload: &str) -> PendingEvent {
    PendingEvent {
        id: EventId::new(),
        subject: "importguard.v1.decision.allow".into(),
        operation_id: "1646445464564".to_owned(),
        trace: MessageHeaders {
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            tracestate: Some("vendor=opaque".to_owned()),
            baggage: None,
        },
        payload: Bytes::from(payload.to_owned()),
        attempted_after: None,
        parked: None,
    }
}

fn location(dir: &Path) -> Location {
    Location {
        dir: dir.to_owned(),
        max_bytes: MIB,
        sync: SpoolSync::Full,
    }
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

pub(super) fn open(dir: &TempDir) -> Spool {
    Spool::open(dir.path(), MIB, SpoolSync::Full, CancellationToken::new()).unwrap()
}

pub(super) async fn reopen(spool: Spool, dir: &TempDir) -> Spool {
    spool.close(soon()).await;
    drop(spool);
    open(dir)
}

pub(super) async fn payloads(spool: &Spool) -> Vec<String> {
    let events = spool.next(10_000, usize::MAX, 7).await.unwrap();
    let text = |event: PendingEvent| String::from_utf8(event.payload.to_vec()).unwrap();
    events.into_iter().map(text).collect()
}

#[tokio::test]
async fn events_come_back_in_the_order_of_their_ids_with_everything_they_had() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    let (first, second) = (event("first"), event("second"));
    let (id, operation_id, trace) = (first.id, first.operation_id.clone(), first.trace.clone());
    spool.append(second, soon()).await.unwrap();
    spool.append(first, soon()).await.unwrap();
    assert_eq!(payloads(&spool).await, ["first", "second"]);
    let event = &spool.next(1, usize::MAX, 7).await.unwrap()[0];
    assert_eq!(event.id, id);
    assert_eq!(event.subject, "importguard.v1.decision.allow");
    assert_eq!(event.operation_id, operation_id);
    assert_eq!(event.trace, trace);
}

#[tokio::test]
async fn events_survive_a_reopen_and_the_depth_is_right_at_once() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    for payload in ["a", "bb", "ccc"] {
        spool.append(event(payload), soon()).await.unwrap();
    }
    let spool = reopen(spool, &dir).await;
    assert_eq!(spool.depth().events(), 3);
    assert!(spool.depth().oldest_age().is_some());
    let batch = spool.next(2, usize::MAX, 7).await.unwrap();
    let done = batch.iter().map(|event| event.id).collect();
    spool.delete(done).await.unwrap();
    assert_eq!(spool.depth().events(), 1);
    let spool = reopen(spool, &dir).await;
    assert_eq!(payloads(&spool).await, ["ccc"]);
}

#[test]
fn the_oldest_is_known_in_whatever_order_events_come_and_go() {
    let dir = TempDir::new().unwrap();
    let (lock, mut store, _) = location(dir.path()).open().unwrap();
    let events = ["first", "second", "third"].map(event);
    let ids = [0, 1, 2].map(|number: usize| events[number].id);
    for (number, oldest) in [(1, 1), (2, 1), (0, 0)] {
        assert!(store.append(&events[number]).unwrap());
        assert_eq!(oldest_of(&store), Some(ids[oldest]));
    }
    let batch = store.next(10, usize::MAX, 1).unwrap();
    assert_eq!(oldest_of(&store), Some(ids[0]));
    store.delete(&[batch[0].id]).unwrap();
    assert_eq!(oldest_of(&store), Some(ids[1]));
    let contents = store.contents;
    drop((lock, store));
    let (_lock, mut store, _) = location(dir.path()).open().unwrap();
    assert_eq!(store.contents, contents);
    store.delete(&[batch[1].id, batch[2].id]).unwrap();
    assert_eq!(store.contents.oldest, None);
}

#[tokio::test]
async fn an_id_is_kept_once() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    let record = event("once");
    for _ in 0..2 {
        spool.append(record.clone(), soon()).await.unwrap();
    }
    assert_eq!(payloads(&spool).await, ["once"]);
    assert_eq!(spool.depth().events(), 1);
}

#[tokio::test]
async fn what_is_appended_together_is_committed_together() {
    let dir = TempDir::new().unwrap();
    let (_lock, mut store, _) = location(dir.path()).open().unwrap();
    let events: Vec<_> = (0..100).map(|n| event(&n.to_string())).collect();
    let watcher = Connection::open(dir.path().join("spool.db")).unwrap();
    let commits = |connection: &Connection| -> i64 {
        connection
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .unwrap()
    };
    let before = commits(&watcher);
    assert!(store.append_all(events.iter()).unwrap());
    let after = commits(&watcher);
    assert!(after > before);
    assert_eq!(commits(&watcher), after);
    let count: i64 = watcher
        .query_row("SELECT COUNT(*) FROM event", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 100);
    assert_eq!(store.contents.events, 100);
}

#[tokio::test]
async fn a_full_spool_refuses_and_has_room_again_once_it_is_drained() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    let payload = "x".repeat(10_000);
    let mut accepted = 0;
    let error = loop {
        match spool.append(event(&payload), soon()).await {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1000, "the limit is not one");
    };
    assert_eq!(error, AppendError::Full);
    assert!(accepted > 50, "{accepted} events of 10 kB in 1 MiB");
    assert_eq!(spool.depth().events(), accepted);
    let size = fs::metadata(dir.path().join("spool.db")).unwrap().len();
    assert!(size <= MIB, "{size}");
    // Small events still fit into the last pages, but these must fill up too.
    while spool.append(event("x"), soon()).await.is_ok() {
        assert!(spool.depth().events() < 20_000);
    }
    loop {
        let batch = spool.next(100, usize::MAX, 7).await.unwrap();
        if batch.is_empty() {
            break;
        }
        let done = batch.iter().map(|event| event.id).collect();
        spool.delete(done).await.unwrap();
    }
    assert_eq!(spool.depth().events(), 0);
    assert_eq!(spool.depth().oldest_age(), None);
    spool.append(event(&payload), soon()).await.unwrap();
}

#[tokio::test]
async fn what_is_in_use_comes_up_to_the_bound_however_large_the_events_are() {
    for payload_bytes in [1, 600, 1_500, 3_000, 40_000] {
        let dir = TempDir::new().unwrap();
        let spool = open(&dir);
        let depth = spool.depth();
        let empty = depth.used_bytes();
        // A page for the schema, and one for each table and index.
        assert_eq!(empty, 4 * 4096);
        assert_eq!(depth.max_bytes(), MIB);
        let payload = "x".repeat(payload_bytes);
        while spool.append(event(&payload), soon()).await.is_ok() {
            assert!(depth.used_bytes() <= MIB);
        }
        // The refused event would have needed one page for its place in the tree besides those for its payload.
        let missing = MIB - depth.used_bytes();
        assert!(
            missing < payload_bytes as u64 + 2 * 4096,
            "full at {missing} bytes less than it may have, with events of {payload_bytes}"
        );
        let all = spool.next(100_000, usize::MAX, 7).await.unwrap();
        let done = all.iter().map(|event| event.id).collect();
        spool.delete(done).await.unwrap();
        assert_eq!((depth.events(), depth.used_bytes()), (0, empty));
    }
}

#[tokio::test]
async fn in_a_group_that_does_not_fit_those_that_do_are_kept() {
    let dir = TempDir::new().unwrap();
    let mut spool = Supervised::open(location(dir.path()), Arc::default()).unwrap();
    let too_large = "x".repeat(2 << 20);
    let group = [event("a"), event(&too_large), event("b")];
    assert_eq!(
        spool.append(&group),
        [Ok(()), Err(AppendError::Full), Ok(())]
    );
    assert_eq!(spool.store().unwrap().contents.events, 2);
}

fn oldest_of(store: &Store) -> Option<EventId> {
    store.contents.oldest.map(|oldest| oldest.id)
}

#[tokio::test]
async fn a_failed_publication_and_an_unfinished_drain_are_remembered() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    let failed = PendingEvent {
        attempted_after: Some(1000),
        ..event("failed")
    };
    spool.append(failed, soon()).await.unwrap();
    spool.append(event("drained"), soon()).await.unwrap();
    spool.append(event("waiting"), soon()).await.unwrap();
    let attempts = |batch: Vec<PendingEvent>| -> Vec<_> {
        batch.iter().map(|event| event.attempted_after).collect()
    };
    let first = attempts(spool.next(2, usize::MAX, 2000).await.unwrap());
    assert_eq!(first, [Some(1000), None]);
    let spool = reopen(spool, &dir).await;
    let again = attempts(spool.next(3, usize::MAX, 3000).await.unwrap());
    assert_eq!(again, [Some(1000), Some(2000), None]);
    // The first attempt counts, however often the drain restarts and with however few events.
    spool.next(1, usize::MAX, 4000).await.unwrap();
    let again = attempts(spool.next(3, usize::MAX, 5000).await.unwrap());
    assert_eq!(again, [Some(1000), Some(2000), Some(2000)]);
}

#[tokio::test]
async fn a_finished_drain_is_not_remembered() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    // The clock is set back between them.
    let (after, before) = (event("after"), event("before"));
    let (after, before) = match after.id < before.id {
        true => (before, after),
        false => (after, before),
    };
    spool.append(after, soon()).await.unwrap();
    let drained = spool.next(9, usize::MAX, 2000).await.unwrap();
    spool.delete(vec![drained[0].id]).await.unwrap();
    spool.append(before.clone(), soon()).await.unwrap();
    let next = spool.next(9, usize::MAX, 3000).await.unwrap();
    assert_eq!((next[0].id, next[0].attempted_after), (before.id, None));
}

#[tokio::test]
async fn a_closed_spool_takes_nothing_and_says_so() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    spool.close(soon()).await;
    let late = spool.append(event("late"), soon()).await;
    assert_eq!(late, Err(AppendError::Closed));
}

#[tokio::test]
async fn an_event_for_which_nobody_waits_is_kept_only_if_nats_may_have_it() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    let attempted = PendingEvent {
        attempted_after: Some(7),
        ..event("attempted")
    };
    let (release, released) = std::sync::mpsc::channel::<()>();
    let held = spool.run(move |_| {
        let _ = released.recv();
        Ok(())
    });
    let late = async {
        for event in [event("late"), attempted] {
            let deadline = Instant::now() + Duration::from_millis(1);
            let late = spool.append(event, deadline).await;
            assert_eq!(late, Err(AppendError::TooSlow));
        }
        release.send(()).unwrap();
    };
    tokio::join!(held, late).0.unwrap();
    // Once this one is committed, so are those before it.
    spool.append(event("last"), soon()).await.unwrap();
    assert_eq!(payloads(&spool).await, ["attempted", "last"]);
}

#[tokio::test]
async fn who_waits_for_a_spool_that_hangs_waits_no_longer_than_its_deadline() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    let other = Connection::open(dir.path().join("spool.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let start = Instant::now();
    let late = spool
        .append(event("late"), start + Duration::from_millis(1))
        .await;
    assert_eq!(late, Err(AppendError::TooSlow));
    assert!(start.elapsed() < Duration::from_secs(20));
    other.execute_batch("ROLLBACK").unwrap();
}
