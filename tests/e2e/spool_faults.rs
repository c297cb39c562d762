//! A spool that breaks under a running gateway: it is noticed within seconds and told, nothing is answered as recorded that is not, and
//! it recovers by itself.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use importguard_tests::{
    Binary, Line, NatsServer, Service, Settings, eventually, load, wait_for_count,
};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::asserts;

/// What "within seconds" means here, with room for a busy machine.
const SECONDS: Duration = Duration::from_secs(30);

/// In the log line of a spool that breaks, and of one that works again.
pub(crate) const BREAKS: &str = "events are recorded only while NATS accepts them";
pub(crate) const RECOVERS: &str = "the spool works again";

/// Imports, and which of them were answered as recorded.
pub(crate) struct Bench {
    pub(crate) line: Line,
    pub(crate) recorded: Vec<String>,
    /// Whom the imports are about.
    pub(crate) friends: Vec<String>,
    asked: usize,
}

impl Bench {
    pub(crate) async fn without_nats() -> Self {
        Self::of(Line::without_nats(Settings::new()).await)
    }

    /// Where a shell has said `limits` before it becomes the gateway.
    pub(crate) async fn within(limits: &str) -> Self {
        let settings = Settings::new().with_long_timeouts();
        let nats = NatsServer::not_started();
        let decider = Service::decider(settings.clone()).await;
        let settings = settings.nats(&nats).decider(&decider);
        Self::of(Line {
            gateway: Service::gateway_with_limits(limits, settings).await,
            decider,
            nats,
        })
    }

    pub(crate) fn of(line: Line) -> Self {
        Self {
            line,
            recorded: Vec::new(),
            friends: vec!["b".to_owned()],
            asked: 0,
        }
    }

    /// Asks for an import, and returns the answer's code.
    pub(crate) async fn ask(&mut self) -> i32 {
        let id = format!("op-{}", self.asked);
        self.asked += 1;
        let friends: Vec<_> = self.friends.iter().map(String::as_str).collect();
        let code = asserts::code(&self.line.server().import(&id, "a", &friends).await);
        if code == 0 {
            self.recorded.push(id);
        }
        code
    }

    pub(crate) async fn ask_well(&mut self, count: usize) {
        for _ in 0..count {
            assert_eq!(self.ask().await, 0);
        }
    }

    /// The spool's part of `/readyz`, which says 200 all the while.
    pub(crate) async fn until_spool_is(&self, state: &str, error: &str) -> Value {
        let what = format!("the spool is {state} ({error})");
        let told = eventually(&what, SECONDS, async || {
            let told = self.line.gateway.recorder().await?["spool"].clone();
            let last_error = told["lastError"].as_str().unwrap_or_default();
            anyhow::ensure!(
                told["state"] == state && last_error.contains(error),
                "{told}"
            );
            Ok(told)
        })
        .await;
        for each in ["healthy", "degraded", "broken"] {
            let name = format!("importguard_recorder_spool_state{{state=\"{each}\"}}");
            let is = self.line.gateway.metric(&name).await.unwrap();
            assert_eq!(is, f64::from(u8::from(each == state)), "{each}");
        }
        told
    }

    pub(crate) async fn faults(&self, kind: &str) -> f64 {
        let name = format!("importguard_recorder_spool_faults_total{{kind=\"{kind}\"}}");
        self.line.gateway.metric(&name).await.unwrap()
    }

    /// How often the gateway's log has `words`, once it has them.
    pub(crate) async fn lines(&self, words: &str) -> usize {
        let told = self.line.gateway.wait_for_log(&[words]).await;
        told.matches(words).count()
    }

    /// Everything that was answered as recorded reaches NATS, also from a gateway that is killed now.
    pub(crate) async fn loses_nothing(mut self) {
        self.line.gateway.kill9();
        self.line.gateway.restart().await;
        self.line.nats.restart().await;
        self.drains().await;
    }

    /// The same, from this gateway.
    pub(crate) async fn drains(&self) {
        let events = wait_for_count(&self.line.nats, self.recorded.len()).await;
        let stored: Vec<_> = events.iter().map(|event| event.operation_id()).collect();
        for id in &self.recorded {
            assert!(
                stored.contains(&id.as_str()),
                "{id} was answered and is lost"
            );
        }
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.line.gateway.spool_dir()
    }

