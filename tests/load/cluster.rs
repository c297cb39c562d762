//! A cluster of three nats-servers, each killed in turn under load: the stream has a replica on each, so nothing is lost.

use std::collections::HashSet;

use importguard_tests::{NatsCluster, OpenIm, SOON, Service, Traffic, eventually, stored_with};

use crate::chaos;

#[tokio::test(flavor = "multi_thread")]
async fn every_server_of_a_cluster_is_killed_in_its_turn() {
    let _turn = chaos::alone().await;
    let mut cluster = NatsCluster::start().await;
    let decider = Service::decider(chaos::quiet()).await;
    let settings = chaos::quiet()
        .decider(&decider)
        .set("NATS_URL", cluster.urls())
        .set("IMPORTGUARD_STREAM_REPLICAS", "3");
    let mut gateway = Service::gateway(settings).await;
    gateway.wait_for_recorder("streaming").await;
    let server = OpenIm::server(gateway.url());
    let traffic = Traffic::start(&server, "op", chaos::of_every_verdict);
    // One of them is the one that the gateway is connected to, and one leads the stream.
    for number in 0..cluster.size() {
        in_step(&cluster).await;
        gateway.wait_for_recorder("streaming").await;
        traffic.answers(200).await;
        cluster.kill9(number);
        traffic.answers(300).await;
        cluster.restart(number).await;
    }
    let asked = traffic.stop().await;
    gateway.wait_for_recorder("streaming").await;
    assert!(gateway.terminate(SOON).await.success());

    in_step(&cluster).await;
    // A new leader may not know the ids that the old one saw last, so it is the consumer that sees each event once.
    let mut ids = HashSet::new();
    let mut events = stored_with(cluster.client().await).await;
    events.retain(|event| ids.insert(event.id().to_owned()));
    chaos::compare(&asked, &events);
}

/// Waits until every copy of the stream has all of it: to kill a second server before is more than three copies promise.
async fn in_step(cluster: &NatsCluster) {
    let jetstream = async_nats::jetstream::new(cluster.client().await);
    eventually("the copies are in step", SOON, async || {
        let mut stream = jetstream.get_stream("IMPORTGUARD").await?;
        let info = stream.info().await?.cluster.clone();
        let replicas = info.map(|info| info.replicas).unwrap_or_default();
        let current = replicas.iter().filter(|replica| replica.current);
        anyhow::ensure!(current.count() == cluster.size() - 1, "{replicas:?}");
        Ok(())
    })
    .await;
}
