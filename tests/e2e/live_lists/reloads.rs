//! What a decider answers while its live lists are not known: as its last policy says, or not at all.

use async_nats::jetstream;
use importguard_core::Dialect::Server;
use importguard_tests::{
    Binary, NatsServer, OpenIm, PolicyDir, Proxy, SOON, Service, Settings, eventually,
};

use super::{POLICY, STREAM, current, decides, listed, nats, policy, readyz, refuses};
use crate::asserts;

/// The same policy with the entries in the file.
const STATIC: &str = r"apiVersion: importguard/v1
name: static
lists:
  blocked: { values: [bad] }
rules:
  - id: blocked-owner
    refuseOwner: { in: blocked }
    refusal: { code: 5001, message: blocked }
";

#[tokio::test]
async fn a_policy_is_activated_when_its_live_lists_have_been_read() {
    let mut nats = nats().await;
    listed(&nats, &["add", "bad", "bad"]).await;
    nats.kill9();
    let policy = PolicyDir::new(STATIC, &[]);
    let settings = Settings::new()
        .policy(&policy)
        .nats(&nats)
        .set("IMPORTGUARD_LISTS_MAX_AGE", "1s");
    let decider = Service::decider(settings).await;
    assert!(refuses(&decider, "bad").await.unwrap());
    policy.write("policy.yaml", POLICY);
    decider
        .wait_for_log(&["live lists have not been read", "unreachable"])
        .await;
    assert!(refuses(&decider, "bad").await.unwrap());
    let ready = readyz(&decider).await;
    assert_eq!(ready["policy"]["name"], "static", "{ready}");
    assert!(ready["policy"]["error"].is_object(), "{ready}");
    nats.restart().await;
    eventually("the new policy is active", SOON, async || {
        let refused = refuses(&decider, "bad").await?;
        assert!(refused, "nobody was on the list for a while");
        let ready = readyz(&decider).await;
        anyhow::ensure!(ready["policy"]["name"] == "live", "{ready}");
        anyhow::ensure!(ready["policy"]["error"].is_null(), "{ready}");
        Ok(())
    })
    .await;
    assert!(refuses(&decider, "bad").await.unwrap());
}

#[tokio::test]
async fn sighup_activates_it_all_the_same() {
    let policy = PolicyDir::new(STATIC, &[]);
    let settings = Settings::new()
        .policy(&policy)
        .nats(&NatsServer::not_started())
        .set("IMPORTGUARD_LISTS_MAX_AGE", "1s");
    let decider = Service::decider(settings).await;
    policy.write("policy.yaml", POLICY);
    decider
        .wait_for_log(&["live lists have not been read"])
        .await;
    decider.sighup();
    decides(&decider, &[], &["bad"]).await;
}

#[tokio::test]
async fn sighup_confirms_no_loss_of_a_list_without_naming_live_lists_that_are_not_read() {
    let trusted: String = (0..20).map(|number| format!("user{number}\n")).collect();
    let files = STATIC.replace("rules:", "  trusted: { file: trusted.txt }\nrules:");
    let policy = PolicyDir::new(&files, &[("trusted.txt", &trusted)]);
    let settings = Settings::new()
        .policy(&policy)
        .nats(&NatsServer::not_started())
        .set("IMPORTGUARD_LISTS_MAX_AGE", "1s");
    let decider = Service::decider(settings).await;
    policy.write("trusted.txt", "user1\n");
    decider.wait_for_log(&["trusted", "is held back"]).await;
    let live = files.replace("{ values: [bad] }", "{ live: bad }");
    policy.write("policy.yaml", &live);
    decider
        .wait_for_log(&["errors=2", "live lists have not been read"])
        .await;
    decides(&decider, &["bad"], &[]).await;
    decider.sighup();
    decides(&decider, &[], &["bad"]).await;
}

#[tokio::test]
async fn a_list_that_is_lost_while_no_policy_names_it_is_held_back_for_the_next_one() {
    let (nats, policy) = (nats().await, policy());
    listed(&nats, &["add", "bad", "a", "b", "c"]).await;
    let settings = Settings::new().policy(&policy).nats(&nats);
    let decider = Service::decider(settings).await;
    decides(&decider, &["a"], &[]).await;
    policy.write("policy.yaml", STATIC);
    decides(&decider, &["bad"], &["a"]).await;
    let jetstream = jetstream::new(nats.client().await);
    jetstream.delete_stream(STREAM).await.unwrap();
    listed(&nats, &["create"]).await;
    let lost = "0 of the 3 entries in use of bad";
    decider.wait_for_log(&["held back", lost]).await;
    policy.write("policy.yaml", POLICY);
    decides(&decider, &["a", "b", "c"], &["bad"]).await;
    current(&decider, false).await;
}

