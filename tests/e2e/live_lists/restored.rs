//! Deciders notice that the bucket is another one, or has another history, than the one they know.

use std::{path::Path, time::Duration};

use async_nats::{
    Client,
    jetstream::{self, stream::Config},
};
use bytes::Bytes;
use futures_util::StreamExt;
use importguard_tests::{NatsCluster, NatsServer, PolicyDir, Proxy, SOON, Service, eventually};
use serde_json::{Value, json};

use super::{
    STREAM, current, decider, decides, is_cut_off, listed, nats_of_each_version, policy, refuses,
};

const REREADS: &str = "importguard_live_lists_rereads_total";

/// Writes values at keys, one after the other, and nothing else.
async fn put(nats: &NatsServer, values: &[(&str, &str)]) {
    let jetstream = jetstream::new(nats.client().await);
    for (key, value) in values {
        let subject = format!("$KV.IMPORTGUARD_LISTS.{key}");
        let sent = jetstream.publish(subject, (*value).to_owned().into()).await;
        sent.unwrap().await.unwrap();
    }
}

/// A bucket with `a` and `b`.
async fn has_a_and_b(nats: &NatsServer) {
    listed(nats, &["create"]).await;
    put(nats, &[("bad.a", ""), ("bad.b", "")]).await;
}

async fn revision(nats: &NatsServer) -> u64 {
    let jetstream = jetstream::new(nats.client().await);
    let stream = jetstream.get_stream(STREAM).await.unwrap();
    stream.cached_info().state.last_sequence
}

const REMOVED: &str = r#"{"removed":true}"#;

/// A decider that knew a bucket until `a` was removed from it, and the bucket, which was restored to the time before and changed since to
/// the same number of keys.
struct Restored {
    nats: NatsServer,
    proxy: Proxy,
    decider: Service,
    _policy: PolicyDir,
}

impl Restored {
    /// `snapshot` is the directory for a snapshot, if there is one; `changes` come after the restoration.
    async fn start(
        mut nats: NatsServer,
        snapshot: Option<&Path>,
        changes: &[(&str, &str)],
    ) -> Self {
        let policy = policy();
        has_a_and_b(&nats).await;
        nats.kill9();
        let backup = nats.back_up();
        nats.restart().await;
        put(&nats, &[("bad.a", REMOVED)]).await;
        let known = revision(&nats).await;

        let proxy = Proxy::to(nats.address()).await;
        let url = format!("nats://{}", proxy.address());
        let decider = match snapshot {
            None => decider(url, &policy).await,
            Some(directory) => super::with_snapshot(url, &policy, directory).await,
        };
        decides(&decider, &["b"], &["a"]).await;
        current(&decider, true).await;
        if let Some(directory) = snapshot {
            super::is_written(directory).await;
        }
        is_cut_off(&proxy, &decider).await;

        nats.kill9();
        nats.restore(&backup);
        nats.restart().await;
        put(&nats, changes).await;
        assert!(revision(&nats).await >= known);
        Self {
            nats,
            proxy,
            decider,
            _policy: policy,
        }
    }

    /// The decider reads everything anew.
    async fn is_noticed(&self) {
        self.proxy.restore().await;
        decides(&self.decider, &["a", "b"], &[]).await;
        current(&self.decider, true).await;
        assert_eq!(self.decider.metric(REREADS).await.unwrap(), 1.0);
    }
}

#[tokio::test]
async fn one_that_was_restored_and_has_a_change_at_the_last_known_revision() {
    for nats in nats_of_each_version().await {
        let restored = Restored::start(nats, None, &[("bad.b", "")]).await;
        restored.is_noticed().await;
    }
}

#[tokio::test]
async fn one_that_was_restored_and_has_no_change_at_the_revisions_that_were_lost() {
    for nats in nats_of_each_version().await {
        let restored = Restored::start(nats, None, &[("bad.b", ""), ("bad.b", "")]).await;
        assert_eq!(revision(&restored.nats).await, 4);
        restored.is_noticed().await;
    }
}

#[tokio::test]
async fn one_that_was_restored_while_a_decider_was_off_that_has_a_snapshot() {
    for nats in nats_of_each_version().await {
        let directory = tempfile::TempDir::new().unwrap();
        let changes = [("bad.b", ""), ("bad.b", "")];
        let mut restored = Restored::start(nats, Some(directory.path()), &changes).await;
        restored.decider.kill9();
        restored.proxy.restore().await;
        restored.decider.restart().await;
        decides(&restored.decider, &["a", "b"], &[]).await;
        current(&restored.decider, true).await;
        assert_eq!(restored.decider.metric(REREADS).await.unwrap(), 1.0);
    }
}

