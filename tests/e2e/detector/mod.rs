//! The detector: owners who do too much are put on a live list, once.

mod faults;
pub(crate) mod kubernetes;
mod world;

use importguard_tests::{
    Detector, NatsServer, OpenIm, PolicyDir, SOON, Service, Settings, eventually, workspace,
};
use serde_json::Value;
use tempfile::TempDir;

use self::world::{THREE, changes, entered, entry, nats, publish, refusal, refuse, with_stream};
use crate::asserts::printed;

const EVENTS: &str = "importguard_detector_events_total";

#[tokio::test]
async fn there_is_one_entry_and_one_event_however_often_decisions_are_delivered() {
    let (nats, jetstream) = nats().await;
    let mut detector = Detector::start(THREE, Settings::new().nats(&nats)).await;
    let refusals: Vec<_> = (1..=3).map(|number| refusal(number, "user1", 0)).collect();
    for _ in 0..4 {
        for refusal in &refusals {
            publish(&jetstream, refusal).await;
        }
    }
    let (revision, value) = entered(&jetstream, "user1").await;
    detector.counts(EVENTS, 12.0).await;
    assert_eq!(entry(&jetstream, "user1").await.unwrap().0, revision);
    assert_eq!(value["by"], "detector");
    assert_eq!(value["reason"], "three: 3 refusals within 1m");
    assert_eq!(value["at"], refusals[2]["time"]);
    let added = "importguard_detector_detections_total{rule=\"three\",outcome=\"added\"}";
    assert_eq!(detector.metric(added).await.unwrap(), 1.0);

    let changes = changes(&jetstream).await;
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0]["id"], value["event"]);
    assert_eq!(changes[0]["data"]["by"], "detector");
    assert_eq!(changes[0]["data"]["userID"], "user1");
    assert_eq!(changes[0]["data"]["until"], value["until"]);
    // Users' IDs are in events and lists, and not in logs.
    detector
        .wait_for_log(&[
            "put an owner on a list",
            "three: 3 refusals within 1m",
            &format!("event=\"{}\"", value["event"].as_str().unwrap()),
            &format!("decision=\"{}\"", refusals[2]["id"].as_str().unwrap()),
            "operationID=\"op-3\"",
        ])
        .await;
    assert!(
        !detector.stderr().contains("user1"),
        "{}",
        detector.stderr()
    );

    assert_eq!(detector.terminate(SOON).await.code(), Some(0));
    assert!(
        detector.stderr().contains("stopped"),
        "{}",
        detector.stderr()
    );
}

#[tokio::test]
async fn two_processes_with_one_consumer_warn() {
    for mut nats in NatsServer::of_each_version() {
        nats.restart().await;
        let jetstream = with_stream(nats.client().await).await;
        let one = Detector::start(THREE, Settings::new().nats(&nats)).await;
        refuse(&jetstream, "user1", 1..=20).await;
        one.counts(EVENTS, 20.0).await;
        let missed = "importguard_detector_missed_deliveries_total";
        assert_eq!(one.metric(missed).await.unwrap(), 0.0);

        let other = Detector::start(THREE, Settings::new().nats(&nats)).await;
        refuse(&jetstream, "user1", 21..=60).await;
        for detector in [&one, &other] {
            let warning = ["WARN", "another process reads the events of this consumer"];
            detector.wait_for_log(&warning).await;
            assert!(detector.metric(missed).await.unwrap() > 0.0);
        }
    }
}

#[tokio::test]
async fn a_new_detector_puts_nobody_on_a_list_for_what_happened_before() {
    for mut nats in NatsServer::of_each_version() {
        nats.restart().await;
        let jetstream = with_stream(nats.client().await).await;
        refuse(&jetstream, "user1", 1..=3).await;
        let detector = Detector::start(THREE, Settings::new().nats(&nats)).await;
        refuse(&jetstream, "user2", 4..=6).await;
        entered(&jetstream, "user2").await;
        assert_eq!(entry(&jetstream, "user1").await, None);
        // It counts, however.
        refuse(&jetstream, "user1", [7]).await;
        entered(&jetstream, "user1").await;
        drop(detector);
    }
}

