//! `importguard spool` on the spools of real gateways, with a real nats-server.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context;
use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy},
};
use importguard_core::EventId;
use importguard_tests::{
    Binary, Line, NatsServer, Process, SOON, Settings, Spool, create_stream, eventually, stored,
    wait_for_count,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::asserts::{has, printed};

/// Runs `importguard spool …`, and returns standard output and standard error.
async fn spool(settings: &Settings, arguments: &[&str], code: i32) -> (String, String) {
    printed(&settings.run(["spool"].iter().chain(arguments)).await, code)
}

async fn status(dir: &Path) -> Value {
    let arguments = ["status", "--json", dir.to_str().unwrap()];
    let (printed, _) = spool(&Settings::new(), &arguments, 0).await;
    serde_json::from_str(&printed).unwrap()
}

/// A gateway without NATS that has spooled `ids`.
async fn with_events(ids: &[&str]) -> Line {
    let line = Line::without_nats(Settings::new()).await;
    for id in ids {
        line.server().import(id, "alice", &["bob"]).await;
    }
    line
}

/// A nats-server whose stream forgets at once which IDs it has, so that it hides no repetition.
async fn forgetful(nats: &mut NatsServer, subjects: &[&str]) {
    nats.restart().await;
    create_stream(nats.client().await, |config| {
        config.subjects = subjects.iter().map(|&subject| subject.to_owned()).collect();
        config.duplicate_window = Duration::from_millis(100);
    })
    .await;
}

/// The operationIDs in the stream, in order.
async fn published(nats: &NatsServer) -> Vec<String> {
    let events = stored(nats).await.into_iter();
    events
        .map(|event| event.operation_id().to_owned())
        .collect()
}

/// An `importguard spool drain` that waits for NATS and has the spool in `dir`, and the directory of its logs.
async fn draining(nats: &Settings, dir: &Path) -> (TempDir, Process) {
    let mut command = nats.command(Binary::AllInOne.path());
    command.args(["spool", "drain", "--wait", "1h", dir.to_str().unwrap()]);
    let logs = TempDir::new().unwrap();
    let drain = Process::spawn("drain", command, logs.path());
    eventually("it has the spool", SOON, async || {
        match status(dir).await["inUseBy"] == drain.id() {
            true => Ok(()),
            false => Err("it has not"),
        }
    })
    .await;
    (logs, drain)
}

#[tokio::test]
async fn status_shows_what_is_in_a_spool_and_who_has_it() {
    let mut line = with_events(&["op-1", "op-2"]).await;
    let dir = line.gateway.spool_dir();
    let told = status(&dir).await;
    assert_eq!(told["events"], 2, "{told}");
    assert_eq!(told["waiting"], 2);
    assert_eq!(told["inUse"], true);
    assert_eq!(told["inUseBy"], line.gateway.id());
    assert_eq!(told["schema"], 3);
    assert!(told["oldest"].as_str().unwrap().starts_with("20"));
    assert_eq!(told["setAside"], Value::Array(Vec::new()));

    assert_eq!(line.gateway.terminate(SOON).await.code(), Some(0));
    fs::write(dir.join("spool.corrupt-20261128T101500Z.db"), "").unwrap();
    let arguments = ["status", dir.to_str().unwrap()];
    let (text, _) = spool(&Settings::new(), &arguments, 0).await;
    for part in [
        "in use     no\n",
        "events     2: 2 waiting, 0 parked\n",
        "set aside  ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (_, error) = spool(&Settings::new(), &["status", "/nowhere"], 1).await;
    assert!(error.contains("no spool in /nowhere"), "{error}");
    // The setting that the gateway has names it too.
    let settings = Settings::new().set("IMPORTGUARD_SPOOL", dir.display().to_string());
    spool(&settings, &["status"], 0).await;
    spool(&Settings::new(), &["status"], 2).await;
}

#[tokio::test]
async fn export_prints_every_event_and_changes_nothing() {
    let mut line = with_events(&["op-1", "op-2", "op-3"]).await;
    let dir = line.gateway.spool_dir();
    let arguments = ["export", dir.to_str().unwrap()];
    let (lines, told) = spool(&Settings::new(), &arguments, 0).await;
    let events = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let events: Vec<Value> = events.collect();
    let ids: Vec<_> = events
        .iter()
        .map(|event| &event["data"]["operationID"])
        .collect();
    assert_eq!(ids, ["op-1", "op-2", "op-3"]);
    assert!(told.contains("3 events exported"), "{told}");

    let to = TempDir::new().unwrap();
    let file = to.path().join("events.jsonl");
    let arguments = [&arguments[..], &["--to", file.to_str().unwrap()]].concat();
    spool(&Settings::new(), &arguments, 0).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), lines);
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let (_, error) = spool(&Settings::new(), &arguments, 1).await;
    assert!(error.contains("it exists"), "{error}");

    line.nats.restart().await;
    wait_for_count(&line.nats, 3).await;
    assert_eq!(published(&line.nats).await, ["op-1", "op-2", "op-3"]);
}

