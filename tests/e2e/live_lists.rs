//! Live lists: commands write them, deciders follow them, whatever happens to NATS meanwhile.

mod busy;
mod commands;
mod credentials;
mod events;
mod imports;
mod reasons;
mod reloads;
mod restored;

use std::{fs, path::Path, time::SystemTime};

use async_nats::jetstream;
use importguard_tests::{
    DecideClient, NatsServer, OpenIm, PolicyDir, Proxy, SOON, Service, Settings, create_stream,
    eventually,
};
use serde_json::Value;
use tempfile::TempDir;

const STREAM: &str = "KV_IMPORTGUARD_LISTS";

/// Refuses owners on the live list `bad`.
const POLICY: &str = r"apiVersion: importguard/v1
name: live
lists:
  blocked: { live: bad }
rules:
  - id: blocked-owner
    refuseOwner: { in: blocked }
    refusal: { code: 5001, message: blocked }
";

fn policy() -> PolicyDir {
    PolicyDir::new(POLICY, &[])
}

/// A nats-server with the stream of events, as a gateway creates it.
async fn nats() -> NatsServer {
    with_events(NatsServer::not_started()).await
}

/// The same for each version of nats-server.
async fn nats_of_each_version() -> Vec<NatsServer> {
    let mut servers = Vec::new();
    for nats in NatsServer::of_each_version() {
        servers.push(with_events(nats).await);
    }
    servers
}

async fn with_events(mut nats: NatsServer) -> NatsServer {
    nats.restart().await;
    create_stream(nats.client().await, |_| ()).await;
    nats
}