    /// The spool's directory as the gateway sees it.
    pub(crate) fn mounted(&self) -> PathBuf {
        let root = format!("/proc/{}/root", self.line.gateway.id());
        Path::new(&root).join(self.spool().strip_prefix("/").unwrap())
    }

    /// What is injected keeps events from being recorded as long as it lasts.
    pub(crate) async fn is_unrecordable(&mut self, error: &str) {
        eventually("an import is refused", SECONDS, async || {
            match self.ask().await {
                5914 => Ok(()),
                code => Err(code),
            }
        })
        .await;
        self.until_spool_is("broken", error).await;
        assert_eq!(self.ask().await, 5914);
    }
}

#[tokio::test]
async fn files_deleted_under_a_gateway_are_made_anew_and_lose_nothing() {
    for names in [
        &["spool.db", "spool.db-wal", "spool.db-shm", "spool.lock"][..],
        &["spool.db-wal", "spool.db-shm"],
        &["."],
    ] {
        let mut bench = Bench::without_nats().await;
        bench.ask_well(5).await;
        for name in names {
            match *name {
                "." => fs::remove_dir_all(bench.spool()).unwrap(),
                name => fs::remove_file(bench.spool().join(name)).unwrap(),
            }
        }
        // Before anything has looked after it.
        bench.ask_well(5).await;
        bench.until_spool_is("healthy", "deleted or replaced").await;
        assert_eq!(bench.faults("moved").await, 1.0);
        let told = bench
            .line
            .gateway
            .wait_for_log(&["the spool was made anew, with all events"])
            .await;
        assert_eq!(told.matches("was made anew").count(), 1, "{told}");
        bench.loses_nothing().await;
    }
}

#[tokio::test]
async fn an_idle_gateway_takes_a_deleted_directory_back_before_another_one_can() {
    let mut bench = Bench::without_nats().await;
    bench.ask_well(5).await;
    fs::remove_dir_all(bench.spool()).unwrap();
    bench.until_spool_is("healthy", "deleted or replaced").await;
    let directory = bench.spool().display().to_string();
    let settings = Settings::new().set("IMPORTGUARD_SPOOL", &directory);
    let mut second = Service::spawn(Binary::Gateway, settings);
    let status = second.exit(SECONDS).await;
    assert_eq!(status.code(), Some(1), "{}", second.output());
    bench.loses_nothing().await;
}

#[tokio::test]
async fn if_another_gateway_has_taken_the_directory_nothing_is_recorded_until_it_ends() {
    let mut bench = Bench::without_nats().await;
    bench.ask_well(5).await;
    bench.line.gateway.freeze().await;
    fs::remove_dir_all(bench.spool()).unwrap();
    let directory = bench.spool().display().to_string();
    let settings = Settings::new().set("IMPORTGUARD_SPOOL", &directory);
    let mut second = Service::gateway(settings).await;
    bench.line.gateway.thaw();
    bench
        .is_unrecordable("is held by another importguard")
        .await;
    assert_eq!(bench.lines(BREAKS).await, 1);
    second.kill9();
    bench.until_spool_is("healthy", "").await;
    bench.ask_well(5).await;
    bench.loses_nothing().await;
}

#[tokio::test]
async fn a_file_in_place_of_the_directory_is_told_and_nats_gets_the_events_all_the_same() {
    // An event whose ack was late would have nowhere to go.
    let settings = Settings::new().with_long_ack_timeout();
    let mut bench = Bench::of(Line::without_nats(settings).await);
    bench.ask_well(5).await;
    fs::remove_dir_all(bench.spool()).unwrap();
    fs::write(bench.spool(), "").unwrap();
    bench
        .until_spool_is("broken", "could not be repaired")
        .await;
    assert_eq!(bench.ask().await, 5914);
    bench.line.nats.restart().await;
    bench.drains().await;
    bench.line.gateway.wait_for_recorder("streaming").await;
    bench
        .until_spool_is("broken", "could not be repaired")
        .await;
    // While NATS takes them, the spool is not needed.
    bench.ask_well(5).await;
    fs::remove_file(bench.spool()).unwrap();
    bench.until_spool_is("healthy", "").await;
    assert_eq!(bench.faults("moved").await, 1.0);
}

