//! `importguard policy explain --event`: recorded decisions, decided again.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use importguard_tests::{Binary, Line, PolicyDir, Settings, wait_for_count};
use serde_json::{Value, json};

use crate::asserts::{has, printed};

/// Runs `importguard policy explain --event -` where `policy` is, with this input.
fn explain(policy: &PolicyDir, more: &[&str], input: &str) -> Output {
    explain_file("-", policy, more, input)
}

fn explain_file(file: &str, policy: &PolicyDir, more: &[&str], input: &str) -> Output {
    let mut child = Command::new(Binary::AllInOne.path())
        .current_dir(policy.dir())
        .env_remove("IMPORTGUARD_POLICY")
        .args([
            "policy",
            "explain",
            "--policy",
            "policy.yaml",
            "--event",
            file,
        ])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A process that has ended, for an error in its arguments, takes no input.
    let _ = stdin.write_all(input.as_bytes());
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
    let all = lines.join("\n");

    let policy = PolicyDir::usual();
    let (told, skipped) = printed(&explain(&policy, &[], &all), 0);
    has(&told, &["4 decisions: 4 as before, 0 different"]);
    assert_eq!(told.lines().count(), 1, "{told}");
    assert_eq!(
        skipped,
        "skipped 1 event of type importguard.imported.v1: not a decision\n"
    );
    let (told, _) = printed(&explain(&policy, &[], &lines[2]), 0);
    has(
        &told,
        &[
            "  then  modify: 1 of 3 friends are imported, by policy e2e (sha256:",
            "  now   modify: 1 of 3 friends are imported: \"bob\"",
            "1 decision: 1 as before, 0 different",
        ],
    );
    assert!(!told.contains("changed since then"), "{told}");

    policy.write("lists/blocked.txt", "blocked_owner\nbob\n");
    let (told, _) = printed(&explain(&policy, &[], &all), 1);
    has(
        &told,
        &[
            "    verdict: allow -> refuse\n",
            "    kept: 1 of 1 -> 0 of 1, without bob\n",
            "    refusal: none -> by rule nobodyLeft: 5002 \"No importable friends\"",
            "    rules: [] -> [blocked-friends remove, nobodyLeft refuse]\n",
            "    list blocked: 3 IDs, sha256:",
            "4 decisions: 2 as before, 2 different",
        ],
    );
    let (told, _) = printed(&explain(&policy, &["--json"], &all), 1);
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
fn what_is_not_a_decision_is_skipped_with_its_type() {
    let policy = PolicyDir::usual();
    let change = json!({
        "specversion": "1.0", "id": "0193-2", "type": "importguard.list.changed.v1", "time": "2026-11-23T18:04:06Z",
        "source": "importguard/list", "subject": "bob",
        "data": { "list": "bad", "userID": "bob", "change": "added", "by": "alice", "revision": 1 },
    });
    let both = format!("{change}\n{}", allowed());
    let (told, skipped) = printed(&explain(&policy, &[], &both), 0);
    has(&told, &["event 0193-1: alice", "  same decision\n"]);
    let expected = "skipped 1 event of type importguard.list.changed.v1: not a decision";
    has(&skipped, &[expected]);
    let (_, none) = printed(&explain(&policy, &[], &change.to_string()), 2);
    has(&none, &[expected, "no decision in standard input"]);
    let imported = json!({ "id": "0193-3", "type": "importguard.imported.v1", "time": "2026-11-23T18:04:06Z",
        "data": { "operationID": "op", "ownerUserID": "alice" } });
    let (_, none) = printed(&explain(&policy, &[], &imported.to_string()), 2);
    has(&none, &["skipped 1 event", "no decision"]);
    // A later version of a decision is not passed over in silence.
    let mut later = allowed();
    later["type"] = "importguard.decision.v2".into();
    later["data"] = json!({});
    let (_, error) = printed(&explain(&policy, &[], &later.to_string()), 2);
    has(
        &error,
        &["this is not an event of importguard: missing field"],
    );
}

/// An event whose policy had the list `blocked` with this size and revision.
fn with_list(digest: &str, size: u64, revision: Option<u64>) -> String {
    let mut event = allowed();
    event["data"]["lists"] = json!([{ "name": "blocked", "digest": digest, "size": size }]);
    if let Some(revision) = revision {
        event["data"]["lists"][0]["revision"] = revision.into();
    }
    event.to_string()
}

#[test]
fn a_missing_live_list_is_noted_and_matters_only_to_events_that_somebody_was_on_it_for() {
    // The list that events name comes first; both have the same live list.
    let policy = PolicyDir::new(
        "apiVersion: importguard/v1\nname: e2e\nlists:\n  blocked: { file: blocked.txt, live: bad }\n  others: { live: bad }\n\
         rules:\n- { id: a, dropFriends: { in: blocked } }\n- { id: b, dropFriends: { in: others } }\n",
        &[("blocked.txt", "mallory\n")],
    );
    let mallory = "sha256:cc6e30643f964b8c9449e297cf0e76ac198b39ed52e30220b51f4212f3d70a92";
    let note = "note: nobody is on the live list bad here; use --live bad=FILE";
    for (case, event) in [
        ("no list", allowed().to_string()),
        ("not live then", with_list(mallory, 1, None)),
        ("never an entry", with_list(mallory, 1, Some(0))),
        (
            "never an entry, another file",
            with_list("sha256:00", 9, Some(0)),
        ),
        ("only the IDs of the file", with_list(mallory, 1, Some(7))),
        ("no entry left", with_list("sha256:00", 0, Some(7))),
    ] {
        let (told, noted) = printed(&explain(&policy, &[], &event), 0);
        assert!(
            told.contains("  same decision\n") && noted.starts_with(note),
            "{case}: {noted}"
        );
        assert_eq!(noted.matches(note).count(), 1, "{case}: {noted}");
    }
    let event = with_list("sha256:00", 2, Some(7));
    let (_, error) = printed(&explain(&policy, &[], &event), 2);
    has(
        &error,
        &[
            note,
            "event 0193-1 cannot be decided again: somebody was on the live list bad, but events do not have its entries; give them with --live bad=FILE",
        ],
    );
    let three = [
        event.clone(),
        with_list("sha256:00", 3, Some(8)),
        event.clone(),
    ]
    .join("\n");
    let (_, error) = printed(&explain(&policy, &[], &three), 2);
    has(&error, &["event 0193-1 and 2 more cannot be decided again"]);
    assert_eq!(error.matches("--live bad=FILE,").count(), 1, "{error}");
    policy.write("bad.jsonl", "");
    let (_, noted) = printed(&explain(&policy, &["--live", "bad=bad.jsonl"], &event), 0);
    assert_eq!(noted, "");
}

#[test]
fn what_cannot_be_decided_again_is_reported_with_the_reason() {
    let policy = PolicyDir::usual();
    let with = |field: &str, value: Value| {
        let mut event = allowed();
        event["data"][field] = value;
        event.to_string()
    };
    let mut pseudonymised = allowed();
    pseudonymised["pseudonymised"] = true.into();
    let pseudonymised = pseudonymised.to_string();
    // An ID that looks like a pseudonym is none.
    let id = with("ownerUserID", "pn_15765ed1c7aef2755d0076c69c2cd411".into());
    printed(&explain(&policy, &[], &id), 0);
    let mut imported = allowed();
    imported["data"].as_object_mut().unwrap().remove("verdict");
    for (input, said) in [
        (
            pseudonymised.as_str(),
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
    let both = format!("{pseudonymised}\n{}", allowed());
    let (told, _) = printed(&explain(&policy, &[], &both), 2);
    has(&told, &["event 0193-1: alice", "  same decision\n"]);

    let (_, error) = printed(&explain(&policy, &["--owner", "alice"], "{}"), 2);
    has(&error, &["--event", "cannot be used with"]);
    let missing = explain_file("nowhere", &policy, &[], "");
    has(&printed(&missing, 2).1, &["nowhere cannot be read"]);
}

#[test]
fn what_is_too_large_for_an_event_is_not_kept_in_memory() {
    let endless = format!("\"{}", "a".repeat(65 << 20));
    let (_, error) = printed(&explain(&PolicyDir::usual(), &[], &endless), 2);
    has(&error, &["larger than 64 MiB", "one event a line"]);
}

#[tokio::test]
async fn no_command_prints_what_a_terminal_obeys_or_hides() {
    const HIDDEN: [char; 3] = ['\u{202e}', '\u{9b}', '\u{200b}'];
    let line = Line::start().await;
    let friends = ["bob", "bot_\u{9b}31m", "bot_\u{200b}"];
    let server = line.server();
    server.import("op-1", "a\u{202e}b", &friends).await;
    let event = wait_for_count(&line.nats, 1).await.remove(0).json;
    let nats = Settings::new().nats(&line.nats);
    let mut outputs = Vec::new();
    for arguments in [
        &["tail", "--no-follow"][..],
        &["tail", "--no-follow", "--json"],
        &["why", "--operation-id", "op-1"],
        &["stats", "--by", "owner"],
        &["stats", "--by", "owner", "--json"],
    ] {
        outputs.push(printed(&nats.run(arguments).await, 0).0);
    }
    let read: Value = serde_json::from_str(&outputs[1]).unwrap();
    assert_eq!(read, event);
    let policy = PolicyDir::usual();
    for more in [&[][..], &["--json"]] {
        outputs.push(printed(&explain(&policy, more, &event.to_string()), 0).0);
    }
    for output in outputs {
        assert!(
            output.contains("op-1") || output.contains("a\\u"),
            "{output}"
        );
        assert!(!output.contains(HIDDEN), "{output:?}");
    }
}
