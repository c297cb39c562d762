//! A leaf node and its hub: a JetStream domain each, and a stream of the same name in both.

use futures_util::StreamExt;
use importguard_tests::free_port;

use super::*;

/// The hub and a leaf node connected to it.
async fn hub_and_leaf() -> (NatsServer, NatsServer) {
    let port = free_port();
    let hub = NatsServer::with_config(&format!(
        "server_name: hub\njetstream {{ domain: hub }}\nleafnodes {{ listen: \"127.0.0.1:{port}\" }}\n"
    ))
    .await;
    let leaf = NatsServer::with_config(&format!(
        "server_name: leaf\njetstream {{ domain: leaf }}\n\
         leafnodes {{ remotes: [{{ url: \"nats://127.0.0.1:{port}\" }}] }}\n"
    ))
    .await;
    let (sender, receiver) = (leaf.client().await, hub.client().await);
    let mut pings = receiver.subscribe("ping").await.unwrap();
    receiver.flush().await.unwrap();
    eventually("the leaf node is connected", SOON, async || {
        sender.publish("ping", "".into()).await.unwrap();
        tokio::time::timeout(Duration::from_millis(100), pings.next()).await
    })
    .await;
    (hub, leaf)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ack_of_a_stream_of_the_same_name_in_another_domain_does_not_count() {
    let ((hub, leaf), spool, other) = (
        hub_and_leaf().await,
        TempDir::new().unwrap(),
        TempDir::new().unwrap(),
    );
    let recording = Recording::patient(&leaf, &spool).await;
    let at_hub = Recording::patient(&hub, &other).await;
    // Now the hub's stream takes what is published at the leaf node, too.
    let jetstream = jetstream::new(leaf.client().await);
    jetstream.delete_stream("IMPORTGUARD").await.unwrap();
    assert_eq!(recording.record(0).await, Recorded::Spooled);
    for n in 1..5 {
        recording.record(n).await;
    }
    eventually(
        "each event is in the leaf node's stream",
        4 * SOON,
        async || {
            let status = recording.recorder.status();
            match status.spooled_events {
                0 => Ok(()),
                _ => Err(format!("{status:?}")),
            }
        },
    )
    .await;
    assert_each_once(&leaf, 5).await;
    at_hub.close().await;
}