#[tokio::test]
async fn one_that_lost_its_last_changes_under_a_watching_decider() {
    for mut nats in nats_of_each_version().await {
        let policy = policy();
        has_a_and_b(&nats).await;
        nats.kill9();
        let backup = nats.back_up();
        nats.restart().await;
        let decider = decider(nats.url(), &policy).await;
        put(&nats, &[("bad.a", REMOVED)]).await;
        decides(&decider, &["b"], &["a"]).await;
        nats.kill9();
        nats.restore(&backup);
        nats.restart().await;
        decides(&decider, &["a", "b"], &[]).await;
        current(&decider, true).await;
    }
}

/// A backup as `nats stream backup` makes it.
struct Backup {
    description: Value,
    chunks: Vec<Bytes>,
}

impl Backup {
    async fn take(client: &Client) -> Self {
        let inbox = client.new_inbox();
        let mut chunks = client.subscribe(inbox.clone()).await.unwrap();
        let request = json!({ "deliver_subject": inbox, "no_consumers": true });
        let description = asked(client, "SNAPSHOT", &request).await;
        let mut backup = Self {
            description: json!({ "config": description["config"], "state": description["state"] }),
            chunks: Vec::new(),
        };
        while let Some(chunk) = chunks
            .next()
            .await
            .filter(|chunk| !chunk.payload.is_empty())
        {
            if let Some(reply) = chunk.reply {
                client.publish(reply, Bytes::new()).await.unwrap();
            }
            backup.chunks.push(chunk.payload);
        }
        backup
    }

    /// Replaces the stream, as `nats stream restore` does.
    async fn restore(self, client: &Client) {
        asked(client, "DELETE", &json!({})).await;
        let target = asked(client, "RESTORE", &self.description).await;
        let target = target["deliver_subject"].as_str().unwrap();
        for chunk in self.chunks.into_iter().chain([Bytes::new()]) {
            let answer = client.request(target.to_owned(), chunk).await.unwrap();
            let text = String::from_utf8_lossy(&answer.payload);
            assert!(!text.contains("error"), "{text}");
        }
    }
}

async fn asked(client: &Client, what: &str, request: &Value) -> Value {
    let subject = format!("$JS.API.STREAM.{what}.{STREAM}");
    let answer = client.request(subject, request.to_string().into()).await;
    let answer: Value = serde_json::from_slice(&answer.unwrap().payload).unwrap();
    assert!(answer.get("error").is_none(), "{what}: {answer}");
    answer
}

#[tokio::test]
async fn one_that_was_restored_under_a_watching_decider() {
    for nats in nats_of_each_version().await {
        let policy = policy();
        has_a_and_b(&nats).await;
        let client = nats.client().await;
        let backup = Backup::take(&client).await;
        put(&nats, &[("bad.a", REMOVED)]).await;
        let decider = decider(nats.url(), &policy).await;
        decides(&decider, &["b"], &["a"]).await;
        backup.restore(&client).await;
        put(&nats, &[("bad.b", ""), ("bad.b", "")]).await;
        decides(&decider, &["a", "b"], &[]).await;
        current(&decider, true).await;
        assert_eq!(decider.metric(REREADS).await.unwrap(), 1.0);
    }
}

#[tokio::test]
async fn one_that_was_created_anew_with_as_many_keys_and_more_changes_while_a_decider_was_away() {
    for nats in nats_of_each_version().await {
        let policy = policy();
        has_a_and_b(&nats).await;
        let proxy = Proxy::to(nats.address()).await;
        let decider = decider(format!("nats://{}", proxy.address()), &policy).await;
        is_cut_off(&proxy, &decider).await;
        let jetstream = jetstream::new(nats.client().await);
        jetstream.delete_stream(STREAM).await.unwrap();
        listed(&nats, &["create"]).await;
        put(&nats, &[("bad.c", ""), ("bad.b", ""), ("bad.b", "")]).await;
        proxy.restore().await;
        decides(&decider, &["b", "c"], &["a"]).await;
        current(&decider, true).await;
        assert_eq!(decider.metric(REREADS).await.unwrap(), 1.0);
    }
}

