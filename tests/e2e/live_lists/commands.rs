//! `importguard list …`.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use importguard_tests::{Binary, NatsServer, Process, SOON, Settings, create_stream, eventually};
use serde_json::Value;
use tempfile::TempDir;

use super::{STREAM, list, listed, nats};
use crate::asserts::printed;

#[tokio::test]
async fn the_commands_show_import_export_and_tell_what_happened() {
    let nats = nats().await;
    let none = list(&nats, &["show", "bad"]).await;
    assert_eq!(none.code, Some(1));
    assert!(
        none.stderr.contains("there is no bucket"),
        "{}",
        none.stderr
    );
    for done in [
        "created the bucket of live lists, with 1 replica\n",
        "the bucket of live lists exists already, with 1 replica: nothing was changed\n",
    ] {
        assert_eq!(listed(&nats, &["create"]).await, done);
    }
    let other = list(&nats, &["create", "--replicas", "3"]).await;
    assert_eq!(other.code, Some(1));
    assert!(other.stderr.contains("--replicas 3"), "{}", other.stderr);
    let absent = list(&nats, &["remove", "bad", "nobody"]).await;
    assert_eq!(absent.code, Some(1));
    assert_eq!(absent.stdout, "nobody is not on bad\n");
    let file = TempDir::new().unwrap();
    let path = file.path().join("ids.txt");
    std::fs::write(
        &path,
        "# known\nu1\nu 2\n{\"id\":\"u3\",\"reason\":\"spam\"}\n",
    )
    .unwrap();
    let path = path.display().to_string();
    let import = ["import", "bad", &path, "--because", "known"];
    assert_eq!(listed(&nats, &import).await, "bad: added 3, 0 unchanged\n");
    assert_eq!(listed(&nats, &import).await, "bad: added 0, 3 unchanged\n");
    let shown = listed(&nats, &["show", "bad"]).await;
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with("u 2") && line.ends_with("known")),
        "{shown}"
    );
    assert_eq!(listed(&nats, &["show"]).await, "bad  3\n");
    let exported = listed(&nats, &["export", "bad"]).await;
    std::fs::write(&path, &exported).unwrap();
    assert_eq!(
        listed(&nats, &["import", "worse", &path]).await,
        "worse: added 3, 0 unchanged\n"
    );
    let one = listed(&nats, &["show", "worse", "u3", "--json"]).await;
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(
        (one["by"].as_str(), one["reason"].as_str()),
        (Some("alice"), Some("spam"))
    );
    listed(
        &nats,
        &["remove", "bad", "u1", "--by", "bob", "--because", "appeal"],
    )
    .await;
    let history = listed(&nats, &["history", "bad", "u1"]).await;
    let lines: Vec<_> = history.lines().collect();
    assert_eq!(lines.len(), 2, "{history}");
    assert!(
        lines[0].contains("added") && lines[0].ends_with("by alice: known"),
        "{history}"
    );
    assert!(
        lines[1].contains("removed") && lines[1].ends_with("by bob: appeal"),
        "{history}"
    );

    std::fs::write(&path, "ok\n{\"id\":7}\n").unwrap();
    let refused = list(&nats, &["import", "bad", &path]).await;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("nothing was imported") && refused.stderr.contains(":2:"),
        "{}",
        refused.stderr
    );
    for usage in [
        &["add", "bad"][..],
        &["add", "no.name", "u1"],
        &["add", "bad", "u1", "--until", "2001-01-01"],
        &["add", "bad", "u1", "--for", "1d", "--until", "2099-01-01"],
        &["add", "bad", "u1", "--for", "500ms"],
        &["add", "bad", "u1", ""],
        &["show", "bad", ""],
        &["create", "--replicas", "2"],
    ] {
        assert_eq!(list(&nats, usage).await.code, Some(2), "{usage:?}");
    }
}

#[tokio::test]
async fn the_first_entries_of_a_list_are_pointed_out() {
    let file = TempDir::new().unwrap();
    let path = file.path().join("ids.txt");
    std::fs::write(&path, "u1\nu2\n").unwrap();
    let path = path.display().to_string();
    for mut nats in NatsServer::of_each_version() {
        nats.restart().await;
        for (arguments, is_first) in [
            (&["remove", "suspcts", "u1"][..], false),
            (&["add", "suspcts", "u1", "u2"], true),
            (&["add", "suspcts", "u3"], false),
            (&["import", "suspcts", &path], false),
            (&["import", "blokced", &path], true),
            (&["import", "blokced", &path], false),
        ] {
            let said = list(&nats, arguments).await.stderr;
            let name = arguments[1];
            let note = format!(
                "note: these are the first entries of {name}, which deciders use only where a policy has {{ live: {name} }}\n"
            );
            assert_eq!(said.contains(&note), is_first, "{arguments:?}: {said}");
        }
    }
}