#[tokio::test]
async fn a_threshold_is_reached_by_so_many_within_the_window_and_by_no_fewer() {
    let (nats, jetstream) = nats().await;
    let detector = Detector::start(THREE, Settings::new().nats(&nats)).await;
    // Two; and three, the first of which came when it no longer counted.
    refuse(&jetstream, "two", 1..=2).await;
    let now = refusal(10, "apart", 0);
    let mut first = refusal(11, "apart", 0);
    let minute_ago = time_of(&now) - time::Duration::minutes(1);
    first["time"] = rfc3339(minute_ago).into();
    let mut second = refusal(12, "apart", 0);
    second["time"] = rfc3339(time_of(&now) - time::Duration::seconds(30)).into();
    for event in [&second, &now] {
        publish(&jetstream, event).await;
    }
    publish(&jetstream, &first).await;
    detector.counts(EVENTS, 5.0).await;
    assert_eq!(entry(&jetstream, "two").await, None);
    assert_eq!(entry(&jetstream, "apart").await, None);
    // One more between them is enough.
    let mut between = refusal(13, "apart", 0);
    between["time"] = rfc3339(time_of(&now) - time::Duration::seconds(1)).into();
    publish(&jetstream, &between).await;
    refuse(&jetstream, "two", [3]).await;
    entered(&jetstream, "apart").await;
    entered(&jetstream, "two").await;
}

fn time_of(event: &Value) -> time::OffsetDateTime {
    let text = event["time"].as_str().unwrap();
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap()
}

fn rfc3339(time: time::OffsetDateTime) -> String {
    time.format(&time::format_description::well_known::Rfc3339)
        .unwrap()
}

#[tokio::test]
async fn fallbacks_and_pseudonyms_put_nobody_on_a_list() {
    let (nats, jetstream) = nats().await;
    let mut detector = Detector::start(THREE, Settings::new().nats(&nats)).await;
    for number in 1..=5 {
        let mut fallback = refusal(number, "unlucky", 0);
        fallback["data"]["decidedBy"] = "fallback".into();
        fallback["data"]["cause"] = "deciderTimeout".into();
        publish(&jetstream, &fallback).await;
        let mut pseudonymised = refusal(10 + number, "pn_0123456789abcdef0123456789abcdef", 0);
        pseudonymised["pseudonymised"] = true.into();
        publish(&jetstream, &pseudonymised).await;
    }
    detector.counts(EVENTS, 10.0).await;
    let skipped = "importguard_detector_skipped_total{reason=\"pseudonymised\"}";
    assert_eq!(detector.metric(skipped).await.unwrap(), 5.0);
    detector
        .wait_for_log(&[
            "skipping events with pseudonyms",
            "IMPORTGUARD_PSEUDONYM_KEY",
        ])
        .await;
    assert_eq!(changes(&jetstream).await, Vec::<Value>::new());

    // The windows are rebuilt from the same events, which were reported already.
    assert_eq!(detector.terminate(SOON).await.code(), Some(0));
    let reported = detector.stderr().matches("skipping events").count();
    detector.restart(&[]);
    detector.ready().await;
    detector.counts(EVENTS, 10.0).await;
    assert_eq!(detector.metric(skipped).await.unwrap(), 0.0);
    let now = detector.stderr().matches("skipping events").count();
    assert_eq!(now, reported);
}

#[tokio::test]
async fn what_moderators_decide_stands() {
    let (nats, jetstream) = nats().await;
    let settings = || {
        Settings::new()
            .nats(&nats)
            .set("IMPORTGUARD_LIST_BY", "alice")
    };
    printed(
        &settings()
            .run(&["list", "add", "suspects", "user1", "user2"])
            .await,
        0,
    );
    printed(
        &settings()
            .run(&["list", "remove", "suspects", "user2"])
            .await,
        0,
    );
    let before = (
        entry(&jetstream, "user1").await,
        entry(&jetstream, "user2").await,
    );
    let detector = Detector::start(THREE, settings()).await;
    refuse(&jetstream, "user1", 1..=3).await;
    refuse(&jetstream, "user2", 11..=13).await;
    for outcome in ["listed", "removed"] {
        let series = format!(
            "importguard_detector_detections_total{{rule=\"three\",outcome=\"{outcome}\"}}"
        );
        detector.counts(&series, 1.0).await;
    }
    let after = (
        entry(&jetstream, "user1").await,
        entry(&jetstream, "user2").await,
    );
    assert_eq!(before, after);
}