#[tokio::test]
async fn a_gateway_overwrites_no_corrupt_database_and_goes_on_with_a_new_one() {
    // The header, which makes it no database, and all but the header.
    for (offset, len, rescued) in [(0, 100, 0), (4096, 1 << 16, 0)] {
        let mut bench = Bench::without_nats().await;
        bench.ask_well(20).await;
        let database = bench.spool().join("spool.db");
        let other = Connection::open(&database).unwrap();
        other
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .unwrap();
        drop(other);
        let file = OpenOptions::new().write(true).open(&database).unwrap();
        file.write_all_at(&vec![7; len], offset).unwrap();
        // No callback is needed to notice it.
        bench
            .until_spool_is("healthy", "the spool is corrupt")
            .await;
        let name = "importguard_recorder_spool_set_aside_files";
        assert_eq!(bench.line.gateway.metric(name).await.unwrap(), 1.0);
        assert_eq!(bench.faults("corrupt").await, 1.0);
        assert_eq!(bench.lines("the corrupt spool was set aside").await, 1);
        bench.recorded.drain(..20 - rescued);
        bench.ask_well(10).await;
        bench.loses_nothing().await;
    }
}

#[tokio::test]
async fn somebody_elses_lock_is_told_and_ends_by_itself() {
    let mut bench = Bench::without_nats().await;
    bench.ask_well(5).await;
    let other = Connection::open(bench.spool().join("spool.db")).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    bench
        .until_spool_is("broken", "another program has locked")
        .await;
    assert_eq!(bench.ask().await, 5914);
    other.execute_batch("ROLLBACK").unwrap();
    bench.until_spool_is("healthy", "").await;
    bench.ask_well(5).await;
    assert_eq!(bench.faults("locked").await, 1.0);
    // Once, and not for each event.
    assert_eq!(
        (bench.lines(BREAKS).await, bench.lines(RECOVERS).await),
        (1, 1)
    );
    bench.loses_nothing().await;
}

#[tokio::test]
async fn a_backup_taken_of_a_spool_in_use_does_no_harm() {
    let mut bench = Bench::without_nats().await;
    bench.ask_well(5).await;
    let dir = TempDir::new().unwrap();
    let other = Connection::open(bench.spool().join("spool.db")).unwrap();
    let server = bench.line.server();
    let backups = async {
        for number in 0..20 {
            let copy = dir.path().join(number.to_string());
            other.execute("VACUUM INTO ?1", [copy.to_str()]).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let imports = load(200, 8, async |number| {
        let answer = server.import(&format!("load-{number}"), "a", &["b"]).await;
        assert_eq!(asserts::code(&answer), 0);
        format!("load-{number}")
    });
    let ((), ids) = tokio::join!(backups, imports);
    bench.recorded.extend(ids);
    bench.until_spool_is("healthy", "").await;
    bench.loses_nothing().await;
}

#[tokio::test]
async fn nothing_of_a_drained_event_is_left_in_the_spools_directory() {
    let mut bench = Bench::without_nats().await;
    let marker = b"a_friend_nobody_should_find";
    let friend = String::from_utf8(marker.to_vec()).unwrap();
    let server = bench.line.server();
    for number in 0..20 {
        let answer = server
            .import(&format!("op-{number}"), "a", &[&friend])
            .await;
        assert_eq!(asserts::code(&answer), 0);
    }
    let spool = bench.spool();
    let found = || {
        let files = fs::read_dir(&spool).unwrap();
        files
            .map(|file| file.unwrap().path())
            .filter(|path| {
                let bytes = fs::read(path).unwrap_or_default();
                bytes.windows(marker.len()).any(|window| window == marker)
            })
            .collect::<Vec<_>>()
    };
    assert!(!found().is_empty());
    bench.line.nats.restart().await;
    wait_for_count(&bench.line.nats, 20).await;
    eventually("it is in no file", SECONDS, async || {
        let found = found();
        anyhow::ensure!(found.is_empty(), "{found:?}");
        Ok(())
    })
    .await;
}
