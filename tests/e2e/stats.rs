//! `importguard stats` against a real gateway and a real nats-server.

use std::process::Output;

use importguard_tests::{Line, NatsServer, Settings, wait_for_count};
use serde_json::{Value, json};

use crate::asserts::printed;

async fn stats(nats: &NatsServer, arguments: &[&str]) -> Output {
    let settings = Settings::new().nats(nats);
    settings.run(["stats"].iter().chain(arguments)).await
}

async fn counted(nats: &NatsServer, arguments: &[&str]) -> String {
    let (stdout, stderr) = printed(&stats(nats, arguments).await, 0);
    assert_eq!(stderr, "", "progress is for terminals");
    stdout
}

/// Two decisions of alice, three of blocked_owner, and an import.
async fn line() -> Line {
    let line = Line::start().await;
    let server = line.server();
    server.import("op-1", "alice", &["x"]).await;
    server.import("op-2", "alice", &["x", "bot_1"]).await;
    server.import("op-3", "alice", &["bot_1"]).await;
    for number in 4..7 {
        let operation = format!("op-{number}");
        server.import(&operation, "blocked_owner", &["x"]).await;
    }
    server
        .send(server.after_import("op-1", "alice", &["x"]))
        .await;
    wait_for_count(&line.nats, 7).await;
    line
}

#[tokio::test]
async fn it_says_which_rules_refused_most() {
    let line = line().await;
    let table = counted(&line.nats, &["--since", "7d"]).await;
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[0][..2], ["6", "decisions"], "{table}");
    assert!(
        table.lines().next().unwrap().ends_with(", 4 refused"),
        "{table}"
    );
    assert_eq!(
        lines[1][..4],
        ["Note:", "the", "stream", "begins"],
        "{table}"
    );
    assert_eq!(
        lines[3..],
        [
            &[
                "RULE",
                "DECISIONS",
                "REFUSED",
                "SHARE",
                "TRIMMED",
                "SHADOW",
                "FAILED"
            ][..],
            &["blocked-owner", "3", "3", "75.0%", "0", "0", "0"],
            &["nobodyLeft", "1", "1", "25.0%", "0", "0", "0"],
            &["blocked-friends", "2", "0", "0.0%", "2", "0", "0"],
        ],
        "{table}"
    );
}

#[tokio::test]
async fn it_counts_by_owner_verdict_and_code_as_json_too() {
    let line = line().await;
    let groups = async |by: &str| {
        let json = counted(&line.nats, &["--json", "--by", by]).await;
        let report: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            (&report["decisions"], &report["refused"]),
            (&json!(6), &json!(4))
        );
        let rows = report["rows"].as_array().unwrap().iter();
        let rows: Vec<_> = rows
            .map(|row| {
                (
                    row["group"].clone(),
                    row["decisions"].clone(),
                    row["share"].clone(),
                )
            })
            .collect();
        json!(rows)
    };
    let owners = json!([["alice", 3, 0.5], ["blocked_owner", 3, 0.5]]);
    assert_eq!(groups("owner").await, owners);
    let verdicts = json!([
        ["refuse", 4, 0.6667],
        ["modify", 1, 0.1667],
        ["allow", 1, 0.1667]
    ]);
    assert_eq!(groups("verdict").await, verdicts);
    let codes = groups("code").await;
    assert_eq!(codes[0], json!(["5001", 3, 0.75]), "{codes}");

    let top = counted(&line.nats, &["--by", "verdict", "--top", "1"]).await;
    assert!(top.contains("and 2 more"), "{top}");
    let before = counted(&line.nats, &["--until", "1h", "--since", "2h"]).await;
    assert!(before.starts_with("0 decisions"), "{before}");
}

#[tokio::test]
async fn without_a_stream_it_says_so() {
    let nats = NatsServer::start().await;
    let (_, stderr) = printed(&stats(&nats, &[]).await, 1);
    assert!(stderr.contains("no stream IMPORTGUARD"), "{stderr}");
}

#[tokio::test]
async fn it_reads_decisions_only_however_often_lists_change() {
    let line = line().await;
    let jetstream = async_nats::jetstream::new(line.nats.client().await);
    // Were it read, it would be reported as no event.
    let subject = "importguard.v1.list.changed";
    let stored = jetstream.publish(subject, "no event".into()).await.unwrap();
    stored.await.unwrap();
    let table = counted(&line.nats, &[]).await;
    assert!(table.starts_with("6 decisions"), "{table}");
}

#[tokio::test]
async fn a_range_in_the_future_is_an_error_and_an_empty_one_is_told_of() {
    let line = Line::start().await;
    line.server().import("op-1", "alice", &["x"]).await;
    wait_for_count(&line.nats, 1).await;
    let settings = Settings::new().nats(&line.nats);
    let run = async |arguments: &[&str]| {
        let output = settings.run(arguments).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), stderr)
    };
    for command in [
        &["tail", "--no-follow"][..],
        &["stats"],
        &["why", "--owner", "a"],
        &["list", "history", "bad"],
    ] {
        let (code, stderr) = run(&[command, &["--since", "2999-01-01"]].concat()).await;
        assert_eq!(code, Some(2), "{command:?}: {stderr}");
        assert!(stderr.contains("in the future"), "{command:?}: {stderr}");
    }
    let (code, stderr) = run(&["tail", "--no-follow", "--since", "0s"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("no event in this range"), "{stderr}");
    let (code, stderr) = run(&["list", "history", "bad"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("has no change of bad"), "{stderr}");
}