/// The result of `importguard list …`.
struct Listed {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn list(nats: &NatsServer, arguments: &[&str]) -> Listed {
    let settings = Settings::new()
        .nats(nats)
        .set("IMPORTGUARD_LIST_BY", "alice");
    let output = settings.run(["list"].iter().chain(arguments)).await;
    Listed {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs `importguard list …`, which succeeds, and returns what it printed.
async fn listed(nats: &NatsServer, arguments: &[&str]) -> String {
    let listed = list(nats, arguments).await;
    assert_eq!(listed.code, Some(0), "{arguments:?}: {}", listed.stderr);
    listed.stdout
}

async fn refuses(decider: &Service, owner: &str) -> anyhow::Result<bool> {
    DecideClient::of(decider).refuses(owner).await
}

/// Waits until `decider` refuses each of `refused`, and none of `allowed`.
async fn decides(decider: &Service, refused: &[&str], allowed: &[&str]) {
    eventually("the decider has the entries", SOON, async || {
        for (owners, expected) in [(refused, true), (allowed, false)] {
            for owner in owners {
                anyhow::ensure!(
                    refuses(decider, owner).await? == expected,
                    "{owner}: {}",
                    readyz(decider).await
                );
            }
        }
        Ok(())
    })
    .await;
}

async fn readyz(decider: &Service) -> Value {
    let call = importguard_tests::Call::new(
        http::Method::GET,
        format!("http://{}/readyz", decider.admin_address()),
    );
    let response = importguard_tests::Client::default().send(call).await;
    serde_json::from_str(response.text()).unwrap()
}

async fn current(decider: &Service, expected: bool) {
    eventually(
        "the decider says whether its lists are current",
        SOON,
        async || {
            let ready = readyz(decider).await;
            anyhow::ensure!(ready["liveLists"]["current"] == expected, "{ready}");
            Ok(())
        },
    )
    .await;
}

/// Cuts the connection, and waits until the decider says so.
async fn is_cut_off(proxy: &Proxy, decider: &Service) {
    proxy.refuse().await;
    proxy.cut().await;
    current(decider, false).await;
}

async fn decider(nats_url: String, policy: &PolicyDir) -> Service {
    decider_of(nats_url, policy, "3s").await
}

/// One whose lists are current for so long after NATS has confirmed them.
async fn decider_of(nats_url: String, policy: &PolicyDir, max_age: &str) -> Service {
    let settings = Settings::new()
        .policy(policy)
        .set("NATS_URL", nats_url)
        .set("IMPORTGUARD_LISTS_MAX_AGE", max_age);
    Service::decider(settings).await
}

/// One that writes a snapshot to `directory`.
async fn with_snapshot(nats_url: String, policy: &PolicyDir, directory: &Path) -> Service {
    let settings = Settings::new()
        .policy(policy)
        .set("NATS_URL", nats_url)
        .set("IMPORTGUARD_LISTS_MAX_AGE", "2s")
        .set(
            "IMPORTGUARD_LISTS_SNAPSHOT",
            directory.display().to_string(),
        );
    Service::decider(settings).await
}

/// Waits until there is a snapshot in `directory`.
async fn is_written(directory: &Path) {
    let file = directory.join("live-lists.snapshot");
    eventually("the snapshot is written", SOON, async || {
        anyhow::ensure!(file.exists(), "no {}", file.display());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn every_decider_follows_what_is_added_and_removed() {
    let (nats, policy) = (nats().await, policy());
    let early = decider(nats.url(), &policy).await;
    current(&early, false).await;
    eventually("the decider says what is missing", SOON, async || {
        let missing = readyz(&early).await["liveLists"]["error"].to_string();
        anyhow::ensure!(missing.contains("importguard list create"), "{missing}");
        Ok(())
    })
    .await;
    let added = listed(
        &nats,
        &[
            "add",
            "bad",
            "u 1",
            "u2",
            "--because",
            "#4711",
            "--for",
            "7d",
        ],
    )
    .await;
    assert!(added.starts_with("bad: added u 1 until 20"), "{added}");
    let late = decider_of(nats.url(), &policy, "60s").await;
    // A decider is ready only when it has the lists.
    assert!(refuses(&late, "u 1").await.unwrap());
    for decider in [&early, &late] {
        decides(decider, &["u 1", "u2"], &["u3"]).await;
        current(decider, true).await;
    }
    let removed = list(&nats, &["remove", "bad", "u2", "u3"]).await;
    assert_eq!(removed.stdout, "bad: removed u2\nu3 is not on bad\n");
    assert_eq!(removed.code, Some(1));
    for decider in [&early, &late] {
        decides(decider, &["u 1"], &["u2", "u3"]).await;
        for series in [
            "importguard_live_list_entries{list=\"bad\"}",
            "importguard_live_lists_current",
        ] {
            decider.wait_for_metric(series, |found| found == 1.0).await;
        }
    }
}

#[tokio::test]
async fn a_list_that_changes_adds_no_series_to_a_gateways_metrics() {
    let (nats, policy) = (nats().await, policy());
    let decider = decider(nats.url(), &policy).await;
    let gateway = Service::gateway(Settings::new().nats(&nats).decider(&decider)).await;
    let server = OpenIm::server(gateway.url());
    for owner in ["u1", "u2"] {
        listed(&nats, &["add", "bad", owner]).await;
        decides(&decider, &[owner], &[]).await;
        server.import("op", owner, &["friend"]).await;
    }
    let metrics = gateway.admin("/metrics").await.unwrap();
    let policies = metrics.matches("importguard_policy_info{at=\"gateway\"");
    assert_eq!(policies.count(), 1, "{metrics}");
}

#[tokio::test]
async fn a_decider_that_was_away_catches_up_without_reading_all_lists_anew() {
    let (nats, policy) = (nats().await, policy());
    listed(&nats, &["add", "bad", "a", "b"]).await;
    let proxy = Proxy::to(nats.address()).await;
    let decider = decider(format!("nats://{}", proxy.address()), &policy).await;
    is_cut_off(&proxy, &decider).await;
    listed(&nats, &["add", "bad", "c"]).await;
    listed(&nats, &["remove", "bad", "a"]).await;
    // It goes on with what it has.
    decides(&decider, &["a", "b"], &["c"]).await;
    proxy.restore().await;
    decides(&decider, &["b", "c"], &["a"]).await;
    current(&decider, true).await;
    assert_eq!(
        decider
            .metric("importguard_live_lists_rereads_total")
            .await
            .unwrap(),
        0.0
    );
}

#[tokio::test]
async fn records_of_removals_that_were_purged_meanwhile_are_noticed() {
    for nats in nats_of_each_version().await {
        let policy = policy();
        listed(&nats, &["add", "bad", "a", "b", "c"]).await;
        let proxy = Proxy::to(nats.address()).await;
        let decider = decider(format!("nats://{}", proxy.address()), &policy).await;
        is_cut_off(&proxy, &decider).await;
        listed(&nats, &["remove", "bad", "a"]).await;
        let stream = jetstream::new(nats.client().await)
            .get_stream(STREAM)
            .await
            .unwrap();
        stream
            .purge()
            .filter("$KV.IMPORTGUARD_LISTS.bad.a")
            .await
            .unwrap();
        proxy.restore().await;
        decides(&decider, &["b", "c"], &["a"]).await;
        current(&decider, true).await;
        assert_eq!(
            decider
                .metric("importguard_live_lists_rereads_total")
                .await
                .unwrap(),
            1.0
        );
        // And so is one that is purged while the decider watches.
        stream
            .purge()
            .filter("$KV.IMPORTGUARD_LISTS.bad.b")
            .await
            .unwrap();
        decides(&decider, &["c"], &["a", "b"]).await;
        current(&decider, true).await;
    }
}

#[tokio::test]
async fn a_bucket_that_was_created_anew_is_read_anew() {
    for nats in nats_of_each_version().await {
        let policy = policy();
        listed(&nats, &["add", "bad", "a", "b", "c"]).await;
        let decider = decider(nats.url(), &policy).await;
        decides(&decider, &["a", "b", "c"], &[]).await;
        let jetstream = jetstream::new(nats.client().await);
        jetstream.delete_stream(STREAM).await.unwrap();
        listed(&nats, &["add", "bad", "d", "b", "e", "f"]).await;
        decides(&decider, &["d", "b", "e", "f"], &["a", "c"]).await;
        current(&decider, true).await;
    }
}

/// A decider with three entries, whose bucket is lost and created without any.
async fn that_lost_its_bucket(nats: &NatsServer, policy: &PolicyDir) -> Service {
    listed(nats, &["add", "bad", "a", "b", "c"]).await;
    let decider = decider(nats.url(), policy).await;
    decides(&decider, &["a", "b", "c"], &[]).await;
    let jetstream = jetstream::new(nats.client().await);
    jetstream.delete_stream(STREAM).await.unwrap();
    listed(nats, &["create"]).await;
    decider
        .wait_for_log(&["held back", "0 of the 3 entries in use"])
        .await;
    current(&decider, false).await;
    decides(&decider, &["a", "b", "c"], &[]).await;
    decider
}

#[tokio::test]
async fn a_bucket_that_was_lost_lets_nobody_in_until_most_entries_are_back() {
    for nats in nats_of_each_version().await {
        let policy = policy();
        let decider = that_lost_its_bucket(&nats, &policy).await;
        listed(&nats, &["add", "bad", "b"]).await;
        decides(&decider, &["a", "b", "c"], &[]).await;
        current(&decider, false).await;
        listed(&nats, &["add", "bad", "d"]).await;
        decides(&decider, &["b", "d"], &["a", "c"]).await;
        current(&decider, true).await;
    }
}

#[tokio::test]
async fn a_list_that_is_still_lost_holds_back_one_that_is_there_again() {
    let nats = nats().await;
    let two = POLICY.replace(
        "rules:\n",
        "  suspects: { live: suspects }\nrules:\n  - id: suspect\n    refuseOwner: { in: suspects }\n    refusal: { code: 5002, message: suspect }\n",
    );
    let policy = PolicyDir::new(&two, &[]);
    let suspects = ["s1", "s2", "s3", "s4", "s5", "s6"];
    listed(&nats, &["add", "bad", "a", "b"]).await;
    let add_suspects = [&["add", "suspects"], &suspects[..]].concat();
    listed(&nats, &add_suspects).await;
    let decider = decider(nats.url(), &policy).await;
    decides(&decider, &["a", "s1"], &[]).await;
    let jetstream = jetstream::new(nats.client().await);
    jetstream.delete_stream(STREAM).await.unwrap();
    listed(&nats, &add_suspects).await;
    let lost = "the bucket has 0 of the 2 entries in use of bad:";
    decider.wait_for_log(&["held back", lost]).await;
    current(&decider, false).await;
    decides(&decider, &["a", "b", "s1"], &[]).await;
    listed(&nats, &["add", "bad", "b"]).await;
    decides(&decider, &["b", "s1"], &["a"]).await;
    current(&decider, true).await;
}

#[tokio::test]
async fn or_until_sighup_confirms_the_loss() {
    let (nats, policy) = (nats().await, policy());
    let decider = that_lost_its_bucket(&nats, &policy).await;
    decider.sighup();
    decides(&decider, &[], &["a", "b", "c"]).await;
    current(&decider, true).await;
    let entries = "importguard_live_list_entries{list=\"bad\"}";
    assert_eq!(decider.metric(entries).await.unwrap(), 0.0);
}

#[tokio::test]
async fn a_decider_starts_with_its_snapshot_while_nats_is_away_and_says_how_old_it_is() {
    let (mut nats, policy, directory) = (nats().await, policy(), TempDir::new().unwrap());
    listed(&nats, &["add", "bad", "a"]).await;
    let directory = directory.path().join("lists");
    let mut decider = with_snapshot(nats.url(), &policy, &directory).await;
    decides(&decider, &["a"], &[]).await;
    is_written(&directory).await;
    nats.kill9();
    decider.kill9();
    decider.restart().await;
    assert!(refuses(&decider, "a").await.unwrap());
    let ready = readyz(&decider).await;
    assert_eq!(ready["liveLists"]["current"], false, "{ready}");
    assert!(
        ready["liveLists"]["ageSeconds"].as_u64().is_some(),
        "{ready}"
    );
    nats.restart().await;
    listed(&nats, &["add", "bad", "b"]).await;
    decides(&decider, &["a", "b"], &[]).await;
    current(&decider, true).await;
    assert_eq!(
        decider
            .metric("importguard_live_lists_rereads_total")
            .await
            .unwrap(),
        0.0
    );
}

#[tokio::test]
async fn the_snapshot_is_written_again_after_changes() {
    let (mut nats, policy, directory) = (nats().await, policy(), TempDir::new().unwrap());
    listed(&nats, &["add", "bad", "a"]).await;
    let mut decider = with_snapshot(nats.url(), &policy, directory.path()).await;
    is_written(directory.path()).await;
    let file = directory.path().join("live-lists.snapshot");
    let first = fs::read(&file).unwrap();
    listed(&nats, &["add", "bad", "b"]).await;
    // A snapshot is written once a minute at most.
    eventually("it is written again", 3 * SOON, async || {
        anyhow::ensure!(fs::read(&file)? != first, "it is the first one");
        Ok(())
    })
    .await;
    nats.kill9();
    decider.kill9();
    decider.restart().await;
    assert!(refuses(&decider, "b").await.unwrap());
}

#[tokio::test]
async fn a_decider_whose_lists_are_not_current_is_not_ready_if_the_operator_says_so() {
    let (nats, policy) = (nats().await, policy());
    listed(&nats, &["add", "bad", "a"]).await;
    let settings = Settings::new()
        .policy(&policy)
        .nats(&nats)
        .set("IMPORTGUARD_LISTS_MAX_AGE", "2s")
        .set("IMPORTGUARD_ON_STALE_LISTS", "not-ready");
    let decider = Service::decider(settings).await;
    nats.freeze().await;
    eventually("the decider is not ready", SOON, async || {
        let ready = readyz(&decider).await;
        anyhow::ensure!(ready["ready"] == false, "{ready}");
        Ok(())
    })
    .await;
    decider
        .wait_for_log(&["not serving", "IMPORTGUARD_ON_STALE_LISTS"])
        .await;
    nats.thaw();
    eventually("the decider is ready again", SOON, async || {
        decider.admin("/readyz").await
    })
    .await;
    decider.wait_for_log(&["serving again"]).await;
}

#[tokio::test]
async fn an_entry_expires_to_the_second() {
    for nats in nats_of_each_version().await {
        let policy = policy();
        let decider = decider(nats.url(), &policy).await;
        let added = listed(&nats, &["add", "bad", "a", "--for", "20s", "--json"]).await;
        let added: Value = serde_json::from_str(&added).unwrap();
        let until: SystemTime = humantime::parse_rfc3339(added["until"].as_str().unwrap()).unwrap();
        decides(&decider, &["a"], &[]).await;
        loop {
            let before = SystemTime::now();
            let refused = refuses(&decider, "a").await.unwrap();
            let after = SystemTime::now();
            if refused {
                assert!(before < until, "refused after its end");
            } else {
                assert!(after >= until, "allowed before its end");
                break;
            }
        }
        // Whoever asks for it no longer finds it.
        let shown = list(&nats, &["show", "bad", "a"]).await;
        assert_eq!(
            (shown.code, shown.stderr.contains("is not on bad")),
            (Some(1), true)
        );
    }
}
