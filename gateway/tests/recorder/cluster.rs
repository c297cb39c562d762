//! A stream with replicas in a cluster of three servers.

use async_nats::jetstream::stream::{Config, Stream};
use importguard_tests::{NatsCluster, NatsServer, skip};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A cluster with a stream of three replicas, which are in step.
async fn cluster() -> NatsCluster {
    with_stream(NatsCluster::start().await).await
}

async fn with_stream(cluster: NatsCluster) -> NatsCluster {
    let jetstream = jetstream::new(cluster.client().await);
    let config = Config {
        name: "IMPORTGUARD".to_owned(),
        subjects: vec!["importguard.v1.>".to_owned()],
        duplicate_window: 10 * MINUTE,
        max_age: 60 * MINUTE,
        max_bytes: 64 << 20,
        num_replicas: 3,
        ..Config::default()
    };
    eventually("the stream is created", 2 * SOON, async || {
        jetstream.create_stream(config.clone()).await.map(drop)
    })
    .await;
    in_step(&cluster).await;
    cluster
}

async fn in_step(cluster: &NatsCluster) -> Stream {
    let jetstream = jetstream::new(cluster.client().await);
    eventually("the replicas are in step", 2 * SOON, async || {
        let stream = jetstream.get_stream("IMPORTGUARD").await;
        let stream = stream.map_err(|error| error.to_string())?;
        let info = stream.cached_info().cluster.clone().unwrap_or_default();
        let current = info.replicas.iter().filter(|replica| replica.current);
        match (info.leader.is_some(), current.count()) {
            (true, 2) => Ok(stream),
            _ => Err(format!("{info:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_leader_is_named_as_the_cause_with_the_servers_to_start() {
    let (cluster, spool, other) = (
        cluster().await,
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    let recording = Recording::with(settings_for(&cluster.url(0), &spool)).await;
    recording.until(State::Streaming).await;
    for number in [1, 2] {
        cluster.freeze(number).await;
    }
    assert_eq!(recording.record(0).await, Recorded::Spooled);
    let cause = ["no leader", "n1", "n2", "start them"];
    recording.until_told(&cause).await;
    // So does one that starts now and has nothing to publish.
    let late = Recording::with(settings_for(&cluster.url(0), &other)).await;
    late.until_told(&cause).await;
    for number in [1, 2] {
        cluster.thaw(number);
    }
    in_step(&cluster).await;
    recording.until(State::Streaming).await;
    late.until(State::Streaming).await;
    assert_eq!(late.recorder.status().last_error, None);
    let stream = in_step(&cluster).await;
    assert_eq!(stream.cached_info().state.messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_is_created_again_with_the_replicas_and_limits_that_it_had() {
    let (cluster, spool) = (cluster().await, TempDir::new().unwrap());
    let recording = Recording::with(settings_for(&cluster.urls(), &spool)).await;
    recording.until(State::Streaming).await;
    let jetstream = jetstream::new(cluster.client().await);
    jetstream.delete_stream("IMPORTGUARD").await.unwrap();
    recording.record(0).await;
    recording.until(State::Streaming).await;
    let stream = in_step(&cluster).await;
    let info = stream.cached_info();
    assert_eq!(info.config.num_replicas, 3);
    assert_eq!(info.config.max_age, 60 * MINUTE);
    assert_eq!(info.config.max_bytes, 64 << 20);
    assert_eq!(info.state.messages, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_a_cluster_has_not_stored_yet_is_not_parked() {
    // Older ones do not say so.
    let Some(program) = NatsServer::current() else {
        skip(
            "a cluster that stands still",
            "no current nats-server is installed",
        );
        return;
    };
    let cluster = with_stream(NatsCluster::of(&program).await).await;
    let spool = TempDir::new().unwrap();
    let info = in_step(&cluster).await.cached_info().cluster.clone();
    let leads = info.unwrap().leader;
    let is_leader = |number: &usize| leads.as_deref() == Some(&format!("n{number}"));
    let leader = (0..cluster.size()).find(is_leader).unwrap();
    let recording = Recording::with(settings_for(&cluster.url(leader), &spool)).await;
    recording.until(State::Streaming).await;
    let followers = (0..cluster.size()).filter(|number| *number != leader);
    for number in followers.clone() {
        cluster.freeze(number).await;
    }
    for n in 0..5 {
        assert_eq!(recording.record(n).await, Recorded::Spooled);
    }
    // The first one was proposed to the followers, and is now published again.
    eventually("the gateway says what it waits for", SOON, async || {
        let status = recording.recorder.status();
        let told = status.last_error.as_deref().unwrap_or_default();
        assert!(status.parked.is_empty(), "{status:?}");
        match told.contains("has not stored") {
            true => Ok(()),
            false => Err(format!("{status:?}")),
        }
    })
    .await;
    for number in followers {
        cluster.thaw(number);
    }
    let status = recording.until(State::Streaming).await;
    assert_eq!(status.spooled_events, 0, "{status:?}");
    let stream = in_step(&cluster).await;
    assert_eq!(stream.cached_info().state.messages, 5);
}
