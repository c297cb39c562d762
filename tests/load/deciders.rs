//! Several deciders: every import gets its verdict as long as one of them is available.

mod retries;

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::ensure;
use importguard_core::Dialect;
use importguard_tests::{
    FixedDecider, Http2Connection, NatsServer, OpenIm, Reading, SOON, Service, Settings, Traffic,
    TrafficReport, eventually, load, stored, wait_for_count,
};
use serde_json::Value;

use crate::{
    asserts,
    chaos::{LEAST_RATE, alone, of_every_verdict, quiet},
};

/// [`budgeted`]'s, and more than a busy machine takes for an answer.
const BUDGET: Duration = Duration::from_secs(20);

fn budgeted() -> Settings {
    Settings::new()
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "2s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "20s")
}

const NAMES: [&str; 3] = ["d0", "d1", "d2"];

/// A gateway that knows three deciders.
struct Three {
    gateway: Service,
    deciders: Vec<Service>,
    nats: NatsServer,
}

impl Three {
    async fn start(settings: Settings) -> Self {
        let nats = NatsServer::start().await;
        let mut deciders = Vec::new();
        for name in NAMES {
            let settings = settings.clone().set("IMPORTGUARD_DECIDER_INSTANCE", name);
            deciders.push(Service::decider(settings).await);
        }
        let urls: Vec<_> = deciders.iter().map(Service::grpc_url).collect();
        let settings = settings
            .nats(&nats)
            .or_set("IMPORTGUARD_DECIDER_URL", || urls.join(","));
        let gateway = Service::gateway(settings).await;
        let three = Self {
            gateway,
            deciders,
            nats,
        };
        three.until_usable(3).await;
        three
    }

    fn server(&self) -> OpenIm {
        OpenIm::server(self.gateway.url())
    }

    fn traffic(&self) -> Traffic {
        Traffic::start(&self.server(), "op", of_every_verdict)
    }

    async fn until_usable(&self, usable: u64) {
        until(&self.gateway, 3, usable).await;
    }

    /// Who decided what was recorded last.
    async fn deciders_of_the_last(&self, count: usize) -> HashSet<String> {
        let events = stored(&self.nats).await;
        let last = events.iter().rev().take(count);
        last.filter_map(|event| event.decision().data.decider.as_ref())
            .map(ToString::to_string)
            .collect()
    }
}

/// What `/readyz` says about deciders.
async fn standing(gateway: &Service) -> anyhow::Result<Value> {
    let readiness: Value = serde_json::from_str(&gateway.admin("/readyz").await?)?;
    Ok(readiness["deciders"].clone())
}

/// Waits until the gateway knows so many deciders and can use so many.
async fn until(gateway: &Service, known: u64, usable: u64) {
    let what = format!("of {known} deciders {usable} are usable");
    eventually(&what, SOON, async || {
        let standing = standing(gateway).await?;
        ensure!(
            standing["known"] == known && standing["usable"] == usable,
            "{standing}"
        );
        for (state, count) in [("known", known), ("usable", usable)] {
            let metric = format!("importguard_deciders{{state=\"{state}\"}}");
            let found = gateway.metric(&metric).await?;
            ensure!(found == count as f64, "{metric} {found}");
        }
        Ok(())
    })
    .await;
}

