//! A spool whose files are damaged while it is in use.

use std::{fs::OpenOptions, thread::sleep, time::SystemTime};

use super::{faults::Bench, *};

#[test]
fn a_database_that_is_overwritten_is_set_aside_and_what_can_be_read_is_kept() {
    for (offset, len) in [(0, 100), (0, 4096), (4096, 1 << 20)] {
        let mut bench = Bench::new();
        bench.checkpoint();
        bench.overwrite("spool.db", offset, len);
        bench.spool.examine();
        bench.is(SpoolState::Healthy, "the spool is corrupt");
        bench.counts("corrupt");
        assert_eq!(bench.health.set_aside(), 1);
        // Events in memory are kept; all others are in the file that was set aside.
        bench.append().unwrap();
        bench.holds_what_was_recorded();
    }
}

#[test]
fn so_is_one_that_is_emptied() {
    let mut bench = Bench::new();
    bench.checkpoint();
    let database = OpenOptions::new().write(true).open(bench.path("spool.db"));
    database.unwrap().set_len(0).unwrap();
    bench.append().unwrap();
    bench.is(SpoolState::Healthy, "the spool is corrupt");
    assert_eq!(bench.health.set_aside(), 1);
    bench.recorded.drain(..20);
    bench.holds_what_was_recorded();
}

#[test]
fn so_is_one_whose_log_is_overwritten() {
    let mut bench = Bench::new();
    bench.overwrite("spool.db-wal", 40_000, 10_000);
    bench.append().unwrap();
    bench.is(
        SpoolState::Healthy,
        "another program has written to its log",
    );
    assert_eq!(bench.health.set_aside(), 1);
    bench.holds_what_was_recorded();
}

#[test]
fn a_log_that_only_looks_changed_is_not_set_aside() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        let log = OpenOptions::new()
            .write(true)
            .open(bench.path("spool.db-wal"));
        log.unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        bench.append().unwrap();
    }
    bench.is(SpoolState::Healthy, "");
    assert_eq!(bench.health.set_aside(), 0);
    bench.holds_what_was_recorded();
}

#[test]
fn who_changes_events_with_sqlites_own_tool_breaks_nothing() {
    let mut bench = Bench::new();
    let other = Connection::open(bench.path("spool.db")).unwrap();
    for _ in 0..3 {
        other
            .execute_batch("UPDATE event SET attempted_after = 1")
            .unwrap();
        bench.append().unwrap();
        bench.spool.examine();
    }
    bench.is(SpoolState::Healthy, "");
    assert_eq!(bench.health.set_aside(), 0);
    bench.holds_what_was_recorded();
}

#[test]
fn events_that_somebody_deletes_with_sqlites_own_tool_are_not_waited_for() {
    let mut bench = Bench::new();
    let other = Connection::open(bench.path("spool.db")).unwrap();
    let ids = bench.recorded.split_off(5);
    other
        .execute("DELETE FROM event WHERE rowid > 5", [])
        .unwrap();
    bench.append().unwrap();
    bench.holds_what_was_recorded();
    // Deleting what is gone already is no error either.
    bench.spool.delete(&ids).unwrap();
    bench.holds_what_was_recorded();

    other.execute("DELETE FROM event", []).unwrap();
    assert!(bench.spool.next(9, 9, 7).unwrap().is_empty());
    assert_eq!(bench.spool.store().unwrap().contents.waiting(), 0);
}

#[test]
fn an_empty_batch_has_the_waiting_events_counted_again() {
    let dir = TempDir::new().unwrap();
    let (_lock, mut store, _) = location(dir.path()).open().unwrap();
    store.append(&event("a")).unwrap();
    let other = Connection::open(dir.path().join("spool.db")).unwrap();
    other.execute("DELETE FROM event", []).unwrap();
    assert!(store.next(9, 9, 7).unwrap().is_empty());
    assert_eq!(store.contents.waiting(), 0);
}

#[test]
fn an_event_that_cannot_be_read_does_not_hold_up_the_others() {
    for change in [
        "id = substr(id, 1, 35) || '!'",
        "subject = x'07'",
        "subject = CAST(x'ff' AS TEXT)",
        "payload = 'text'",
        "attempted_after = 'never'",
    ] {
        let mut bench = Bench::new();
        let other = Connection::open(bench.path("spool.db")).unwrap();
        other
            .execute(&format!("UPDATE event SET {change} WHERE rowid = 11"), [])
            .unwrap();
        bench.recorded.remove(10);
        let batch = bench.spool.next(100, usize::MAX, 7).unwrap();
        let ids: Vec<_> = batch.iter().map(|event| event.id).collect();
        assert_eq!(ids, bench.recorded, "{change}");
        bench.is(SpoolState::Healthy, "the spool is corrupt");
        assert_eq!(bench.health.set_aside(), 1);
        bench.append().unwrap();
        bench.holds_what_was_recorded();
    }
}

#[test]
fn so_is_one_whose_log_is_cut() {
    let mut bench = Bench::new();
    let log = OpenOptions::new()
        .write(true)
        .open(bench.path("spool.db-wal"));
    log.unwrap().set_len(0).unwrap();
    // Leave nothing in memory or on disk.
    let connection = bench.spool.connection();
    connection.execute_batch("PRAGMA shrink_memory").unwrap();
    bench.recorded.clear();
    bench.append().unwrap();
    bench.holds_what_was_recorded();
    bench.is(SpoolState::Healthy, "the spool is corrupt");
    assert_eq!(bench.health.set_aside(), 1);
}

#[test]
fn a_disk_that_corrupts_everything_is_not_filled_with_what_is_set_aside() {
    let mut bench = Bench::new();
    for round in 0..3 {
        bench.checkpoint();
        bench.overwrite("spool.db", 0, 100);
        sleep(Duration::from_millis(300));
        bench.spool.examine();
        assert_eq!(bench.health.set_aside(), 1, "round {round}");
    }
    bench.is(SpoolState::Broken, "set aside a moment ago");
}

#[tokio::test]
async fn who_reads_the_next_events_sees_how_many_are_left() {
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    for payload in ["a", "b", "c"] {
        spool.append(event(payload), soon()).await.unwrap();
    }
    let path = dir.path().join("spool.db");
    let other = Connection::open(&path).unwrap();
    other
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let database = OpenOptions::new().write(true).open(&path).unwrap();
    database.set_len(0).unwrap();
    // Otherwise, the drain would find no event but immediately try again because events seem to wait.
    assert_eq!(payloads(&spool).await.len(), spool.depth().waiting());
    assert_eq!(spool.depth().waiting(), 0);
}
