//! Callers that shut down their sending side and wait for the answer, and heads that arrive in two parts.

use std::time::Duration;

use importguard_core::Dialect::Server;
use importguard_tests::{
    Line, Occupied, RawConnection, Service, Settings, callback, wait_for_count,
};

use crate::asserts;

const IN_FLIGHT: &str = "importguard_in_flight";

#[tokio::test]
async fn who_closes_half_of_the_connection_behind_a_request_is_answered() {
    let line = Line::with(Occupied::settings()).await;
    let mut fresh = RawConnection::open(line.gateway.http_address()).await;
    let mut used = RawConnection::open(line.gateway.http_address()).await;
    used.send(callback("op-before")).await.unwrap();
    asserts::allows(Server, &used.answer().await);

    // The verdict is to come after the farewell has been seen, so the decider waits.
    line.decider.freeze().await;
    for (connection, id) in [(&mut fresh, "op-fresh"), (&mut used, "op-used")] {
        connection.send(callback(id)).await.unwrap();
        line.gateway
            .wait_for_metric(IN_FLIGHT, |found| found >= 1.0)
            .await;
        connection.finish().await;
    }
    // A gateway that takes a farewell for a hang-up has two callbacks less now.
    line.gateway
        .wait_for_metric(IN_FLIGHT, |found| found == 2.0)
        .await;
    line.decider.thaw();
    for connection in [&mut fresh, &mut used] {
        asserts::allows(Server, &connection.answer().await);
        connection.wait_for_close().await;
    }

    let events = wait_for_count(&line.nats, 3).await;
    let mut ids: Vec<_> = events.iter().map(|event| event.operation_id()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["op-before", "op-fresh", "op-used"]);
}

/// Who sends requests without a pause has the beginning of the next one in the last packet, and begins to be slow only there.
#[tokio::test]
async fn a_head_that_began_in_the_packet_of_the_request_before_may_be_as_late_as_a_new_one() {
    let settings = Settings::new()
        .set("IMPORTGUARD_HEADER_READ_TIMEOUT", "2s")
        .set("IMPORTGUARD_IDLE_TIMEOUT", "60s");
    let gateway = Service::gateway(settings).await;
    let mut connection = RawConnection::open(gateway.http_address()).await;
    let second = callback("op-second");
    let (begun, rest) = second.split_at("POST / HT".len());
    connection.send(callback("op") + begun).await.unwrap();
    asserts::refuses(Server, &connection.answer().await, 200, 5910);
    // The time is what is tested: longer than a head may take, and less than a connection may be idle.
    tokio::time::sleep(Duration::from_secs(3)).await;
    connection.send(rest).await.unwrap();
    asserts::refuses(Server, &connection.answer().await, 200, 5910);
}