/// Everybody who asked got the policy's own verdict.
#[track_caller]
pub(crate) fn all_decided(asked: &TrafficReport) {
    for (id, answer) in &asked.answers {
        let answer = answer
            .as_ref()
            .unwrap_or_else(|| panic!("{id} got no answer"));
        let number: usize = id.trim_start_matches("op-").parse().unwrap();
        let kept = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        match (number % 4, asserts::reading(Dialect::Server, answer)) {
            (0, Reading::Imports { instead: None }) => {}
            (1, Reading::Imports { instead }) if instead == kept(&["b", "c"]) => {}
            (2, Reading::Refuses { code: 5002, .. }) | (3, Reading::Refuses { code: 5001, .. }) => {
            }
            (_, other) => panic!("{id} was answered {other:?}"),
        }
    }
    let rate = asked.rate();
    assert!(rate > LEAST_RATE, "only {rate:.0} answers a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_load_is_spread_over_all() {
    const REQUESTS: usize = 300;
    let three = Three::start(quiet()).await;
    let server = three.server();
    let answers = load(REQUESTS, 8, async |number| {
        server.import(&format!("op-{number}"), "a", &["b"]).await
    })
    .await;
    for answer in answers {
        asserts::allows(Dialect::Server, &answer);
    }
    let mut counts = HashMap::new();
    for event in wait_for_count(&three.nats, REQUESTS).await {
        let decider = event.decision().data.decider.clone().unwrap();
        *counts.entry(decider.to_string()).or_insert(0) += 1;
    }
    for name in NAMES {
        let count = counts.get(name).copied().unwrap_or(0);
        assert!(count > REQUESTS / 5, "{counts:?}");
    }
}

#[tokio::test]
async fn a_slow_one_holds_up_some_callers_only() {
    const CALLERS: usize = 16;
    const REQUESTS: usize = 300;
    // None of its responses arrives before the end of the test.
    let (slow, slow_url) = FixedDecider::allowing_after(Duration::from_secs(600)).await;
    let (fast, fast_url) = FixedDecider::allowing_after(Duration::ZERO).await;
    let nats = NatsServer::start().await;
    let settings = Settings::new()
        .nats(&nats)
        .set("IMPORTGUARD_REQUEST_BUDGET", "10m")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "5m")
        .set("IMPORTGUARD_DECIDER_RETRY_AFTER", "5m")
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h")
        .set("IMPORTGUARD_DECIDER_URL", format!("{slow_url},{fast_url}"));
    let gateway = Service::gateway(settings).await;
    until(&gateway, 2, 2).await;
    let server = OpenIm::server(gateway.url());
    let callers = load(CALLERS, CALLERS, async |caller| {
        for number in 0.. {
            let id = format!("op-{caller}-{number}");
            asserts::allows(Dialect::Server, &server.import(&id, "a", &["b"]).await);
        }
    });
    // With the same number of requests for each, all callers would soon wait for the slow one.
    let decided = eventually("the fast one decides", SOON, async || {
        let (slow, fast) = (slow.asked(), fast.asked());
        ensure!(fast >= REQUESTS, "{slow} and {fast}");
        Ok(())
    });
    tokio::select! {
        _ = callers => unreachable!("callers never end"),
        () = decided => {}
    }
    assert!(slow.asked() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_killed_and_comes_back_and_no_verdict_fails() {
    let _turn = alone().await;
    let mut three = Three::start(quiet()).await;
    let traffic = three.traffic();
    for victim in 0..3 {
        traffic.answers(150).await;
        three.deciders[victim].kill9();
        three.until_usable(2).await;
        traffic.answers(150).await;
        three.deciders[victim].restart().await;
        three.until_usable(3).await;
    }
    traffic.answers(150).await;
    all_decided(&traffic.stop().await);
    assert_eq!(three.deciders_of_the_last(100).await.len(), 3);
    three.gateway.wait_for_log(&["unavailable: "]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stands_still_and_goes_on_and_no_verdict_fails() {
    let _turn = alone().await;
    let three = Three::start(quiet()).await;
    let traffic = three.traffic();
    traffic.answers(150).await;
    three.deciders[1].freeze().await;
    three.until_usable(2).await;
    traffic.answers(300).await;
    three.deciders[1].thaw();
    three.until_usable(3).await;
    traffic.answers(150).await;
    all_decided(&traffic.stop().await);
    assert_eq!(three.deciders_of_the_last(100).await.len(), 3);
    let silent = "importguard_decider_retries_total{reason=\"silent\"}";
    assert!(three.gateway.metric(silent).await.unwrap() > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_killed_while_another_stands_still_and_no_verdict_fails() {
    let _turn = alone().await;
    let mut three = Three::start(quiet()).await;
    let traffic = three.traffic();
    traffic.answers(150).await;
    three.deciders[0].kill9();
    three.deciders[1].freeze().await;
    three.until_usable(1).await;
    traffic.answers(300).await;
    three.deciders[0].restart().await;
    three.deciders[1].thaw();
    three.until_usable(3).await;
    traffic.answers(150).await;
    all_decided(&traffic.stop().await);
    assert_eq!(three.deciders_of_the_last(100).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_grow_old_and_no_verdict_fails() {
    let _turn = alone().await;
    let age = "IMPORTGUARD_DECIDER_MAX_CONNECTION_AGE";
    let decider = Service::decider(quiet().set(age, "300ms")).await;
    let gateway = Service::gateway(quiet().decider(&decider)).await;
    until(&gateway, 1, 1).await;
    let mut connection = Http2Connection::open(&decider.grpc_url().replace("http://", "")).await;
    let traffic = Traffic::start(&OpenIm::server(gateway.url()), "op", of_every_verdict);
    connection.is_told_to_leave().await;
    traffic.answers(400).await;
    all_decided(&traffic.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_restarted_one_after_another_and_no_verdict_fails() {
    let _turn = alone().await;
    let mut three = Three::start(quiet()).await;
    let traffic = three.traffic();
    traffic.answers(100).await;
    for decider in &mut three.deciders {
        let status = decider.terminate(SOON).await;
        assert!(status.success(), "{status}");
        decider.restart().await;
        until(&three.gateway, 3, 3).await;
    }
    traffic.answers(150).await;
    all_decided(&traffic.stop().await);
    assert_eq!(three.deciders_of_the_last(100).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_about_to_end_is_left_before_it_takes_no_more_calls() {
    let _turn = alone().await;
    // A busy gateway has time to find out.
    let settings = quiet()
        .set("IMPORTGUARD_DECIDER_SHUTDOWN_GRACE", "20s")
        .set("IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT", "40s");
    let mut three = Three::start(settings).await;
    let traffic = three.traffic();
    traffic.answers(100).await;
    three.deciders[0].sigterm();
    three.until_usable(2).await;
    assert_eq!(three.deciders[0].ended(), None, "it ended at once");
    assert!(three.deciders[0].exit(SOON).await.success());
    traffic.answers(100).await;
    all_decided(&traffic.stop().await);
    let unavailable = "importguard_decider_retries_total{reason=\"unavailable\"}";
    assert_eq!(three.gateway.metric(unavailable).await.unwrap(), 0.0);
}

#[tokio::test]
async fn where_nobody_is_left_the_fallback_answers_and_the_gateway_stays_ready() {
    let mut three = Three::start(budgeted().set("IMPORTGUARD_DECIDER_TIMEOUT", "10s")).await;
    for decider in &mut three.deciders {
        decider.kill9();
    }
    three.until_usable(0).await;
    let began = Instant::now();
    let answer = three.server().import("op", "a", &["b"]).await;
    asserts::refuses(Dialect::Server, &answer, 200, 5910);
    assert!(began.elapsed() < BUDGET, "{:?}", began.elapsed());
    three.deciders[2].restart().await;
    three.until_usable(1).await;
    let answer = three.server().import("op", "a", &["b"]).await;
    asserts::allows(Dialect::Server, &answer);
}

#[tokio::test]
async fn where_all_stand_still_they_are_given_up_in_time() {
    let three = Three::start(budgeted()).await;
    for decider in &three.deciders {
        decider.freeze().await;
    }
    let began = Instant::now();
    let answer = three.server().import("op", "a", &["b"]).await;
    asserts::refuses(Dialect::Server, &answer, 200, 5911);
    assert!(began.elapsed() < BUDGET, "{:?}", began.elapsed());
}

#[tokio::test]
async fn all_addresses_of_a_name_are_asked() {
    let first = Service::decider(Settings::new().set("IMPORTGUARD_DECIDER_INSTANCE", "v4")).await;
    let port = first.grpc_url().rsplit(':').next().unwrap().to_owned();
    let url = format!("http://localhost:{port}");
    let nats = NatsServer::start().await;
    let gateway = Service::gateway(
        Settings::new()
            .nats(&nats)
            .set("IMPORTGUARD_DECIDER_URL", url),
    )
    .await;
    let known = tokio::net::lookup_host(format!("localhost:{port}"))
        .await
        .unwrap()
        .collect::<HashSet<_>>()
        .len() as u64;
    until(&gateway, known, 1).await;
    let server = OpenIm::server(gateway.url());
    for _ in 0..10 {
        asserts::allows(Dialect::Server, &server.import("op", "a", &["b"]).await);
    }
}
