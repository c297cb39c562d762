//! A gateway with a cluster of nats-servers.

use importguard_tests::{NatsCluster, Service, Settings};

#[tokio::test]
async fn a_stream_with_one_replica_in_a_cluster_is_warned_of_with_the_command_that_adds_some() {
    let cluster = NatsCluster::start().await;
    let settings = Settings::default().set("NATS_URL", cluster.urls());
    let gateway = Service::all_in_one(settings).await;
    let remedy = "nats stream edit IMPORTGUARD --replicas 3";
    gateway.wait_for_log(&["has one replica", remedy]).await;
}
