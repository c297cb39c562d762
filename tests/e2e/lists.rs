//! A list that loses its IDs opens no door: the last good one stays active, and that is reported.

use std::{
    fs::OpenOptions,
    io::Write,
    time::{Duration, Instant},
};

use importguard_tests::{Binary, OpenIm, PolicyDir, SOON, Service, Settings, eventually};
use serde_json::Value;
use tokio::time::sleep;

use crate::asserts;

/// How many users the list has. The last one is `user99`.
const IDS: usize = 100;

/// A policy that refuses the owners in a list with this definition.
fn policy(definition: &str) -> String {
    format!(
        "apiVersion: importguard/v1
name: lists
lists: {{ blocked: {{ {definition} }} }}
rules:
  - id: blocked-owner
    refuseOwner: {{ in: blocked }}
    refusal: {{ code: 5001, message: \"no\" }}
"
    )
}

fn users(count: usize) -> String {
    (0..count).map(|number| format!("user{number}\n")).collect()
}

fn with(definition: &str) -> PolicyDir {
    PolicyDir::new(&policy(definition), &[("blocked.txt", &users(IDS))])
}

async fn start(policy: &PolicyDir) -> (Service, OpenIm) {
    let settings = Settings::new().set("IMPORTGUARD_RELOAD_INTERVAL", "100ms");
    let service = Service::all_in_one(settings.policy(policy)).await;
    let caller = OpenIm::server(service.url());
    assert_eq!(code(&caller, "user99").await, 5001);
    (service, caller)
}

async fn code(caller: &OpenIm, owner: &str) -> i32 {
    asserts::code(&caller.import("op", owner, &["friend"]).await)
}

/// Waits until readiness and metrics report an error of the policy; returns the error.
async fn reported(service: &Service, held_back: bool) -> String {
    let gauge = format!("importguard_policy_held_back {}\n", u8::from(held_back));
    eventually("the error is reported", SOON, async || {
        let told: Value = serde_json::from_str(&service.admin("/readyz").await?)?;
        let error = &told["policy"]["error"]["text"];
        let Some(error) = error.as_str() else {
            anyhow::bail!("{told}");
        };
        let metrics = service.admin("/metrics").await?;
        for line in ["importguard_policy_in_error 1\n", &gauge] {
            anyhow::ensure!(metrics.contains(line), "no {line} in {metrics}");
        }
        anyhow::Ok(error.to_owned())
    })
    .await
}

/// Waits until `owner` is no longer blocked.
async fn is_let_in(caller: &OpenIm, owner: &str) {
    eventually(
        &format!("{owner} is no longer blocked"),
        SOON,
        async || match code(caller, owner).await {
            0 => Ok(()),
            code => Err(code),
        },
    )
    .await;
}

/// Waits until nothing is in error.
async fn recovered(service: &Service) {
    eventually("nothing is in error", SOON, async || {
        let told: Value = serde_json::from_str(&service.admin("/readyz").await?)?;
        anyhow::ensure!(told["policy"]["error"].is_null(), "{told}");
        let metrics = service.admin("/metrics").await?;
        for name in ["in_error", "held_back"] {
            let line = format!("importguard_policy_{name} 0\n");
            anyhow::ensure!(metrics.contains(&line), "no {line} in {metrics}");
        }
        anyhow::Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_emptied_list_is_reported_and_blocks_as_before() {
    let policy = with("file: blocked.txt");
    let (service, caller) = start(&policy).await;
    policy.write("blocked.txt", "");
    let error = reported(&service, false).await;
    let place = "policy.yaml:3:27: the list \"blocked.txt\" has no IDs: restore the file; if it may be empty, add allowEmpty: true to the list";
    assert!(error.ends_with(place), "{error}");
    service
        .wait_for_log(&["the last valid policy stays active", place])
        .await;
    assert_eq!(code(&caller, "user99").await, 5001);

    // SIGHUP confirms no error.
    let failed = "importguard_policy_reloads_total{result=\"failed\"}";
    let before = service.metric(failed).await.unwrap();
    service.sighup();
    service.wait_for_metric(failed, |now| now > before).await;
    assert_eq!(code(&caller, "user99").await, 5001);

    policy.write("blocked.txt", &users(IDS));
    recovered(&service).await;
}

#[tokio::test]
async fn a_list_may_become_empty_where_the_policy_says_so() {
    let policy = with("file: blocked.txt, allowEmpty: true, allowShrink: true");
    let (service, caller) = start(&policy).await;
    policy.replace("blocked.txt", "# nobody\n");
    is_let_in(&caller, "user99").await;
    recovered(&service).await;
}

#[tokio::test]
async fn a_list_below_its_minimum_is_reported_and_blocks_as_before() {
    let policy = with("file: blocked.txt, atLeast: 90");
    let (service, caller) = start(&policy).await;
    policy.replace("blocked.txt", &users(89));
    let error = reported(&service, false).await;
    let message = "policy.yaml:3:49: the list \"blocked.txt\" has 89 IDs; it must have at least 90";
    assert!(error.contains(message), "{error}");
    assert_eq!(code(&caller, "user99").await, 5001);
}

#[tokio::test]
async fn a_list_that_lost_more_than_half_is_held_back_until_sighup_confirms_it() {
    let policy = with("file: blocked.txt");
    let (service, caller) = start(&policy).await;
    policy.replace("blocked.txt", &users(40));
    let error = reported(&service, true).await;
    for part in [
        "policy.yaml:3:27: the list blocked shrank from 100 to 40 IDs, less than half",
        "send SIGHUP to the decider to confirm it",
        "allowShrink: true",
    ] {
        assert!(error.contains(part), "no {part} in {error}");
        service.wait_for_log(&[part]).await;
    }
    assert_eq!(code(&caller, "user99").await, 5001);

    service.sighup();
    is_let_in(&caller, "user99").await;
    assert_eq!(code(&caller, "user39").await, 5001);
    recovered(&service).await;
    service.wait_for_log(&["list blocked 100 → 40 IDs"]).await;
}

#[tokio::test]
async fn a_policy_that_lost_its_rules_is_held_back_until_sighup_confirms_it() {
    let limit = "rules:\n  - { id: batch, limitFriends: { max: 9, onExceed: truncate } }\n";
    let whole = self::policy("file: blocked.txt").replace("rules:\n", limit);
    let (cut, _) = whole.split_once("  - id: blocked-owner").unwrap();
    let policy = PolicyDir::new(&whole, &[("blocked.txt", &users(IDS))]);
    let (service, caller) = start(&policy).await;
    let emptied = "apiVersion: importguard/v1\nname: lists\nrules: []\n";
    for (lost, doubt) in [(cut, "half written"), (emptied, "enforces none")] {
        policy.replace("policy.yaml", lost);
        service
            .wait_for_log(&[doubt, "send SIGHUP to the decider to confirm it"])
            .await;
        let error = reported(&service, true).await;
        assert!(error.contains(doubt), "{error}");
        assert_eq!(code(&caller, "user99").await, 5001);
        policy.replace("policy.yaml", &whole);
        recovered(&service).await;
    }

    policy.replace("policy.yaml", emptied);
    reported(&service, true).await;
    service.sighup();
    is_let_in(&caller, "user99").await;
    recovered(&service).await;
}

#[tokio::test]
async fn a_policy_that_is_held_back_leaves_no_series_of_its_rules() {
    let policy = with("file: blocked.txt");
    let (service, _) = start(&policy).await;
    let of_rule =
        |rule: &str| format!("importguard_decider_rule_duration_seconds_count{{rule=\"{rule}\"}}");
    policy.replace("blocked.txt", &users(40));
    let changed = self::policy("file: blocked.txt").replace("blocked-owner", "changed");
    policy.replace("policy.yaml", &changed);
    reported(&service, true).await;
    assert!(service.metric(&of_rule("blocked-owner")).await.is_ok());
    assert!(service.metric(&of_rule("changed")).await.is_err());
    service.sighup();
    recovered(&service).await;
    eventually("the rules are counted anew", SOON, async || {
        let (gone, new) = (of_rule("blocked-owner"), of_rule("changed"));
        anyhow::ensure!(service.metric(&gone).await.is_err(), "{gone} is there");
        service.metric(&new).await
    })
    .await;
}

#[tokio::test]
async fn a_sighup_that_is_the_first_to_see_a_shrunk_list_does_not_confirm_it() {
    let policy = with("file: blocked.txt");
    let settings = Settings::new().set("IMPORTGUARD_RELOAD_INTERVAL", "1h");
    let service = Service::all_in_one(settings.policy(&policy)).await;
    let caller = OpenIm::server(service.url());
    policy.replace("blocked.txt", &users(40));
    service.sighup();
    reported(&service, true).await;
    assert_eq!(code(&caller, "user99").await, 5001);
}

#[tokio::test]
async fn a_shrunk_list_is_taken_when_the_policy_says_so() {
    let policy = with("file: blocked.txt");
    let (service, caller) = start(&policy).await;
    policy.replace("blocked.txt", &users(40));
    reported(&service, true).await;
    policy.replace(
        "policy.yaml",
        &self::policy("file: blocked.txt, allowShrink: true"),
    );
    recovered(&service).await;
    assert_eq!(code(&caller, "user99").await, 0);
}

/// Every state of the file in between has lost some of the IDs.
#[tokio::test]
async fn a_list_that_is_written_slowly_blocks_as_before_until_it_is_complete() {
    let policy = with("file: blocked.txt");
    let (service, caller) = start(&policy).await;
    let new = users(IDS) + "mallory\n";
    let mut file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(policy.dir().join("blocked.txt"))
        .unwrap();
    // Shorter than the file settles in: nothing is wrong yet.
    let lines: Vec<_> = new.split_inclusive('\n').collect();
    let (most, rest) = lines.split_at(80);
    for half in most.chunks(40) {
        file.write_all(half.concat().as_bytes()).unwrap();
        stays(&caller, Duration::from_secs(2)).await;
    }
    let metrics = service.admin("/metrics").await.unwrap();
    assert!(
        metrics.contains("importguard_policy_in_error 0\n"),
        "{metrics}"
    );
    // Longer, in the middle of a line.
    file.write_all(b"user").unwrap();
    let error = reported(&service, true).await;
    let message =
        "shrank from 100 to 81 IDs and its last line has no end, so it may be half written";
    assert!(error.contains(message), "{error}");
    stays(&caller, Duration::from_secs(1)).await;
    file.write_all(&rest.concat().as_bytes()["user".len()..])
        .unwrap();
    recovered(&service).await;
    eventually("the new list is active", SOON, async || {
        match code(&caller, "mallory").await {
            5001 => Ok(()),
            code => Err(code),
        }
    })
    .await;
    assert_eq!(code(&caller, "user99").await, 5001);
}

/// The last user stays blocked for this long.
async fn stays(caller: &OpenIm, time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        assert_eq!(code(caller, "user99").await, 5001);
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_is_no_list_is_reported_without_its_lines_and_blocks_as_before() {
    let policy = with("file: blocked.txt");
    let (service, caller) = start(&policy).await;
    let list = policy.dir().join("blocked.txt");
    let utf16: Vec<u8> = users(IDS)
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    for (content, message) in [
        (
            users(IDS).replace('\n', "\r").into_bytes(),
            ":1:6: a carriage return",
        ),
        (utf16.clone(), ":1:1: the file is encoded as UTF-16"),
        (
            [b"\xff\xfe", &utf16[..]].concat(),
            ":1:1: the file is encoded as UTF-16",
        ),
        (
            users(IDS).replace("ser9", "ser\u{feff}9").into_bytes(),
            ":10:5: this line contains a byte order mark",
        ),
        (
            users(IDS).replace("ser9", "ser\u{200b}9").into_bytes(),
            ":10:5: this line contains an invisible character",
        ),
        (
            users(IDS).replace("ser9", "ser\u{1}9").into_bytes(),
            ":10:5: this line contains a control character",
        ),
        (
            b"<!DOCTYPE html>\n<p>user99 was not found</p>\n".to_vec(),
            ":1:1: this is HTML or XML",
        ),
        (
            format!("[\"{}\"]", users(IDS).trim().replace('\n', "\", \"")).into_bytes(),
            ":1:1: this is JSON",
        ),
        (
            users(IDS).replace('\n', ",left in May\n").into_bytes(),
            ":1:6: a comma and what follows it",
        ),
        (
            users(IDS)
                .replace("user", "\"user")
                .replace('\n', "\",\n")
                .into_bytes(),
            ":1:1: the quotes",
        ),
    ] {
        let new = policy.dir().join("new");
        std::fs::write(&new, content).unwrap();
        std::fs::rename(&new, &list).unwrap();
        eventually(message, SOON, async || {
            let error = reported(&service, false).await;
            if error.contains(message) {
                Ok(())
            } else {
                Err(error)
            }
        })
        .await;
        assert_eq!(code(&caller, "user99").await, 5001, "{message}");
        let told = service.admin("/readyz").await.unwrap() + &service.output();
        assert!(!told.contains("ser9"), "{told}");
    }
    policy.replace("blocked.txt", &users(IDS));
    recovered(&service).await;
}

/// Starts a decider, which must end, and returns what it printed.
async fn gives_up(policy: &PolicyDir) -> String {
    let mut service = Service::spawn(Binary::Decider, Settings::new().policy(policy));
    assert_eq!(service.exit(SOON).await.code(), Some(1));
    service.output()
}

#[tokio::test]
async fn no_decider_starts_with_an_empty_list_or_one_below_its_minimum() {
    let empty = PolicyDir::new(
        &policy("file: blocked.txt"),
        &[("blocked.txt", "# nobody\n")],
    );
    let output = gives_up(&empty).await;
    assert!(
        output.contains("policy.yaml:3:27: the list \"blocked.txt\" has no IDs"),
        "{output}"
    );

    let small = PolicyDir::new(
        &policy("file: blocked.txt, atLeast: 50"),
        &[("blocked.txt", &users(49))],
    );
    let output = gives_up(&small).await;
    let message = "policy.yaml:3:49: the list \"blocked.txt\" has 49 IDs; it must have at least 50";
    assert!(output.contains(message), "{output}");

    let wrong = PolicyDir::new(
        &policy("file: blocked.txt"),
        &[("blocked.txt", "mallory,left in May\n")],
    );
    let output = gives_up(&wrong).await;
    assert!(output.contains("blocked.txt:1:8: a comma"), "{output}");
    assert!(!output.contains("mallory"), "{output}");
}

#[tokio::test]
async fn a_shrunk_list_is_taken_by_a_restart_unless_it_has_a_minimum() {
    let policy = with("file: blocked.txt");
    let settings = Settings::new().policy(&policy);
    let mut service = Service::all_in_one(settings).await;
    policy.replace("blocked.txt", &users(40));
    reported(&service, true).await;
    service.terminate(SOON).await;
    service.restart().await;
    let caller = OpenIm::server(service.url());
    assert_eq!(code(&caller, "user99").await, 0);

    policy.replace(
        "policy.yaml",
        &self::policy("file: blocked.txt, atLeast: 50"),
    );
    let output = gives_up(&policy).await;
    assert!(
        output.contains("has 40 IDs; it must have at least 50"),
        "{output}"
    );
}

#[tokio::test]
async fn a_list_ignores_case_and_white_space_where_the_policy_says_so() {
    for (definition, codes) in [
        ("values: [mallory]", [5001, 0, 0]),
        ("values: [mallory], fold: [case]", [5001, 5001, 0]),
        ("values: [mallory], fold: [case, space]", [5001, 5001, 5001]),
    ] {
        let policy = PolicyDir::new(&policy(definition), &[]);
        let service = Service::all_in_one(Settings::new().policy(&policy)).await;
        let caller = OpenIm::server(service.url());
        for (owner, expected) in ["mallory", "Mallory", "MAL lory "].iter().zip(codes) {
            assert_eq!(
                code(&caller, owner).await,
                expected,
                "{definition}: {owner}"
            );
        }
    }
}
