//! Log lines about rejected callers: they name the callers, and are limited in a flood.

use std::time::Instant;

use importguard_tests::{
    Frame, Http2Connection, MountedSecret, OpenIm, RawConnection, SOON, Service, Settings,
    callback, eventually, load,
};
use serde_json::Value;
use tokio::net::TcpStream;

/// A gateway that lets nobody in without a token, and logs in JSON.
async fn locked() -> (Service, MountedSecret) {
    let secret = MountedSecret::new(&[("tokens", "t0ken")]);
    let settings = Settings::new()
        .set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"))
        .set("IMPORTGUARD_LOG_FORMAT", "json");
    (Service::gateway(settings).await, secret)
}

/// The lines about code 5902.
fn told(gateway: &Service) -> Vec<Value> {
    let said = gateway.stderr();
    // The last one may still be being written.
    let lines = said
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let lines = lines.filter(|line: &Value| line["code"] == 5902);
    lines.collect()
}

#[tokio::test]
async fn a_rejection_names_its_peer() {
    let (gateway, _secret) = locked().await;
    let stream = TcpStream::connect(gateway.http_address()).await.unwrap();
    let peer = stream.local_addr().unwrap().to_string();
    let mut connection = RawConnection::over(stream);
    connection.send(callback("op")).await.unwrap();
    assert_eq!(connection.answer().await.status, 401);
    let line = eventually("the line is written", SOON, async || {
        told(&gateway).pop().ok_or("it isn't")
    })
    .await;
    assert_eq!(line["peer"], *peer, "{line}");
}

#[tokio::test]
async fn a_flood_of_rejections_is_counted_exactly_and_logged_in_few_lines() {
    const FLOOD: usize = 500;
    let (gateway, _secret) = locked().await;
    let server = OpenIm::server(gateway.url());
    let began = Instant::now();
    load(FLOOD, 32, async |number| {
        let id = format!("op-{number}");
        assert_eq!(server.import(&id, "a", &["b"]).await.status, 401);
    })
    .await;
    let counted = "importguard_rejections_total{code=\"5902\"}";
    assert_eq!(gateway.metric(counted).await.unwrap(), FLOOD as f64);

    let of_one = |line: &&Value| line["peer"].is_string();
    let lines = eventually("what was left out is told in sum", SOON, async || {
        let lines = told(&gateway);
        let sums = lines.iter().filter(|line| !of_one(line)).count();
        if sums > 0 {
            Ok(lines)
        } else {
            Err(format!("{} lines, each about one", lines.len()))
        }
    })
    .await;
    // One second more at each end: none of them begins with the flood.
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let single = lines.iter().filter(of_one).count();
    assert!(single <= 20 * seconds, "{single} in {seconds} s");
    assert!(lines.len() - single <= seconds, "{lines:#?}");
}

#[tokio::test]
async fn so_is_a_flood_of_abandoned_requests() {
    const CONNECTIONS: usize = 60;
    // Without a decider they are refused at once, and nobody reads that.
    let gateway = Service::gateway(Settings::new()).await;
    let body = OpenIm::server("").body("a", &["b"]);
    let began = Instant::now();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let address = gateway.http_address();
        let mut connection = Http2Connection::open_with_window(address, 0).await;
        for stream in [1, 3] {
            let path = "/callbackBeforeImportFriendsCommand";
            connection.post(stream, path, body.as_bytes()).await;
        }
        // The heads of the answers are let through.
        for _ in 0..2 {
            connection.next_on_any_stream().await;
        }
        connections.push(connection);
    }
    drop(connections);
    let abandoned = "importguard_callbacks_abandoned_total";
    gateway
        .wait_for_metric(abandoned, |found| found == 2.0 * CONNECTIONS as f64)
        .await;
    gateway
        .wait_for_log(&["more requests were abandoned", "requests="])
        .await;
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 2;
    let said = gateway.stderr();
    let single = said.lines().filter(|line| line.contains(" abandoned: "));
    assert!(single.count() <= 20 * seconds, "{said}");
}

#[tokio::test]
async fn requests_that_are_cancelled_before_their_end_are_abandoned_and_not_malformed() {
    const CANCELLED: u32 = 10;
    // Of RFC 9113, section 7.
    const CANCEL: u32 = 8;
    let gateway = Service::gateway(Settings::new()).await;
    let mut connection = Http2Connection::open(gateway.http_address()).await;
    for stream in (1..).step_by(2).take(CANCELLED as usize) {
        connection.begin(stream, 0).await;
        connection.send(Frame::DATA, 0, stream, b"{").await;
        connection
            .send(Frame::RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
            .await;
    }
    gateway
        .wait_for_metric("importguard_callbacks_abandoned_total", |found| {
            found == f64::from(CANCELLED)
        })
        .await;
    let malformed = gateway.metric("importguard_rejections_total{code=\"5900\"}");
    assert_eq!(malformed.await.unwrap(), 0.0);
    assert!(!gateway.stderr().contains("could not be read"));
}
