//! `importguard why` against a real gateway, a real nats-server and a real spool.

use std::{
    process::Output,
    time::{Duration, SystemTime},
};

use importguard_tests::{Line, PolicyDir, Settings, wait_for_count};

use crate::asserts::{has, printed};

async fn why(settings: &Settings, arguments: &[&str]) -> Output {
    settings.run(["why"].iter().chain(arguments)).await
}

#[tokio::test]
async fn it_says_what_was_asked_what_the_rules_did_and_what_openim_was_answered() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let line = Line::start().await;
    let server = line.server();
    server.import("op-1", "alice", &["x"]).await;
    server.import("op-2", "alice", &["x", "bot_1", "y"]).await;
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let refused = server.before_import("op-3", "blocked_owner", &["x"]);
    let refused = refused.header("traceparent", &traceparent);
    server.send(refused).await;
    server
        .send(server.after_import("op-2", "alice", &["x", "y"]))
        .await;
    wait_for_count(&line.nats, 4).await;
    let nats = Settings::new().nats(&line.nats);

    let url = "http://jaeger/trace/{trace}";
    let arguments = ["--operation-id", "op-3", "--traces-url", url];
    let (words, searched) = printed(&why(&nats, &arguments).await, 0);
    has(
        &words,
        &[
            "blocked_owner asked to import friends: refused",
            "asked      1 friend: x\n",
            "decided by policy e2e (sha256:",
            "rules      blocked-owner refused the import: blocked_owner is on list blocked\n",
            "refuse: errCode 5001, errMsg \"User not allowed",
            &format!("trace      {TRACE}"),
            &format!("http://jaeger/trace/{TRACE}"),
        ],
    );
    has(
        &searched,
        &[
            "events found: 1; searched 4 in the stream since",
            "why: the stream begins at ",
            "not searched: spools of gateways",
        ],
    );

    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let (words, _) = printed(&why(&nats, &["--owner", "alice", "--at", &now]).await, 0);
    has(
        &words,
        &[
            "alice asked to import friends: allowed",
            "rules      none matched",
            "alice asked to import friends: 2 of 3 allowed",
            "blocked-friends removed 1 of 3 by prefix \"bot_\": bot_1\n",
            "import only 2 friends",
            "OpenIM reported a completed import of alice",
        ],
    );
    let friends = ["bob", "bot_1", "blocked_2", "bot_2"];
    server.import("op-4", "bob", &friends).await;
    wait_for_count(&line.nats, 5).await;
    let (words, _) = printed(&why(&nats, &["--owner", "bob"]).await, 0);
    has(
        &words,
        &[
            "rules      self removed 1 of 4: bob\n",
            "           blocked-friends removed 3 of 4: bot_1, blocked_2, bot_2\n",
            "             prefix \"bot_\": bot_1, bot_2\n",
            "             list blocked: blocked_2\n",
            "nobodyLeft refused the import: self and blocked-friends removed every friend\n",
        ],
    );
    let (words, searched) = printed(&why(&nats, &["--owner", "alice", "--at", "1h"]).await, 1);
    assert_eq!(words, "");
    has(&searched, &["events found: 0; searched 5", "rejected"]);
}

#[tokio::test]
async fn it_reads_the_spool_of_a_running_gateway_while_nats_is_away() {
    let line = Line::without_nats(Settings::new()).await;
    line.server().import("op-1", "alice", &["x"]).await;
    let dir = line.gateway.spool_dir();
    let nats = Settings::new().nats(&line.nats);
    let arguments = ["--operation-id", "op-1", "--spool", dir.to_str().unwrap()];
    let (words, searched) = printed(&why(&nats, &arguments).await, 1);
    has(&words, &["alice asked to import friends: allowed"]);
    has(
        &searched,
        &[
            "events found: 1\n",
            "not searched: the stream",
            "searched 1 in the spool",
            "spools of other gateways",
        ],
    );
    assert!(!searched.contains("in the stream since"), "{searched}");
    let (_, error) = printed(&why(&nats, &arguments[..2]).await, 1);
    has(&error, &["NATS at 127.0.0.1"]);
    let (_, error) = printed(
        &why(&nats, &["--owner", "a", "--spool", "/nowhere"]).await,
        1,
    );
    has(&error, &["no spool in /nowhere"]);
}