#[tokio::test]
async fn an_entry_that_a_person_made_and_removed_protects_nobody_for_as_long_as_it_would_have_lasted()
 {
    let (nats, jetstream) = nats().await;
    let settings = || {
        Settings::new()
            .nats(&nats)
            .set("IMPORTGUARD_LIST_BY", "alice")
    };
    let rules = "[{ id: two, refusals: 2, within: 1s, list: suspects, for: 10m }]";
    let detector = Detector::start(rules, settings()).await;
    printed(
        &settings()
            .run(&["list", "add", "suspects", "user1", "--for", "30d"])
            .await,
        0,
    );
    let listed = "importguard_detector_detections_total{rule=\"two\",outcome=\"listed\"}";
    let mut number = 0;
    // Two that a busy machine publishes further apart do not count.
    eventually("it is found on the list", SOON, async || {
        refuse(&jetstream, "user1", [number + 1, number + 2]).await;
        number += 2;
        match detector.metric(listed).await {
            Ok(count) if count >= 1.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    printed(
        &settings()
            .run(&["list", "remove", "suspects", "user1"])
            .await,
        0,
    );
    // Nobody is put on the list within a second of the removal.
    eventually("who goes on is put on the list", SOON, async || {
        refuse(&jetstream, "user1", [number + 1, number + 2]).await;
        number += 2;
        match entry(&jetstream, "user1").await {
            Some((_, value)) if value["by"] == "detector" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_removal_that_one_rule_respects_does_not_switch_another_off() {
    let (nats, jetstream) = nats().await;
    let settings = || {
        Settings::new()
            .nats(&nats)
            .set("IMPORTGUARD_LIST_BY", "alice")
    };
    let rules = "[{ id: three, refusals: 3, within: 1m, list: suspects, for: 10m }, \
                  { id: five, refusals: 5, within: 1s, list: suspects, for: 10m }]";
    let detector = Detector::start(rules, settings()).await;
    for change in ["add", "remove"] {
        let changed = settings().run(["list", change, "suspects", "user1"]).await;
        assert!(changed.status.success(), "{changed:?}");
    }
    refuse(&jetstream, "user1", 1..=3).await;
    let removed = "importguard_detector_detections_total{rule=\"three\",outcome=\"removed\"}";
    detector.counts(removed, 1.0).await;
    // Until the second rule no longer looks back to the removal, and five are published within a second.
    let mut first = 11;
    eventually("the second rule acts", SOON, async || {
        refuse(&jetstream, "user1", first..first + 5).await;
        first += 5;
        match entry(&jetstream, "user1").await {
            Some((_, value)) if value["reason"] == "five: 5 refusals within 1s" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn an_entry_lasts_longer_only_if_its_rule_says_so() {
    let (nats, jetstream) = nats().await;
    let rules = "[{ id: once, refusals: 2, within: 1m, list: suspects, for: 10m, only: { codes: [5003] } }, \
                  { id: again, refusals: 2, within: 1m, list: suspects, for: 10m, prolong: true, only: { codes: [5004] } }]";
    let detector = Detector::start(rules, Settings::new().nats(&nats)).await;
    refuse(&jetstream, "user1", 1..=2).await;
    let (revision, _) = entered(&jetstream, "user1").await;
    refuse(&jetstream, "user1", 3..=9).await;
    detector.counts(EVENTS, 9.0).await;
    assert_eq!(entry(&jetstream, "user1").await.unwrap().0, revision);
    for number in 11..=14 {
        // An entry ends in whole seconds.
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        let mut event = refusal(number, "user2", 0);
        event["data"]["refusal"]["code"] = 5004.into();
        publish(&jetstream, &event).await;
    }
    detector.counts(EVENTS, 13.0).await;
    assert_eq!(changes(&jetstream).await.len(), 3);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_writes_nothing() {
    let (nats, jetstream) = nats().await;
    refuse(&jetstream, "user1", 1..=5).await;
    refuse(&jetstream, "user2", 11..=12).await;
    let dir = TempDir::new().unwrap();
    let rules = dir.path().join("rules.yaml");
    std::fs::write(
        &rules,
        format!("apiVersion: importguard/v1\nrules: {THREE}\n"),
    )
    .unwrap();
    let rules = rules.display().to_string();
    let arguments = [
        "detect",
        "--rules",
        &rules,
        "--dry-run",
        "--since",
        "1h",
        "--no-follow",
    ];
    let (stdout, told) = printed(&Settings::new().nats(&nats).run(arguments).await, 0);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    for part in ["  suspects  user1  until ", "  three: 3 refusals within 1m"] {
        assert!(stdout.contains(part), "no {part} in {stdout}");
    }
    assert!(
        told.contains("dry run: 7 events read; 1 entry would have been made"),
        "{told}"
    );

    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let state = &stream.cached_info().state;
    assert_eq!(state.messages, 7);
    let bucket = jetstream.get_stream("KV_IMPORTGUARD_LISTS").await;
    assert!(bucket.is_err(), "it made a bucket");
    let durable = stream.get_consumer::<async_nats::jetstream::consumer::pull::Config>("detector");
    assert!(durable.await.is_err(), "it made a position");
}

#[tokio::test]
async fn wrong_rules_end_it_with_what_is_wrong_and_where() {
    let mut detector = Detector::spawn(
        "[{ id: three, refusal: 3, within: 60, list: suspects, for: 10m }]",
        Settings::new(),
    );
    assert_eq!(detector.exit(SOON).await.code(), Some(1));
    let told = detector.stderr();
    for part in [
        "detector.yaml:2:22: unknown key \"refusal\" in a rule",
        "did you mean \"refusals\"?",
        "within has no unit",
        "write for example 60s or 60m",
    ] {
        assert!(told.contains(part), "no {part} in {told}");
    }
    let mut detector = Detector::spawn(
        "[{ id: wide, differentFriends: 100000, within: 1h, list: suspects, for: 1h }]",
        Settings::new().set("IMPORTGUARD_DETECT_MEMORY", "1MiB"),
    );
    assert_eq!(detector.exit(SOON).await.code(), Some(1));
    let told = detector.stderr();
    let remedy = "set IMPORTGUARD_DETECT_MEMORY to at least 19MiB, or lower the thresholds";
    assert!(told.contains(remedy), "{told}");
    let missing = Settings::new().set("IMPORTGUARD_DETECT_RULES", "/nowhere.yaml");
    let (_, told) = printed(&missing.run(["detect"]).await, 1);
    assert!(
        told.contains("/nowhere.yaml: the file cannot be read from"),
        "{told}"
    );
}

/// The sample rules and the policy that goes with them.
#[tokio::test]
async fn a_hammering_owner_is_blocked_by_themselves() {
    let nats = NatsServer::start().await;
    let policy = workspace().join("policy/live.yaml");
    let rules = workspace().join("policy/detector.yaml");
    let settings = Settings::new()
        .nats(&nats)
        .set("IMPORTGUARD_POLICY", policy.display().to_string());
    let service = Service::all_in_one(settings).await;
    let caller = OpenIm::server(service.url());
    let settings = Settings::new().nats(&nats);
    let detector = Detector::start_with(&rules, settings).await;
    // Nobody is left of this import, twenty times.
    for number in 0..20 {
        let answer = caller
            .import(&format!("op-{number}"), "user123", &["bot_1"])
            .await;
        assert_eq!(crate::asserts::code(&answer), 5002, "{number}");
    }
    eventually("the owner is blocked", SOON, async || {
        let answer = caller.import("op-last", "user123", &["user456"]).await;
        match crate::asserts::code(&answer) {
            5005 => Ok(()),
            code => Err(code),
        }
    })
    .await;
    let other = caller.import("op-other", "user789", &["user456"]).await;
    assert_eq!(crate::asserts::code(&other), 0);
    // Who is trusted is an exception of the list.
    for number in 0..21 {
        caller
            .import(&format!("op-crm-{number}"), "svc_crm", &["bot_1"])
            .await;
    }
    let added = "importguard_detector_detections_total{rule=\"hammering\",outcome=\"added\"}";
    detector.counts(added, 2.0).await;
    let answer = caller.import("op-crm", "svc_crm", &["user456"]).await;
    assert_eq!(crate::asserts::code(&answer), 0);
}

/// `policy/live.yaml` is the sample policy and a live list.
#[test]
fn the_live_policy_decides_as_the_sample_does_while_nobody_is_a_suspect() {
    let read = |file: &str| std::fs::read_to_string(workspace().join("policy").join(file)).unwrap();
    let tests = read("policy.test.yaml").replace("policy: policy.yaml", "policy: live.yaml");
    let lists = read("lists/blocked.txt");
    let policy = PolicyDir::new(&read("policy.yaml"), &[("lists/blocked.txt", &lists)]);
    policy.write("live.yaml", &read("live.yaml"));
    policy.write("live.test.yaml", &tests);
    let mut command = Settings::new().command(importguard_tests::Binary::AllInOne.path());
    command.args(["policy", "test"]).arg(policy.dir());
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("live.test.yaml"), "{printed}");
}