#[tokio::test]
async fn somebody_is_blocked_even_if_no_stream_takes_the_event_about_it() {
    let nats = NatsServer::start().await;
    let added = list(&nats, &["add", "bad", "u1", "u2"]).await;
    assert_eq!(added.code, Some(0), "{}", added.stderr);
    assert_eq!(added.stdout, "bad: added u1\nbad: added u2\n");
    assert!(
        added.stderr.contains("its event is not published yet")
            && added
                .stderr
                .contains("a minute after this change at the earliest")
            && added
                .stderr
                .contains("a gateway creates the stream IMPORTGUARD"),
        "{}",
        added.stderr
    );
    assert_eq!(listed(&nats, &["show"]).await, "bad  2\n");
    let nobody = list(&nats, &["show", "worse"]).await;
    assert_eq!(nobody.code, Some(0));
    assert!(
        nobody.stderr.contains("nobody is on worse"),
        "{}",
        nobody.stderr
    );
}

/// Users who may not do something: all but reading the bucket, reading replies, and publishing events.
const LIMITED: &str = r#"jetstream {}
accounts { A { jetstream: enabled, users: [
  { user: all, password: all }
  { user: reader, password: reader, permissions: { publish: ["$JS.API.STREAM.INFO.>"], subscribe: ["_INBOX.>"] } }
  { user: deaf, password: deaf, permissions: { subscribe: ["_INBOX_moderator.>"] } }
  { user: mute, password: mute, permissions: { publish: { deny: ["importguard.v1.list.changed"] } } }
] } }
"#;

#[tokio::test]
async fn what_nats_does_not_permit_is_said_at_once() {
    /// NATS would let it wait for an answer for that long.
    const PATIENCE: Duration = Duration::from_secs(5);
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("nats.conf");
    std::fs::write(&file, LIMITED).unwrap();
    let nats = NatsServer::configured(file, &[], "all:all").await;
    let run = async |user: &str, arguments: &[&str]| {
        let settings = Settings::new()
            .set("NATS_URL", nats.url_for(&format!("{user}:{user}")))
            .set("IMPORTGUARD_LIST_BY", user);
        settings.run(["list"].iter().chain(arguments)).await
    };
    printed(&run("all", &["create"]).await, 0);
    for (user, arguments, expected) in [
        (
            "reader",
            &["show", "bad", "u1"][..],
            "publish to $JS.API.STREAM.MSG.GET.",
        ),
        (
            "reader",
            &["add", "bad", "u1"],
            "publish to $JS.API.STREAM.MSG.GET.",
        ),
        ("deaf", &["show"], "set NATS_INBOX_PREFIX"),
    ] {
        // On a busy machine one may take long, but not every time.
        let mut shortest = Duration::MAX;
        for _ in 0..3 {
            let began = Instant::now();
            let (_, error) = printed(&run(user, arguments).await, 1);
            assert!(error.contains(expected), "{error}");
            shortest = shortest.min(began.elapsed());
            if shortest < PATIENCE {
                break;
            }
        }
        assert!(shortest < PATIENCE, "{shortest:?}");
    }
}

#[tokio::test]
async fn somebody_is_blocked_even_if_nats_does_not_permit_the_event_about_it() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("nats.conf");
    std::fs::write(&file, LIMITED).unwrap();
    let nats = NatsServer::configured(file, &[], "all:all").await;
    let all = async_nats::ConnectOptions::with_user_and_password("all".into(), "all".into());
    let all = all.connect(nats.address()).await.unwrap();
    create_stream(all, |_| ()).await;
    let settings = Settings::new()
        .set("NATS_URL", nats.url_for("mute:mute"))
        .set("IMPORTGUARD_LIST_BY", "alice");
    for (arguments, expected) in [
        (
            &["add", "bad", "u1", "u2"][..],
            "bad: added u1\nbad: added u2\n",
        ),
        (&["remove", "bad", "u1"], "bad: removed u1\n"),
        (&["show"], "bad  1\n"),
    ] {
        let output = settings.run(["list"].iter().chain(arguments)).await;
        let (said, told) = printed(&output, 0);
        assert_eq!(said, expected, "{told}");
        let is_told = told.contains("its event is not published yet")
            && told.contains("may not publish to importguard.v1.list.changed");
        assert_eq!(is_told, arguments[0] != "show", "{told}");
    }
}

#[tokio::test]
async fn an_import_that_is_interrupted_before_it_writes_changes_nothing() {
    let nats = NatsServer::start().await;
    // No stream takes the event about it.
    list(&nats, &["add", "bad", "u1"]).await;
    create_stream(nats.client().await, |stream| stream.no_ack = true).await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("ids.txt");
    std::fs::write(&file, "u2\nu3\n").unwrap();
    let mut command = Settings::new().nats(&nats).command(Binary::AllInOne.path());
    command.env("IMPORTGUARD_LIST_BY", "alice");
    command.args(["list", "import", "bad", &file.display().to_string()]);
    let mut process = Process::spawn("importguard", command, directory.path());
    let jetstream = jetstream::new(nats.client().await);
    eventually("the earlier event is published", SOON, async || {
        let mut stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
        match stream.info().await.unwrap().state.messages {
            0 => Err("not yet"),
            _ => Ok(()),
        }
    })
    .await;
    process.sigint();
    assert_eq!(process.exit(SOON).await.code(), Some(1));
    let told = process.stderr();
    assert!(told.contains("interrupted: nothing was imported"), "{told}");
    assert_eq!(listed(&nats, &["show"]).await, "bad  1\n");
}