#[tokio::test]
async fn with_the_key_an_owner_is_found_by_id() {
    let key = ("IMPORTGUARD_PSEUDONYM_KEY", "0123456789abcdef");
    let line = Line::with(Settings::new().set(key.0, key.1)).await;
    line.server().import("op-1", "user123", &["x"]).await;
    wait_for_count(&line.nats, 1).await;
    let settings = || Settings::new().nats(&line.nats);
    let keyed = settings().set(key.0, key.1);
    let (words, _) = printed(&why(&keyed, &["--owner", "user123"]).await, 0);
    let owner = "user123 (pn_15765ed1c7aef2755d0076c69c2cd411 in the event) asked";
    has(&words, &[owner]);
    printed(&why(&settings(), &["--owner", "user123"]).await, 1);
}

#[tokio::test]
async fn a_decision_that_was_spooled_is_found_by_the_time_it_was_made() {
    let mut line = Line::without_nats(Settings::new()).await;
    line.server().import("op-1", "alice", &["x"]).await;
    let then = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    tokio::time::sleep(Duration::from_secs(2)).await;
    line.nats.restart().await;
    wait_for_count(&line.nats, 1).await;
    let nats = Settings::new().nats(&line.nats);
    let (words, _) = printed(&why(&nats, &["--owner", "alice", "--at", &then]).await, 0);
    has(&words, &["op-1"]);
}

#[tokio::test]
async fn an_operation_id_that_was_replaced_finds_the_decision_too() {
    let line = Line::with(Settings::new().set("IMPORTGUARD_OPERATION_ID", "generate")).await;
    let server = line.server();
    server.import("no usable one", "alice", &["x"]).await;
    wait_for_count(&line.nats, 1).await;
    let nats = Settings::new().nats(&line.nats);
    let (words, _) = printed(&why(&nats, &["--operation-id", "no usable one"]).await, 0);
    has(
        &words,
        &[
            "operation  importguard-",
            ", generated instead of \"no usable one\"\n",
        ],
    );
}

const FAILS: &str = r#"apiVersion: importguard/v1
name: fails
rules:
  - { id: low, dropFriendIf: 'int(friend) > 100', onError: skip }
  - { id: tested, refuseIf: 'int(operationID) > 1', mode: shadow, onError: skip, refusal: { code: 5105, message: "no" } }
"#;

#[tokio::test]
async fn a_rule_that_failed_is_told_with_what_it_did_all_the_same() {
    let policy = PolicyDir::new(FAILS, &[]);
    let line = Line::with(Settings::new().policy(&policy)).await;
    let server = line.server();
    server.import("op-1", "alice", &["101", "x"]).await;
    server.import("op-2", "alice", &["x"]).await;
    wait_for_count(&line.nats, 2).await;
    let nats = Settings::new().nats(&line.nats);
    let (words, _) = printed(&why(&nats, &["--operation-id", "op-1"]).await, 0);
    has(
        &words,
        &[
            "low failed: its expression could not be evaluated (",
            "the friends for which it failed were kept\n",
            "low removed 1 of 2 by int(friend) > 100 is true: 101\n",
            "tested (shadow) failed: its expression could not be evaluated (",
        ],
    );
    let (words, _) = printed(&why(&nats, &["--operation-id", "op-2"]).await, 0);
    has(&words, &["; it was skipped\n"]);
}

#[tokio::test]
async fn changes_of_lists_are_not_searched() {
    let line = Line::start().await;
    line.server().import("op-1", "alice", &["x"]).await;
    wait_for_count(&line.nats, 1).await;
    let jetstream = async_nats::jetstream::new(line.nats.client().await);
    let subject = "importguard.v1.list.changed";
    let stored = jetstream.publish(subject, "{}".into()).await.unwrap();
    stored.await.unwrap();
    let nats = Settings::new().nats(&line.nats);
    let (_, searched) = printed(&why(&nats, &["--operation-id", "op-1"]).await, 0);
    has(&searched, &["searched 1 in the stream since"]);
}

#[tokio::test]
async fn what_is_missing_or_unusable_is_named_with_an_example() {
    for (arguments, parts) in [
        (&[][..], &["--operation-id", "--owner"][..]),
        (
            &["--owner", "u7", "--traces-url", "http://jaeger/trace"],
            &["{trace}", "http://localhost:16686/trace/{trace}"],
        ),
    ] {
        let (_, stderr) = printed(&why(&Settings::new(), arguments).await, 2);
        let error = stderr.split("Usage:").next().unwrap();
        has(error, parts);
    }
}
