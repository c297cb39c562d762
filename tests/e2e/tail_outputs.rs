//! What `importguard tail` prints of fallbacks and of lists, and into a file that cannot grow.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
};

use importguard_tests::{
    Binary, NatsServer, OpenIm, Service, Settings, create_stream, wait_for_count,
};
use tempfile::TempDir;

use crate::{
    asserts::{has, printed},
    tail::{line_with, numbered, operation_ids},
};

#[tokio::test]
async fn decisions_by_a_fallback_are_found_by_their_cause_also_if_they_allow() {
    let nats = NatsServer::start().await;
    let settings = Settings::new()
        .set("IMPORTGUARD_ON_DECIDER_UNAVAILABLE", "allow")
        .with_long_ack_timeout()
        .nats(&nats);
    let gateway = Service::gateway(settings).await;
    gateway.wait_for_recorder("streaming").await;
    OpenIm::server(gateway.url())
        .import("op-0", "alice", &["x"])
        .await;
    wait_for_count(&nats, 1).await;
    let run =
        async |arguments: &[&str]| printed(&Settings::new().nats(&nats).run(arguments).await, 0);
    let tail = ["tail", "--json", "--no-follow", "--cause"];
    let (found, _) = run(&[&tail[..], &["overloaded,deciderUnavailable"]].concat()).await;
    assert_eq!(operation_ids(&[found]), numbered(0..1));
    let (found, hint) = run(&[&tail[..], &["deciderTimeout"]].concat()).await;
    assert_eq!(found, "");
    has(
        &hint,
        &["no event had the cause deciderTimeout; causes seen: deciderUnavailable"],
    );
    let (table, _) = run(&["stats"]).await;
    let row = table
        .lines()
        .find(|row| row.starts_with("deciderUnavailable"));
    let row: Vec<_> = row.unwrap_or(&table).split_whitespace().collect();
    assert_eq!(row, ["deciderUnavailable", "1", "0", "0.0%", "0", "0", "0"]);
}

#[tokio::test]
async fn changes_of_lists_are_events_of_the_range() {
    let nats = NatsServer::start().await;
    create_stream(nats.client().await, |_| ()).await;
    let settings = Settings::new().nats(&nats).set("IMPORTGUARD_LIST_BY", "me");
    printed(&settings.run(["list", "add", "bad", "u1"]).await, 0);
    for (filter, lines, hint) in [
        (&[][..], 1, ""),
        (&["--owner", "u1"], 1, ""),
        (
            &["--owner", "nosuch"],
            0,
            "importguard tail: events read: 1; none matched\n",
        ),
    ] {
        let arguments = [&["tail", "--no-follow"][..], filter].concat();
        let (stdout, stderr) = printed(&settings.run(arguments).await, 0);
        assert_eq!(stdout.lines().count(), lines, "{filter:?}: {stdout}");
        assert_eq!(stderr, hint, "{filter:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_grow_keeps_whole_lines_and_is_continued_later() {
    let line = line_with(9).await;
    let archive = TempDir::new().unwrap();
    let file = archive.path().join("events.jsonl");
    let append = |limit: &str, code| {
        let script = format!("trap '' XFSZ; {limit} exec \"$0\" \"$@\"");
        let command = Settings::new()
            .nats(&line.nats)
            .command(Binary::AllInOne.path());
        let program = command.get_program().to_owned();
        let mut limited = Command::new("sh");
        limited.args(["-c", &script]).arg(program);
        limited.args(["tail", "--json", "--no-follow", "--durable", "archive"]);
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        let opened = File::options().append(true).create(true).open(&file);
        let output = limited.stdout(opened.unwrap()).stderr(Stdio::piped());
        printed(
            &tokio::task::block_in_place(|| output.output()).unwrap(),
            code,
        )
        .1
    };
    let lines = || -> Vec<String> {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.ends_with('\n'), "{text}");
        text.lines().map(str::to_owned).collect()
    };
    // A shell counts in blocks of 512 or of 1024 bytes.
    let error = append("ulimit -f 5;", 1);
    has(&error, &["cannot write to standard output"]);
    let written = lines().len();
    assert!((1..9).contains(&written), "{written}");
    append("", 0);
    assert_eq!(operation_ids(&lines()), numbered(0..9));
}