#[tokio::test]
async fn a_spool_in_use_is_left_to_its_gateway_and_one_that_was_left_behind_is_published() {
    let mut line = with_events(&["op-1", "op-2"]).await;
    let dir = line.gateway.spool_dir();
    let nats = Settings::new().nats(&line.nats);
    let arguments = ["drain", dir.to_str().unwrap()];
    let (_, error) = spool(&nats, &arguments, 1).await;
    let holder = format!(
        "a gateway (process {}) has this spool in use",
        line.gateway.id()
    );
    assert!(error.contains(&holder), "{error}");
    assert_eq!(Spool::of(&line.gateway).operation_ids(), ["op-1", "op-2"]);

    line.gateway.kill9();
    line.nats.restart().await;
    let (_, told) = spool(&nats, &arguments, 0).await;
    assert!(
        told.contains("2 events published; the spool is empty"),
        "{told}"
    );
    assert_eq!(published(&line.nats).await, ["op-1", "op-2"]);
    assert_eq!(status(&dir).await["events"], 0);
    let (_, told) = spool(&nats, &arguments, 0).await;
    assert!(told.contains("the spool is empty"), "{told}");
    assert_eq!(published(&line.nats).await.len(), 2);
}

/// Adds `count` events like the first one.
fn multiply(dir: &Path, count: usize) {
    let mut spool = rusqlite::Connection::open(dir.join("spool.db")).unwrap();
    let (id, payload): (String, Vec<u8>) = spool
        .query_row("SELECT id, payload FROM event", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    let payload = String::from_utf8(payload).unwrap();
    let add = spool.transaction().unwrap();
    for _ in 0..count {
        let new = EventId::new().to_string();
        add.execute(
            "INSERT INTO event (id, subject, operation_id, payload, spooled_ms, state)
             SELECT ?1, subject, operation_id, ?2, spooled_ms, state FROM event WHERE id = ?3",
            (&new, payload.replace(&id, &new).as_bytes(), &id),
        )
        .unwrap();
    }
    add.commit().unwrap();
}

#[tokio::test]
async fn a_drain_that_is_killed_again_and_again_loses_nothing_and_repeats_nothing() {
    const EVENTS: usize = 12_000;
    let mut line = with_events(&["op"]).await;
    line.gateway.kill9();
    let dir = line.gateway.spool_dir();
    multiply(&dir, EVENTS - 1);
    forgetful(&mut line.nats, &["importguard.v1.>"]).await;
    let settings = Settings::new().nats(&line.nats);
    let logs = TempDir::new().unwrap();
    let drain = || {
        let mut command = settings.command(Binary::AllInOne.path());
        command.args(["spool", "drain", dir.to_str().unwrap()]);
        Process::spawn("drain", command, logs.path())
    };
    let jetstream = jetstream::new(line.nats.client().await);
    let count = async || {
        let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
        usize::try_from(stream.cached_info().state.messages).unwrap()
    };
    let mut killed = 0;
    for least in [1, 300, 700, 1300, 2000, 2600] {
        let mut drain = drain();
        eventually("it publishes", SOON, async || match count().await {
            now if now >= least => Ok(()),
            now => Err(now),
        })
        .await;
        killed += usize::from(drain.ended().is_none());
        drain.kill9();
    }
    assert!(killed >= 3, "it was too fast to be killed");
    let mut last = drain();
    assert_eq!(last.exit(SOON).await.code(), Some(0), "{}", last.output());
    let events = stored(&line.nats).await;
    let ids: BTreeSet<_> = events.iter().map(|event| event.id()).collect();
    assert_eq!((events.len(), ids.len()), (EVENTS, EVENTS));
    assert_eq!(status(&dir).await["events"], 0);
}

#[tokio::test]
async fn what_nats_refuses_stays_parked_with_its_reason_and_the_rest_is_published() {
    let mut line = with_events(&["op-1"]).await;
    let server = line.server();
    server
        .send(server.after_import("op-2", "alice", &["bob"]))
        .await;
    server.import("op-3", "alice", &["bob"]).await;
    line.gateway.kill9();
    let dir = line.gateway.spool_dir();
    forgetful(&mut line.nats, &["importguard.v1.decision.*"]).await;
    let nats = Settings::new().nats(&line.nats);
    let arguments = ["drain", dir.to_str().unwrap()];
    for published_now in ["2 events published, 1 left", "0 events published, 1 left"] {
        let (_, told) = spool(&nats, &arguments, 1).await;
        for part in [
            published_now,
            "1 event parked, subjectMissing",
            "--subjects",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
    assert_eq!(status(&dir).await["parked"]["subjectMissing"], 1);
    let (line_of_it, _) = spool(&nats, &["export", dir.to_str().unwrap()], 0).await;
    assert!(line_of_it.contains("op-2"), "{line_of_it}");

    let jetstream = jetstream::new(line.nats.client().await);
    let mut config = jetstream
        .get_stream("IMPORTGUARD")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    config.subjects = vec!["importguard.v1.>".to_owned()];
    // A stream that refuses everything ends the command, although no event waits.
    let full = Config {
        max_messages: 2,
        discard: DiscardPolicy::New,
        ..config.clone()
    };
    jetstream.update_stream(full).await.unwrap();
    let hasty = ["drain", "--wait", "1s", dir.to_str().unwrap()];
    let (_, told) = spool(&nats, &hasty, 1).await;
    for part in ["0 events published, 1 left", "maximum messages exceeded"] {
        assert!(told.contains(part), "{part}: {told}");
    }

    jetstream.update_stream(config).await.unwrap();
    spool(&nats, &arguments, 0).await;
    assert_eq!(published(&line.nats).await, ["op-1", "op-3", "op-2"]);
}

#[tokio::test]
async fn without_nats_it_gives_up_or_is_interrupted_and_everything_stays() {
    let mut line = with_events(&["op-1"]).await;
    line.gateway.kill9();
    let dir = line.gateway.spool_dir();
    let nats = Settings::new().nats(&line.nats);
    let arguments = ["drain", "--wait", "300ms", dir.to_str().unwrap()];
    let (_, told) = spool(&nats, &arguments, 1).await;
    for part in [
        "0 events published, 1 left",
        "connection refused",
        "run it again",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let (_logs, mut drain) = draining(&nats, &dir).await;
    let start = Instant::now();
    drain.sigint();
    assert_eq!(drain.exit(SOON).await.code(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(drain.stderr().contains("interrupted"), "{}", drain.stderr());
    assert_eq!(status(&dir).await["events"], 1);
}

#[tokio::test]
async fn a_copy_of_a_spool_in_use_is_restored_without_repeating_what_was_published_meanwhile() {
    let mut line = with_events(&["op-1", "op-2"]).await;
    let dir = line.gateway.spool_dir();
    let to = TempDir::new().unwrap();
    let copy = to.path().join("backup");
    let arguments = [
        "copy",
        dir.to_str().unwrap(),
        "--to",
        copy.to_str().unwrap(),
    ];
    let (_, told) = spool(&Settings::new(), &arguments, 0).await;
    assert!(told.contains("2 events copied to"), "{told}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&copy), mode(&copy.join("spool.db"))), (0o700, 0o600));
    let (_, error) = spool(&Settings::new(), &arguments, 1).await;
    assert!(
        error.contains("has a spool already; name another directory"),
        "{error}"
    );

    // The gateway publishes the first, and its disk is lost with the second.
    let original = rusqlite::Connection::open(dir.join("spool.db")).unwrap();
    original
        .execute("DELETE FROM event WHERE operation_id = 'op-2'", [])
        .unwrap();
    line.gateway.kill9();
    drop(original);
    forgetful(&mut line.nats, &["importguard.v1.>"]).await;
    let nats = Settings::new().nats(&line.nats);
    spool(&nats, &["drain", dir.to_str().unwrap()], 0).await;
    assert_eq!(published(&line.nats).await, ["op-1"]);

    let (_, told) = spool(&nats, &["drain", copy.to_str().unwrap()], 0).await;
    let counted = "1 event published, 1 that NATS already had; the spool is empty";
    assert!(told.contains(counted), "{told}");
    assert_eq!(published(&line.nats).await, ["op-1", "op-2"]);
}

#[tokio::test]
async fn what_nats_remembers_from_another_copy_is_not_said_to_be_published() {
    let mut line = with_events(&["op-1", "op-2"]).await;
    line.gateway.terminate(SOON).await;
    let dir = line.gateway.spool_dir();
    let copy = TempDir::new().unwrap();
    fs::copy(dir.join("spool.db"), copy.path().join("spool.db")).unwrap();
    line.nats.restart().await;
    let nats = Settings::new().nats(&line.nats);
    for (dir, counted) in [
        (&*dir, "2 events published; the spool is empty"),
        (
            copy.path(),
            "0 events published, 2 that NATS already had; the spool is empty",
        ),
    ] {
        let (_, told) = spool(&nats, &["drain", dir.to_str().unwrap()], 0).await;
        assert!(told.contains(counted), "{told}");
    }
    assert_eq!(published(&line.nats).await, ["op-1", "op-2"]);
}

#[tokio::test]
async fn a_corrupt_spool_is_not_drained_but_what_can_be_read_of_it_is_saved() {
    const EVENTS: usize = 200;
    let mut line = with_events(&["op-1"]).await;
    line.gateway.terminate(SOON).await;
    let dir = line.gateway.spool_dir();
    multiply(&dir, EVENTS - 1);
    let file = dir.join("spool.db");
    let database = fs::File::options().write(true).open(&file).unwrap();
    database.write_all_at(&[7; 4096], 20 * 4096).unwrap();
    let before = fs::read(&file).unwrap();
    line.nats.restart().await;
    let nats = Settings::new().nats(&line.nats);
    let (_, error) = spool(&nats, &["drain", dir.to_str().unwrap()], 1).await;
    for part in ["nothing was published", "corrupt", "spool copy"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert_eq!(fs::read(&file).unwrap(), before);
    let names = fs::read_dir(&dir).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    let aside = |name: &std::ffi::OsString| name.to_string_lossy().contains("corrupt");
    assert!(!names.iter().any(aside), "{names:?}");

    // A gateway would set it aside like this.
    let aside = dir.join("spool.corrupt-20261128T101500Z.db");
    fs::rename(&file, &aside).unwrap();
    let to = TempDir::new().unwrap();
    let saved = to.path().join("saved");
    let [aside, saved] = [&aside, &saved].map(|path| path.to_str().unwrap());
    let (_, error) = spool(&nats, &["drain", aside], 1).await;
    assert!(error.contains("is no directory"), "{error}");
    let (_, told) = spool(&nats, &["copy", aside, "--to", saved], 1).await;
    assert!(told.contains("others could not be read"), "{told}");
    let left = usize::try_from(status(Path::new(saved)).await["events"].as_u64().unwrap()).unwrap();
    assert!((EVENTS / 2..EVENTS).contains(&left), "{left}");
    spool(&nats, &["drain", saved], 0).await;
    assert_eq!(published(&line.nats).await.len(), left);
}

#[tokio::test]
async fn a_spool_that_is_damaged_while_it_is_drained_is_not_said_to_be_published() {
    // More than SQLite keeps in memory.
    const EVENTS: usize = 4000;
    let mut line = with_events(&["op-1"]).await;
    line.gateway.terminate(SOON).await;
    let dir = line.gateway.spool_dir();
    multiply(&dir, EVENTS - 1);
    let (_logs, mut drain) = draining(&Settings::new().nats(&line.nats), &dir).await;
    let database = fs::File::options().write(true).open(dir.join("spool.db"));
    database
        .unwrap()
        .write_all_at(&[7; 40 * 4096], 20 * 4096)
        .unwrap();
    let aside = eventually("the spool is set aside", SOON, async || {
        let mut files = fs::read_dir(&dir)?.map(|file| file.unwrap().path());
        let name = |file: &PathBuf| file.display().to_string();
        let aside =
            files.find(|file| name(file).contains("corrupt") && name(file).ends_with(".db"));
        aside.as_ref().map(name).context("it is not")
    })
    .await;
    line.nats.restart().await;
    assert_eq!(drain.exit(SOON).await.code(), Some(1), "{}", drain.output());
    let stream = jetstream::new(line.nats.client().await);
    let stream = stream.get_stream("IMPORTGUARD").await.unwrap();
    let published = usize::try_from(stream.cached_info().state.messages).unwrap();
    // What was hit, and what SQLite had in memory, decides how many can still be read.
    assert!(published < EVENTS, "{published}");
    let told = drain.stderr();
    for part in [
        format!("{published} events published; the spool is empty"),
        format!(
            "{} events could no longer be read, and are not published",
            EVENTS - published
        ),
        format!("importguard spool copy {aside}"),
    ] {
        assert!(told.contains(&part), "{part}: {told}");
    }
}

#[tokio::test]
async fn a_drain_fails_as_long_as_a_spool_that_was_set_aside_may_hold_events() {
    let mut line = with_events(&["op-1"]).await;
    line.gateway.terminate(SOON).await;
    let dir = line.gateway.spool_dir();
    let aside = dir.join("spool.corrupt-20261128T101500Z.db");
    let elsewhere = with_events(&["op-2"]).await;
    let (saved, other) = (dir.join("saved"), elsewhere.gateway.spool_dir());
    let [dir, aside, saved, other] =
        [&dir, &aside, &saved, &other].map(|path| path.to_str().unwrap());
    spool(&Settings::new(), &["copy", other, "--to", saved], 0).await;
    fs::rename(format!("{saved}/spool.db"), aside).unwrap();
    fs::remove_dir_all(saved).unwrap();
    line.nats.restart().await;
    let nats = Settings::new().nats(&line.nats);
    let remedy = format!("importguard spool copy {aside} --to DIR");
    for drained in [
        "1 event published; the spool is empty",
        "the spool is empty",
    ] {
        let (_, told) = spool(&nats, &["drain", dir], 1).await;
        has(&told, &[drained, &remedy, "importguard spool drain DIR"]);
        assert_eq!(published(&line.nats).await, ["op-1"]);
    }
    let (_, told) = spool(&nats, &["copy", dir, "--to", &format!("{dir}/copy")], 1).await;
    has(&told, &["0 events copied", &remedy]);
    spool(&nats, &["copy", aside, "--to", saved], 0).await;
    spool(&nats, &["drain", saved], 0).await;
    assert_eq!(published(&line.nats).await, ["op-1", "op-2"]);
    fs::remove_file(aside).unwrap();
    spool(&nats, &["drain", dir], 0).await;
}