#[tokio::test]
async fn a_change_that_brings_no_other_live_list_does_not_wait_for_them() {
    let policy = policy();
    let settings = Settings::new()
        .policy(&policy)
        .nats(&NatsServer::not_started())
        .set("IMPORTGUARD_LISTS_MAX_AGE", "1s");
    let decider = Service::decider(settings).await;
    let urgent = POLICY.replace("in: blocked", "in: blocked, prefixes: [\"evil_\"]");
    policy.write("policy.yaml", &urgent);
    decides(&decider, &["evil_1"], &["bad"]).await;
    let ready = readyz(&decider).await;
    assert!(ready["policy"]["error"].is_null(), "{ready}");
    let held_back = "importguard_policy_held_back";
    assert_eq!(decider.metric(held_back).await.unwrap(), 0.0);
    // Nobody would be on that one.
    policy.write("policy.yaml", &POLICY.replace("live: bad", "live: worse"));
    decider
        .wait_for_log(&["live lists have not been read"])
        .await;
    decides(&decider, &["evil_1"], &[]).await;
}

#[tokio::test]
async fn that_nats_is_away_is_not_said_to_be_the_file_systems_fault() {
    let policy = PolicyDir::new(STATIC, &[]);
    let settings = Settings::new()
        .policy(&policy)
        .nats(&NatsServer::not_started())
        .set("IMPORTGUARD_LISTS_MAX_AGE", "10m");
    let decider = Service::decider(settings).await;
    policy.write("policy.yaml", POLICY);
    let log = decider
        .wait_for_log(&["live lists have not been read"])
        .await;
    assert!(!log.contains("regular files"), "{log}");
}

/// Waits until `gateway` considers so many deciders usable.
async fn usable(gateway: &Service, deciders: f64) {
    gateway
        .wait_for_metric("importguard_deciders{state=\"usable\"}", |usable| {
            usable == deciders
        })
        .await;
}

#[tokio::test]
async fn a_decider_that_is_not_ready_gets_no_requests_until_its_lists_are_current() {
    let (nats, policy) = (nats().await, policy());
    listed(&nats, &["add", "bad", "a"]).await;
    let proxy = Proxy::to(nats.url().trim_start_matches("nats://")).await;
    let settings = Settings::new()
        .policy(&policy)
        .set("IMPORTGUARD_LISTS_MAX_AGE", "2s")
        .set("IMPORTGUARD_ON_STALE_LISTS", "not-ready");
    let cut = settings
        .clone()
        .set("NATS_URL", format!("nats://{}", proxy.address()));
    let cut = Service::decider(cut).await;
    let other = Service::decider(settings.nats(&nats)).await;
    let urls = [cut.grpc_url(), other.grpc_url()].join(",");
    let gateway = Settings::new()
        .nats(&nats)
        .set("IMPORTGUARD_DECIDER_URL", urls);
    let gateway = Service::gateway(gateway).await;
    usable(&gateway, 2.0).await;
    proxy.stall();
    usable(&gateway, 1.0).await;
    // So many friends are sent to one decider only.
    let friends: Vec<_> = (0..2_000).map(|number| format!("f{number}")).collect();
    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
    let server = OpenIm::server(gateway.url());
    for number in 0..4 {
        let answer = server.import(&format!("op{number}"), "b", &friends).await;
        asserts::allows(Server, &answer);
    }
    proxy.restore().await;
    usable(&gateway, 2.0).await;
}

#[tokio::test]
async fn a_decider_that_starts_without_current_lists_gets_requests_when_it_has_them() {
    let (mut nats, policy) = (nats().await, policy());
    listed(&nats, &["add", "bad", "a"]).await;
    nats.kill9();
    let settings = Settings::new()
        .policy(&policy)
        .set("IMPORTGUARD_LISTS_MAX_AGE", "1s")
        .set("IMPORTGUARD_ON_STALE_LISTS", "not-ready")
        .nats(&nats);
    let decider = Service::spawn(Binary::Decider, settings.clone());
    decider.wait_for_log(&["is listening"]).await;
    let gateway = Service::gateway(settings.decider(&decider)).await;
    gateway.wait_for_log(&["NOT_SERVING"]).await;
    usable(&gateway, 0.0).await;
    nats.restart().await;
    usable(&gateway, 1.0).await;
    let answer = OpenIm::server(gateway.url())
        .import("op", "a", &["b"])
        .await;
    asserts::refuses(Server, &answer, 200, 5001);
}

#[tokio::test]
async fn a_decider_that_is_not_ready_decides_nothing_if_the_operator_says_so() {
    let policy = policy();
    let settings = Settings::new()
        .policy(&policy)
        .set("IMPORTGUARD_LISTS_MAX_AGE", "1s")
        .set("IMPORTGUARD_ON_STALE_LISTS", "not-ready")
        .nats(&NatsServer::not_started());
    let decider = Service::spawn(Binary::Decider, settings.clone());
    decider.wait_for_log(&["is listening"]).await;
    let gateway = Service::gateway(settings.decider(&decider)).await;
    let server = OpenIm::server(gateway.url());
    eventually("callbacks are refused", SOON, async || {
        let answer = server.import("op", "user1", &["user2"]).await;
        match asserts::code(&answer) {
            5910 => Ok(()),
            code => Err(code),
        }
    })
    .await;
    let answer = server.import("op-later", "user1", &["user2"]).await;
    asserts::refuses(Server, &answer, 200, 5910);
    let refused = "importguard_decider_request_duration_seconds_count{result=\"UNAVAILABLE\"}";
    assert!(decider.metric(refused).await.unwrap() >= 1.0);
}