#[tokio::test]
async fn an_interrupted_import_leaves_no_change_without_its_event_and_can_be_repeated() {
    // Ten times as many as are there when it is interrupted, and few enough for the repetition on a slow machine.
    const ALL: usize = 10_000;
    let nats = nats().await;
    listed(&nats, &["create"]).await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("ids.txt");
    let ids: String = (0..ALL).map(|number| format!("user{number}\n")).collect();
    std::fs::write(&file, ids).unwrap();
    let file = file.display().to_string();
    let mut command = Settings::new().nats(&nats).command(Binary::AllInOne.path());
    command.env("IMPORTGUARD_LIST_BY", "alice");
    command.args(["list", "import", "bad", &file]);
    let mut process = Process::spawn("importguard", command, directory.path());
    let jetstream = jetstream::new(nats.client().await);
    let stored = async |stream: &str| {
        let mut stream = jetstream.get_stream(stream).await.unwrap();
        stream.info().await.unwrap().state.messages
    };
    eventually("the import has begun", SOON, async || {
        match stored(STREAM).await {
            few @ ..1000 => Err(few),
            _ => Ok(()),
        }
    })
    .await;
    process.sigint();
    assert_eq!(process.exit(SOON).await.code(), Some(1));
    let told = process.stderr();
    let added = told.split_once("interrupted after ").unwrap().1;
    let added: usize = added.split_once(' ').unwrap().0.parse().unwrap();
    assert!((1..ALL).contains(&added), "{told}");
    assert_eq!(stored("IMPORTGUARD").await, added as u64);
    // The key that says up to where events are published is the last one.
    let stream = jetstream.get_stream(STREAM).await.unwrap();
    let cursor = "$KV.IMPORTGUARD_LISTS._events";
    let cursor = stream
        .get_last_raw_message_by_subject(cursor)
        .await
        .unwrap();
    let through: Value = serde_json::from_slice(&cursor.payload).unwrap();
    assert_eq!(
        through["through"].as_u64(),
        Some(cursor.sequence - 1),
        "{through}"
    );
    let again = listed(&nats, &["import", "bad", &file]).await;
    assert_eq!(
        again,
        format!("bad: added {}, {added} unchanged\n", ALL - added)
    );
}

#[tokio::test]
async fn an_entry_that_changes_while_the_list_is_read_is_counted_once() {
    const ALL: usize = 10_000;
    let nats = nats().await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("ids.txt");
    let ids: String = (0..ALL).map(|number| format!("user{number}\n")).collect();
    std::fs::write(&file, ids).unwrap();
    let file = file.display().to_string();
    listed(&nats, &["import", "bad", &file]).await;
    let arguments = ["import", "bad", &file, "--because", "again"];
    let import = listed(&nats, &arguments);
    let mut import = std::pin::pin!(import);
    let mut shown = 0;
    loop {
        let counted = async {
            let lists = listed(&nats, &["show"]).await;
            let exported = listed(&nats, &["export", "bad", "--ids"]).await;
            (lists, exported.lines().count())
        };
        tokio::select! {
            biased;
            _ = &mut import => break,
            (lists, exported) = counted => {
                assert_eq!(lists, format!("bad  {ALL}\n"));
                assert_eq!(exported, ALL);
                shown += 1;
            }
        }
    }
    assert!(shown > 0, "the import was faster than any reader");
}

#[tokio::test]
async fn what_a_file_would_not_take_as_an_id_is_no_id_for_add() {
    let nats = nats().await;
    for (id, expected) in [
        ("u1,u2", "a comma"),
        ("u1 # spam", "a comment"),
        ("\"u1\"", "quotes"),
    ] {
        let refused = list(&nats, &["add", "bad", "u0", id]).await;
        assert_eq!(refused.code, Some(2), "{id}: {}", refused.stderr);
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    }
    let long = "u".repeat(257);
    let refused = list(&nats, &["add", "bad", &long]).await;
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("the maximum is 256") && !refused.stderr.contains("imported"),
        "{}",
        refused.stderr
    );
    let shown = list(&nats, &["show", "bad"]).await;
    assert!(!shown.stdout.contains("u0"), "{}", shown.stdout);
}

#[tokio::test]
async fn a_change_needs_an_author() {
    let mut command = Settings::new().command(Binary::AllInOne.path());
    for name in ["USER", "LOGNAME", "IMPORTGUARD_LIST_BY"] {
        command.env_remove(name);
    }
    command.args(["list", "add", "bad", "u1"]);
    let logs = TempDir::new().unwrap();
    let mut process = Process::spawn("importguard", command, logs.path());
    assert_eq!(process.exit(SOON).await.code(), Some(2));
    assert!(process.stderr().contains("--by"), "{}", process.stderr());
}
