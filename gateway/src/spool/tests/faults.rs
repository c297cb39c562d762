//! A spool that breaks while it is in use.

use std::{
    fs::OpenOptions,
    os::unix::fs::{FileExt, PermissionsExt},
    path::PathBuf,
    thread::sleep,
};

use super::*;

/// A spool with events whose files can be damaged.
pub(super) struct Bench {
    dir: TempDir,
    pub(super) spool: Supervised,
    pub(super) health: Arc<Health>,
    pub(super) recorded: Vec<EventId>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let health = Arc::new(Health::default());
        let spool = Supervised::open(location(&dir.path().join("spool")), health.clone());
        let mut bench = Self {
            dir,
            spool: spool.unwrap(),
            health,
            recorded: Vec::new(),
        };
        for _ in 0..20 {
            bench.append().unwrap();
        }
        bench
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("spool").join(name)
    }

    /// Appends an event, and remembers it if it was recorded.
    pub(super) fn append(&mut self) -> Result<(), AppendError> {
        let event = event(&"x".repeat(1000));
        let id = event.id;
        let result = self.spool.append(&[event]).remove(0);
        if result.is_ok() {
            self.recorded.push(id);
        }
        result
    }

    /// Asserts that a process that starts now would find all recorded events.
    #[track_caller]
    pub(super) fn holds_what_was_recorded(&self) {
        let found = Connection::open(self.path("spool.db")).unwrap();
        let mut ids = found.prepare("SELECT id FROM event ORDER BY id").unwrap();
        let ids = ids.query_map([], |row| row.get::<_, String>(0)).unwrap();
        let ids: Vec<_> = ids.map(Result::unwrap).collect();
        for id in &self.recorded {
            assert!(ids.contains(&id.to_string()), "{id} is lost");
        }
        assert_eq!(self.spool.store().unwrap().contents.events, ids.len());
    }

    #[track_caller]
    pub(super) fn is(&self, state: SpoolState, error: &str) {
        let status = self.health.status();
        let last_error = status.last_error.unwrap_or_default();
        assert_eq!(status.state, state, "{last_error}");
        assert!(last_error.contains(error), "{last_error}");
    }

    /// Asserts that one fault was counted, of this kind.
    #[track_caller]
    pub(super) fn counts(&self, kind: &str) {
        for (counted, count) in self.health.faults() {
            assert_eq!(count, u64::from(kind == counted), "{counted}");
        }
    }

    /// Asserts that no event is recorded between `break_it` and `mend_it`.
    #[track_caller]
    fn breaks_between(
        mut self,
        break_it: impl FnOnce(&mut Self),
        (kind, error): (&str, &str),
        mend_it: impl FnOnce(&mut Self),
    ) {
        break_it(&mut self);
        for _ in 0..3 {
            let refused = self.append();
            let Err(AppendError::Broken(why)) = refused else {
                panic!("{refused:?}");
            };
            assert!(why.contains(error), "{why}");
            self.is(SpoolState::Broken, error);
        }
        mend_it(&mut self);
        // The spool is not retried immediately.
        sleep(Duration::from_millis(300));
        self.spool.examine();
        self.is(SpoolState::Healthy, error);
        self.append().unwrap();
        self.holds_what_was_recorded();
        self.counts(kind);
    }

    pub(super) fn overwrite(&self, name: &str, offset: u64, len: usize) {
        let file = OpenOptions::new().write(true).open(self.path(name));
        file.unwrap().write_all_at(&vec![7; len], offset).unwrap();
    }

    /// Moves everything into the database file, where it can be damaged.
    pub(super) fn checkpoint(&mut self) {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        let connection = self.spool.connection();
        connection.query_row(checkpoint, [], |_| Ok(())).unwrap();
    }
}

/// Files that may be removed while a spool is in use.
const REMOVED: [&[&str]; 6] = [
    &["spool.db"],
    &["spool.db-wal"],
    &["spool.db-shm"],
    &["spool.lock"],
    &["spool.db", "spool.db-wal", "spool.db-shm", "spool.lock"],
    // The directory itself.
    &[""],
];

impl Bench {
    fn remove(&self, names: &[&str]) {
        for name in names {
            let path = self.path(name);
            match name.is_empty() {
                true => fs::remove_dir_all(path).unwrap(),
                false => fs::remove_file(path).unwrap(),
            }
        }
    }
}

#[test]
fn no_event_is_recorded_in_a_deleted_file() {
    for names in REMOVED {
        let mut bench = Bench::new();
        bench.remove(names);
        bench.append().unwrap();
        bench.holds_what_was_recorded();
        bench.is(SpoolState::Healthy, "was deleted or replaced");
        bench.counts("moved");
        bench.append().unwrap();
        bench.holds_what_was_recorded();
        bench.counts("moved");
    }
}

