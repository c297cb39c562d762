//! `importguard policy explain --event`: recorded decisions, decided again.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use importguard_tests::{Binary, Line, PolicyDir, wait_for_count};
use serde_json::{Value, json};

use crate::asserts::{has, printed};

/// Runs `importguard policy explain --event -` where `policy` is, with this input.
fn explain(policy: &PolicyDir, more: &[&str], input: &str) -> Output {
    let mut child = Command::new(Binary::AllInOne.path())
        .current_dir(policy.dir())
        .env_remove("IMPORTGUARD_POLICY")
        .args([
            "policy",
            "explain",
            "--policy",
            "policy.yaml",
            "--event",
            "-",
        ])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// A decision that allowed alice's import, as the usual policy does.
fn allowed() -> Value {
    json!({
        "specversion": "1.0", "id": "0193-1", "type": "importguard.decision.v1", "time": "2026-11-23T18:04:05.123Z",
        "data": {
            "operationID": "op", "ownerUserID": "alice", "friendUserIDs": ["bob"], "verdict": "allow",
            "decidedBy": "policy", "removed": [], "rules": [], "policy": {"name": "e2e", "digest": "sha256:00"},
        },
    })
}

#[tokio::test]
async fn what_a_gateway_recorded_is_decided_as_then_until_the_policy_or_a_list_changes() {
    let line = Line::start().await;
    let server = line.server();
    server.import("op-1", "alice", &["bob"]).await;
    server
        .import("op-2", "alice", &["bob", "bot_1", "alice"])
        .await;
    server.import("op-3", "blocked_owner", &["bob"]).await;
    server.import("op-4", "carol", &["bot_1"]).await;
    server
        .send(server.after_import("op-1", "alice", &["bob"]))
        .await;
    let mut messages = wait_for_count(&line.nats, 5).await;
    // The stream's order is that of the callbacks only once NATS is connected.
    messages.sort_by_key(|message| message.json["data"]["operationID"].to_string());
    let lines: Vec<_> = messages
        .iter()
        .map(|message| message.json.to_string())
        .collect();
    let lines = lines.join("\n");

    let policy = PolicyDir::usual();
    let (told, skipped) = printed(&explain(&policy, &[], &lines), 0);
    has(
        &told,
        &[
            "  then  modify: 1 of 3 friends are imported, by policy e2e (sha256:",
            "  now   modify: 1 of 3 friends are imported: \"bob\"",
            "  now   refuse: by rule nobodyLeft: 5002",
            "4 decisions: 4 as they were, 0 different",
        ],
    );
    assert!(!told.contains("changed since then"), "{told}");
    has(&skipped, &["OpenIM reported a completed import"]);

    policy.write("lists/blocked.txt", "blocked_owner\nbob\n");
    let (told, _) = printed(&explain(&policy, &[], &lines), 1);
    has(
        &told,
        &[
            "    verdict: allow -> refuse\n",
            "    kept: 1 of 1 -> 0 of 1, without bob\n",
            "    refusal: none -> by rule nobodyLeft: 5002 \"No importable friends\"",
            "    rules: [] -> [blocked-friends remove, nobodyLeft refuse]\n",
            "    list blocked: 3 IDs, sha256:",
            "4 decisions: 2 as they were, 2 different",
        ],
    );
    let (told, _) = printed(&explain(&policy, &["--json"], &lines), 1);
    let told: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told.len(), 4);
    assert_eq!(told[0]["same"], false);
    assert_eq!(
        told[0]["differences"]["verdict"],
        json!({ "then": "allow", "now": "refuse" })
    );
    assert_eq!(told[2]["same"], true);
}

#[test]
fn an_event_is_decided_at_its_time_and_in_its_rollouts() {
    let policy = PolicyDir::new(
        "apiVersion: importguard/v1\nname: e2e\nrules:\n- { id: evening, dropFriends: { prefixes: [b] }, when: now.getHours() == 18, rollout: 0 }\n",
        &[],
    );
    let event = allowed();
    printed(&explain(&policy, &[], &event.to_string()), 0);
    let (told, _) = printed(
        &explain(&policy, &["--rollout", "in"], &event.to_string()),
        1,
    );
    has(&told, &["rules: [] -> [evening remove, nobodyLeft refuse]"]);
    let mut later = event;
    later["time"] = "2026-11-23T19:04:05Z".into();
    printed(
        &explain(&policy, &["--rollout", "in"], &later.to_string()),
        0,
    );
}

#[test]
fn a_fallback_is_compared_by_its_verdict_only() {
    let mut event = allowed();
    event["data"]["decidedBy"] = "fallback".into();
    event["data"]["cause"] = "deciderTimeout".into();
    event["data"].as_object_mut().unwrap().remove("policy");
    let (told, _) = printed(&explain(&PolicyDir::usual(), &[], &event.to_string()), 0);
    has(&told, &["then  allow, by the fallback for deciderTimeout"]);
    event["data"]["friendUserIDs"] = json!(["bot_1", "bob"]);
    let (told, _) = printed(&explain(&PolicyDir::usual(), &[], &event.to_string()), 1);
    has(
        &told,
        &[
            "    verdict: allow -> modify\n",
            "    kept: 2 of 2 -> 1 of 2, without bot_1\n",
        ],
    );
}

#[test]
fn what_cannot_be_decided_again_is_reported_with_the_reason() {
    let policy = PolicyDir::usual();
    let with = |field: &str, value: Value| {
        let mut event = allowed();
        event["data"][field] = value;
        event.to_string()
    };
    let pseudonym = with("ownerUserID", "pn_15765ed1c7aef2755d0076c69c2cd411".into());
    let mut imported = allowed();
    imported["data"].as_object_mut().unwrap().remove("verdict");
    for (input, said) in [
        (
            pseudonym.as_str(),
            "event 0193-1 cannot be decided again: it has pseudonyms",
        ),
        (
            &with("friendCount", 5000.into()),
            "it was too large for NATS",
        ),
        (&imported.to_string(), "no decision in standard input"),
        ("", "no event in standard input"),
        ("{}", "this is not an event of importguard: missing field"),
        (
            "[#1] Received on \"importguard.v1.decision.allow\"",
            "is not JSON",
        ),
    ] {
        let (_, error) = printed(&explain(&policy, &[], input), 2);
        has(&error, &[said]);
    }
    // The others are decided.
    let both = format!("{pseudonym}\n{}", allowed());
    let (told, _) = printed(&explain(&policy, &[], &both), 2);
    has(&told, &["event 0193-1: alice", "  same decision\n"]);

    let (_, error) = printed(&explain(&policy, &["--owner", "alice"], "{}"), 2);
    has(&error, &["--event", "cannot be used with"]);
    let missing = Command::new(Binary::AllInOne.path())
        .current_dir(policy.dir())
        .args([
            "policy",
            "explain",
            "--policy",
            "policy.yaml",
            "--event",
            "nowhere",
        ])
        .output()
        .unwrap();
    has(&printed(&missing, 2).1, &["nowhere cannot be read"]);
}