#[tokio::test]
async fn one_whose_entries_end_by_a_limit_that_somebody_set_on_the_stream() {
    for nats in nats_of_each_version().await {
        let policy = policy();
        listed(&nats, &["create"]).await;
        put(&nats, &[("bad.a", "")]).await;
        let decider = decider(nats.url(), &policy).await;
        decides(&decider, &["a"], &[]).await;
        let jetstream = jetstream::new(nats.client().await);
        let stream = jetstream.get_stream(STREAM).await.unwrap();
        let config = Config {
            max_age: Duration::from_secs(1),
            duplicate_window: Duration::from_secs(1),
            ..stream.cached_info().config.clone()
        };
        jetstream.update_stream(config).await.unwrap();
        decider.wait_for_log(&["held back"]).await;
        decider.sighup();
        decides(&decider, &[], &["a"]).await;
        current(&decider, true).await;
    }
}

#[tokio::test]
async fn but_go_on_without_reading_anew_when_the_buckets_leader_changes_or_a_server_is_lost() {
    let (mut cluster, policy) = (NatsCluster::start().await, policy());
    let urls = cluster.urls();
    let client = cluster.client().await;
    let jetstream = jetstream::new(client.clone());
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["$KV.IMPORTGUARD_LISTS.>".to_owned()],
        max_messages_per_subject: 1,
        num_replicas: cluster.size(),
        ..Config::default()
    };
    eventually("the bucket is created", SOON, async || {
        jetstream.create_stream(config.clone()).await.map(drop)
    })
    .await;
    let put = async |id: usize| {
        eventually("an entry is added", SOON, async || {
            let subject = format!("$KV.IMPORTGUARD_LISTS.bad.{id}");
            jetstream.publish(subject, "".into()).await?.await?;
            anyhow::Ok(())
        })
        .await;
    };
    put(0).await;
    let decider = decider(urls, &policy).await;
    decides(&decider, &["0"], &[]).await;
    let is_followed = async |id: usize| {
        put(id).await;
        let id = id.to_string();
        eventually("the decider has the entry", SOON, async || {
            anyhow::ensure!(refuses(&decider, &id).await?, "not yet");
            Ok(())
        })
        .await;
        current(&decider, true).await;
    };
    for id in 1..4 {
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}");
        client.request(subject, "".into()).await.unwrap();
        is_followed(id).await;
    }
    // Each server dates the changes alike.
    for number in 0..cluster.size() {
        cluster.kill9(number);
        is_followed(4 + number).await;
        cluster.restart(number).await;
        // nats-server 2.9 loses an acknowledged write if the next server is killed before this one has it, and deciders read anew.
        eventually("the server has caught up", SOON, async || {
            let stream = jetstream.get_stream(STREAM).await?;
            let replicas = stream.cached_info().cluster.iter();
            let behind: Vec<_> = replicas
                .flat_map(|cluster| &cluster.replicas)
                .filter(|peer| !peer.current || peer.offline)
                .collect();
            anyhow::ensure!(behind.is_empty(), "{behind:?}");
            anyhow::Ok(())
        })
        .await;
    }
    assert_eq!(decider.metric(REREADS).await.unwrap(), 0.0);
}

#[tokio::test]
async fn but_not_hold_back_one_from_which_expired_entries_were_cleared_while_a_decider_was_away() {
    for nats in nats_of_each_version().await {
        let policy = policy();
        let expiring = ["v", "w", "x", "y", "z"];
        listed(
            &nats,
            &[&["add", "bad", "--for", "2s"], &expiring[..]].concat(),
        )
        .await;
        put(&nats, &[("bad.a", "")]).await;
        let proxy = Proxy::to(nats.address()).await;
        let decider = decider(format!("nats://{}", proxy.address()), &policy).await;
        decides(&decider, &["a"], &[]).await;
        is_cut_off(&proxy, &decider).await;
        decides(&decider, &["a"], &expiring).await;
        let jetstream = jetstream::new(nats.client().await);
        let stream = jetstream.get_stream(STREAM).await.unwrap();
        for expired in expiring {
            let key = format!("$KV.IMPORTGUARD_LISTS.bad.{expired}");
            stream.purge().filter(key).await.unwrap();
        }
        put(&nats, &[("bad.b", "")]).await;
        proxy.restore().await;
        decides(&decider, &["a", "b"], &expiring).await;
        current(&decider, true).await;
        assert_eq!(decider.metric(REREADS).await.unwrap(), 1.0);
    }
}