#[test]
fn what_is_parked_stays_so_when_its_files_are_made_anew() {
    let mut bench = Bench::new();
    let reason = ParkReason::SubjectMissing;
    let id = bench.recorded[3];
    let parking = Parking {
        id,
        reason,
        attempted_after: Some(7),
    };
    bench.spool.park(&[parking]).unwrap();
    bench.remove(REMOVED[0]);
    bench.spool.examine();
    bench.holds_what_was_recorded();
    let contents = bench.spool.store().unwrap().contents;
    assert_eq!((contents.parked.of(reason), contents.waiting()), (1, 19));
    let query = ParkedQuery {
        limit: 10,
        max_bytes: usize::MAX,
        ..ParkedQuery::default()
    };
    let parked = bench.spool.parked(&query).unwrap().events;
    assert_eq!((parked[0].id, parked[0].attempted_after), (id, Some(7)));
}

#[test]
fn an_idle_spool_notices_that_its_files_were_deleted_and_makes_them_anew() {
    for names in REMOVED {
        let mut bench = Bench::new();
        bench.remove(names);
        bench.spool.examine();
        bench.holds_what_was_recorded();
        bench.is(SpoolState::Healthy, "was deleted or replaced");
        let path = bench.path("");
        let second = Supervised::open(location(&path), Arc::default());
        assert!(matches!(second, Err(SpoolOpenError::Held { .. })));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for name in ["spool.db", "spool.db-wal", "spool.db-shm", "spool.lock"] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
    }
}

#[test]
fn what_was_deleted_before_the_end_is_found_by_the_next_start() {
    let Bench {
        dir,
        spool,
        recorded,
        ..
    } = Bench::new();
    let path = dir.path().join("spool");
    fs::remove_dir_all(&path).unwrap();
    spool.close();
    let next = Supervised::open(location(&path), Arc::default()).unwrap();
    assert_eq!(next.store().unwrap().contents.events, recorded.len());
}

#[test]
fn events_of_a_spool_that_was_put_in_place_of_this_one_are_kept_beside_its_own() {
    let mut bench = Bench::new();
    let other = Bench::new();
    bench.recorded.extend(&other.recorded);
    other.spool.close();
    let restored = other.dir.path().join("spool/spool.db");
    fs::rename(restored, bench.path("spool.db")).unwrap();
    bench.spool.examine();
    bench.holds_what_was_recorded();
    assert_eq!(bench.recorded.len(), 40);
    bench.append().unwrap();
    bench.holds_what_was_recorded();
}

#[test]
fn what_cannot_be_made_anew_can_still_be_read_and_is_made_anew_later() {
    let mut bench = Bench::new();
    fs::remove_dir_all(bench.path("")).unwrap();
    // No directory can be created there.
    let path = bench.dir.path().join("spool");
    fs::write(&path, "").unwrap();
    let refused = bench.append().unwrap_err();
    assert!(matches!(refused, AppendError::Broken(_)), "{refused}");
    bench.is(SpoolState::Broken, "could not be repaired");
    // NATS could still receive its events.
    let batch = bench.spool.next(5, usize::MAX, 7).unwrap();
    let done: Vec<_> = batch.iter().map(|event| event.id).collect();
    assert_eq!(done, bench.recorded[..5]);
    bench.spool.delete(&done).unwrap();
    bench.recorded.drain(..5);
    // Parked events make way for the rest.
    let parking = Parking {
        id: bench.recorded[0],
        reason: ParkReason::TooLarge,
        attempted_after: None,
    };
    bench.spool.park(&[parking]).unwrap();
    let next = bench.spool.next(1, usize::MAX, 7).unwrap();
    assert_eq!(next[0].id, bench.recorded[1]);

    fs::remove_file(&path).unwrap();
    sleep(Duration::from_millis(300));
    bench.spool.examine();
    bench.is(SpoolState::Healthy, "was deleted or replaced");
    bench.holds_what_was_recorded();
    bench.counts("moved");
}

#[test]
fn a_directory_that_another_process_has_taken_is_left_to_it_until_it_ends() {
    let mut bench = Bench::new();
    bench.remove(REMOVED[4]);
    let location = location(&bench.path(""));
    let mut second = Supervised::open(location, Arc::default()).unwrap();
    let theirs = event("theirs");
    bench.recorded.push(theirs.id);
    assert_eq!(second.append(&[theirs]), [Ok(())]);
    bench.append().unwrap_err();
    bench.is(SpoolState::Broken, "is held by another importguard");
    second.close();
    sleep(Duration::from_millis(300));
    bench.append().unwrap();
    bench.holds_what_was_recorded();
}

#[test]
fn a_full_disk_is_no_full_spool() {
    Bench::new().breaks_between(
        |bench| {
            let connection = bench.spool.connection();
            // SQLite raises this to the current size.
            connection.pragma_update(None, "max_page_count", 1).unwrap();
            while bench.append().is_ok() {}
        },
        ("diskFull", "the disk is full"),
        |bench| {
            let connection = bench.spool.connection();
            connection
                .pragma_update(None, "max_page_count", 256)
                .unwrap();
        },
    );
}

