//! The memory of a burst is released afterwards, even while the process is idle.

use anyhow::ensure;
use importguard_tests::{RawConnection, SOON, Service, Settings, eventually, post};

/// Bodies that are never completed, and what they come to.
const BODIES: usize = 80;
const BODY_BYTES: usize = 300_000;
const BYTES: u64 = (BODIES * BODY_BYTES) as u64;

#[tokio::test]
async fn the_memory_of_a_burst_is_released_while_idle() {
    let settings = Settings::new().set("IMPORTGUARD_BODY_READ_TIMEOUT", "60s");
    let gateway = Service::gateway(settings.set("IMPORTGUARD_REQUEST_BUDGET", "60s")).await;
    let at_rest = gateway.vitals().resident_bytes;
    let more = || {
        let now = gateway.vitals().resident_bytes;
        now.saturating_sub(at_rest)
    };
    let body = " ".repeat(BODY_BYTES + 1);
    let request = post("/callbackBeforeImportFriendsCommand", "op", &body);
    let incomplete = &request[..request.len() - 1];
    let mut burst = Vec::new();
    for _ in 0..BODIES {
        let mut connection = RawConnection::open(gateway.http_address()).await;
        connection.send(incomplete).await.unwrap();
        burst.push(connection);
    }
    eventually("the bodies are there", SOON, async || {
        let more = more();
        ensure!(more >= BYTES, "{more} bytes more than at rest");
        Ok(())
    })
    .await;
    drop(burst);
    eventually("they are gone", SOON, async || {
        let more = more();
        ensure!(more <= BYTES / 4, "still {more} bytes more than at rest");
        Ok(())
    })
    .await;
}
