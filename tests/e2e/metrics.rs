//! What Prometheus scrapes from both pods, and what the handbook says about it.

use std::{collections::BTreeSet, fs};

use http::Method;
use importguard_tests::{
    Backend, Call, Client, Line, MountedSecret, OpenIm, Service, Settings, wait_for_count,
    workspace,
};

const TOKEN: &str = "a-token-that-is-long-enough-for-anybody";

/// The families of a scrape, by their HELP lines; each must have a TYPE and a help text that is a sentence.
fn families(scraped: &str) -> BTreeSet<String> {
    let families = scraped.lines().filter_map(|line| {
        let (name, help) = line.strip_prefix("# HELP ")?.split_once(' ')?;
        assert!(
            help.ends_with('.'),
            "{name} has no sentence for a help text: {help}"
        );
        assert!(
            scraped.contains(&format!("# TYPE {name} ")),
            "{name} has no type"
        );
        Some(name.to_owned())
    });
    families.collect()
}

/// The families in the tables under "## Metrics": the first column, in backticks.
fn documented() -> BTreeSet<String> {
    let handbook = fs::read_to_string(workspace().join("docs/operations.md")).unwrap();
    let (_, metrics) = handbook.split_once("\n## Metrics\n").unwrap();
    let (metrics, _) = metrics.split_once("\n## ").unwrap();
    let cells = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('|').next());
    let names = cells.flat_map(|cell| cell.split('`').map(str::to_owned).collect::<Vec<_>>());
    names
        .filter(|name| {
            name.contains('_') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
        .collect()
}

#[track_caller]
fn has(scraped: &str, line: &str) {
    assert!(
        scraped.lines().any(|found| found.starts_with(line)),
        "no {line} in {scraped}"
    );
}

#[tokio::test]
async fn every_family_scraped_is_in_the_handbook_and_every_one_in_it_is_scraped() {
    let backend = Backend::start().await;
    let secret = MountedSecret::new(&[("tokens", TOKEN)]);
    let settings = Settings::new()
        .set(
            "IMPORTGUARD_UPSTREAM",
            format!("http://{}", backend.address()),
        )
        .set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"));
    let line = Line::with(settings).await;
    let server = line.server();
    let token = format!("Bearer {TOKEN}");
    let decided = server.before_import("op", "user123", &["user456", "bot_7"]);
    server
        .send(decided.header("Authorization", token.clone()))
        .await;
    let rejected = server.before_import("op", "user123", &["user456"]);
    server.send(rejected).await;
    let elsewhere = line.gateway.url() + "/callbackBeforeAddFriendCommand";
    let elsewhere = Call::new(Method::POST, elsewhere).header("Authorization", token);
    Client::default().send(elsewhere).await;
    let gateway = line.gateway.admin("/metrics").await.unwrap();
    let decider = line.decider.admin("/metrics").await.unwrap();
    let scraped = &families(&gateway) | &families(&decider);
    let documented = documented();
    assert!(documented.len() > 30, "{documented:?}");
    assert_eq!(
        &scraped - &documented,
        BTreeSet::new(),
        "not in the handbook"
    );
    assert_eq!(&documented - &scraped, BTreeSet::new(), "not scraped");
}

#[tokio::test]
async fn a_callback_is_counted_by_both_pods() {
    let line = Line::start().await;
    line.server()
        .import("op-counted", "user123", &["user456", "bot_7"])
        .await;
    wait_for_count(&line.nats, 1).await;
    let gateway = line.gateway.admin("/metrics").await.unwrap();
    for counted in [
        "importguard_decisions_total{cause=\"\",verdict=\"modify\"} 1",
        "importguard_rules_fired_total{mode=\"enforce\",outcome=\"remove\",rule=\"blocked-friends\"} 1",
        "importguard_callback_duration_seconds_count{route=\"callbackBeforeImportFriendsCommand\",status=\"200\"} 1",
        "importguard_decider_call_duration_seconds_count{result=\"ok\"} 1",
        "importguard_policy_info{at=\"gateway\",digest=\"sha256:",
    ] {
        has(&gateway, counted);
    }
    let decider = line.decider.admin("/metrics").await.unwrap();
    for counted in [
        "importguard_decider_decisions_total{verdict=\"modify\"} 1",
        "importguard_decider_evaluation_seconds_count 1",
        "importguard_policy_info{at=\"decider\",digest=\"sha256:",
        "importguard_policy_reloads_total{result=\"ok\"} 1",
    ] {
        has(&decider, counted);
    }
    for scraped in [gateway, decider] {
        has(&scraped, "importguard_build_info{");
        for user in ["op-counted", "user123", "user456", "bot_7"] {
            assert!(!scraped.contains(user), "{user} in {scraped}");
        }
    }
}

#[tokio::test]
async fn a_fallback_is_counted_by_its_cause() {
    let gateway = Service::gateway(Settings::new()).await;
    let server = OpenIm::server(gateway.url());
    server.import("op", "user123", &["user456"]).await;
    let scraped = gateway.admin("/metrics").await.unwrap();
    for counted in [
        "importguard_decisions_total{cause=\"deciderUnavailable\",verdict=\"refuse\"} 1",
        "importguard_decider_call_duration_seconds_count{result=\"deciderUnavailable\"} 1",
        "importguard_decider_call_duration_seconds_count{result=\"ok\"} 0",
    ] {
        has(&scraped, counted);
    }
}

#[tokio::test]
async fn in_one_process_there_is_one_page_with_both() {
    let service = Service::all_in_one(Settings::new()).await;
    let scraped = service.admin("/metrics").await.unwrap();
    for name in [
        "importguard_decisions_total",
        "importguard_decider_decisions_total",
    ] {
        assert!(families(&scraped).contains(name), "no {name} in {scraped}");
    }
    has(&scraped, "importguard_policy_info{at=\"decider\"");
}