#[test]
fn of_a_group_that_meets_a_full_disk_each_event_has_its_own_result() {
    let mut bench = Bench::new();
    let connection = bench.spool.connection();
    let pages: u32 = connection
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    connection
        .pragma_update(None, "max_page_count", pages + 3)
        .unwrap();
    let group: Vec<_> = (0..50).map(|_| event(&"x".repeat(1000))).collect();
    let results = bench.spool.append(&group);
    let recorded = group.iter().zip(&results);
    let recorded = recorded.filter(|(_, result)| result.is_ok());
    let recorded: Vec<_> = recorded.map(|(event, _)| event.id).collect();
    assert!((1..50).contains(&recorded.len()), "{results:?}");
    bench.recorded.extend(recorded);
    bench.is(SpoolState::Broken, "the disk is full");
    let events = bench.spool.store().unwrap().contents.events;
    assert_eq!(events, bench.recorded.len());
    bench.holds_what_was_recorded();
}

#[test]
fn a_read_only_database_breaks_it() {
    Bench::new().breaks_between(
        |bench| {
            let connection = bench.spool.connection();
            connection.pragma_update(None, "query_only", true).unwrap();
        },
        ("readOnly", "is read-only"),
        |bench| {
            let connection = bench.spool.connection();
            connection.pragma_update(None, "query_only", false).unwrap();
        },
    );
}

#[test]
fn a_database_that_somebody_has_locked_breaks_it_until_they_let_it_go() {
    let bench = Bench::new();
    let other = Connection::open(bench.path("spool.db")).unwrap();
    bench.breaks_between(
        |_| other.execute_batch("BEGIN EXCLUSIVE").unwrap(),
        ("locked", "another program has locked"),
        |_| other.execute_batch("ROLLBACK").unwrap(),
    );
}

#[tokio::test]
async fn an_append_to_a_locked_database_ends_within_its_budget_and_the_next_works_once_it_is_free()
{
    let dir = TempDir::new().unwrap();
    let spool = open(&dir);
    spool.append(event("before"), soon()).await.unwrap();
    let other = Connection::open(dir.path().join("spool.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    // Less than SQLite waits for a lock, and more than it waits for several callers, one after the other.
    for (budget, expected) in [
        (
            Duration::from_millis(100),
            "longer than the request may take",
        ),
        (Duration::from_secs(8), "another program has locked"),
    ] {
        let began = Instant::now();
        let appends = (0..20).map(|_| spool.append(event("refused"), began + budget));
        for refused in futures_util::future::join_all(appends).await {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        // A busy machine may be late, but not by as much.
        assert!(began.elapsed() < budget + Duration::from_secs(10));
    }
    other.execute_batch("ROLLBACK").unwrap();
    let deadline = soon();
    while let Err(error) = spool.append(event("after"), deadline).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(payloads(&spool).await, ["before", "after"]);
}

#[test]
fn a_database_in_whose_place_there_is_a_directory_breaks_it() {
    Bench::new().breaks_between(
        |bench| {
            bench.remove(&["spool.db"]);
            fs::create_dir(bench.path("spool.db")).unwrap();
        },
        ("moved", "spool.db was deleted or replaced"),
        |bench| fs::remove_dir(bench.path("spool.db")).unwrap(),
    );
}

/// SQLite returns CANTOPEN.
#[test]
fn so_does_a_directory_in_place_of_its_log() {
    Bench::new().breaks_between(
        |bench| {
            bench.remove(&["spool.db-wal"]);
            fs::create_dir(bench.path("spool.db-wal")).unwrap();
        },
        ("moved", "unable to open database file"),
        |bench| fs::remove_dir(bench.path("spool.db-wal")).unwrap(),
    );
}

#[test]
fn who_reads_a_spool_that_becomes_empty_delays_the_erasure_and_breaks_nothing() {
    let mut bench = Bench::new();
    let reader = Connection::open(bench.path("spool.db")).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM event").unwrap();
    let recorded = std::mem::take(&mut bench.recorded);
    bench.spool.delete(&recorded).unwrap();
    bench.is(SpoolState::Healthy, "");
    let is_in_a_file = |bench: &Bench| {
        let files = fs::read_dir(bench.path("")).unwrap();
        let mut files = files.map(|file| fs::read(file.unwrap().path()).unwrap());
        files.any(|bytes| bytes.windows(100).any(|window| window == [b'x'; 100]))
    };
    assert!(is_in_a_file(&bench));
    reader.execute_batch("COMMIT").unwrap();
    bench.spool.delete(&recorded).unwrap();
    assert!(!is_in_a_file(&bench));
    bench.append().unwrap();
    assert!(is_in_a_file(&bench));
}
