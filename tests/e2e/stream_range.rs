//! What the commands that read the stream say about the part of it that they were asked for.

use std::time::{Duration, Instant};

use importguard_tests::{
    FakeClock, Line, NatsServer, Settings, create_stream, wait_for_count, workspace,
};
use tempfile::TempDir;

use crate::asserts::{has, printed};

/// The commands that read the stream to its end.
const COMMANDS: [&[&str]; 4] = [
    &["stats"],
    &["why", "--owner", "alice"],
    &["list", "history", "bad"],
    &["tail", "--since", "1h", "--no-follow"],
];

#[tokio::test]
async fn a_stream_that_was_emptied_is_not_said_to_have_had_nothing() {
    let line = Line::start().await;
    line.server().import("op-1", "alice", &["x"]).await;
    wait_for_count(&line.nats, 1).await;
    let jetstream = async_nats::jetstream::new(line.nats.client().await);
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    stream.purge().await.unwrap();
    let settings = Settings::new().nats(&line.nats);
    let rules = workspace().join("policy/detector.yaml");
    let simulate = ["detect", "--rules", rules.to_str().unwrap(), "--dry-run"];
    let simulate = [&simulate[..], &["--since", "1h", "--no-follow"]].concat();
    for command in COMMANDS.into_iter().chain([&simulate[..]]) {
        let code = i32::from(command[0] == "why");
        let (stdout, stderr) = printed(&settings.run(command).await, code);
        let said = stdout + &stderr;
        has(
            &said,
            &["the stream is empty: its events have expired or were removed"],
        );
    }
}

#[tokio::test]
async fn a_clock_that_is_behind_hides_no_decision_from_stats() {
    let Some(clock) = FakeClock::start("a clock that is behind NATS's") else {
        return;
    };
    let line = Line::start().await;
    line.server().import("op-1", "alice", &["x"]).await;
    wait_for_count(&line.nats, 1).await;
    clock.set("-10m");
    let settings = clock.settings(Settings::new().nats(&line.nats));
    let (table, _) = printed(&settings.run(["stats"]).await, 0);
    assert!(table.starts_with("1 decisions"), "{table}");
}

#[tokio::test]
async fn a_local_time_that_clocks_repeat_is_the_first_of_the_two() {
    let nats = NatsServer::start().await;
    create_stream(nats.client().await, |_| ()).await;
    // In 2099, summer time ends on 25 October: at 3:00 it is 2:00 again.
    let settings = Settings::new()
        .nats(&nats)
        .set("IMPORTGUARD_LIST_BY", "me")
        .set("TZ", "CET-1CEST,M3.5.0,M10.5.0/3");
    let until = "2099-10-25 02:30";
    let add = ["list", "add", "bad", "u1", "--until", until];
    let (added, _) = printed(&settings.run(add).await, 0);
    assert_eq!(added, "bad: added u1 until 2099-10-25T00:30:00Z\n");
}

/// A user who may ask for nothing.
const LIMITED: &str = r#"jetstream {}
accounts { A { jetstream: enabled, users: [
  { user: all, password: all }
  { user: nobody, password: nobody, permissions: { publish: { deny: [">"] } } }
  { user: deaf, password: deaf, permissions: { subscribe: ["_INBOX_support.>"] } }
] } }
"#;

#[tokio::test]
async fn what_nats_does_not_permit_ends_a_command_at_once() {
    /// NATS would let it wait for an answer for that long.
    const PATIENCE: Duration = Duration::from_secs(5);
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("nats.conf");
    std::fs::write(&file, LIMITED).unwrap();
    let nats = NatsServer::configured(file, &[], "all:all").await;
    for (user, expected) in [
        ("nobody", "publish to $JS.API.STREAM.INFO.IMPORTGUARD"),
        ("deaf", "set NATS_INBOX_PREFIX"),
    ] {
        let settings = Settings::new().set("NATS_URL", nats.url_for(&format!("{user}:{user}")));
        for command in COMMANDS {
            let began = Instant::now();
            let (_, error) = printed(&settings.run(command).await, 1);
            has(&error, &[expected]);
            assert!(began.elapsed() < PATIENCE, "{command:?}: {error}");
        }
    }
}
