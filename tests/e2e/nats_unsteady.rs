//! A NATS that accepts every connection and ends it at once.

use std::time::{Duration, Instant};

use importguard_tests::{SOON, Settings};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{
    nats_access::{gateway, reports},
    tail::Tail,
};

const INFO: &str = "INFO {\"server_id\":\"x\",\"version\":\"2.10.0\",\"max_payload\":1048576,\"headers\":true}\r\n";

/// What nats-server says when a JWT expires.
const EXPIRED: &str = "-ERR 'User Authentication Expired'\r\n";

/// Lets the client in, says `last`, and closes the connection.
async fn end(mut connection: TcpStream, last: &str) -> std::io::Result<()> {
    connection.write_all(INFO.as_bytes()).await?;
    let mut said = Vec::new();
    while !said.ends_with(b"PING\r\n") {
        said.push(connection.read_u8().await?);
    }
    connection.write_all(b"PONG\r\n").await?;
    connection.write_all(last.as_bytes()).await?;
    connection.shutdown().await
}

/// The address of such a server, and when each of its connections was made.
async fn server(last: &'static str) -> (String, mpsc::UnboundedReceiver<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (made, connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let _ = made.send(Instant::now());
            // The client may be faster to go.
            let _ = end(connection, last).await;
        }
    });
    (address, connections)
}

/// How long the first `count` connections took.
async fn duration(connections: &mut mpsc::UnboundedReceiver<Instant>, count: usize) -> Duration {
    let mut made = Vec::new();
    while made.len() < count {
        let next = tokio::time::timeout(SOON, connections.recv()).await;
        made.push(next.unwrap().unwrap());
    }
    made[count - 1] - made[0]
}

#[tokio::test]
async fn a_gateway_whose_connections_last_no_second_connects_once_a_second_and_names_the_cause_once()
 {
    let (address, mut connections) = server(EXPIRED).await;
    let gateway = gateway(Settings::new().set("NATS_URL", format!("nats://{address}"))).await;
    let took = duration(&mut connections, 16).await;
    assert!(took > Duration::from_secs(6), "{took:?}");
    reports(&gateway, &["NATS reports: ", "User Authentication Expired"]).await;
    let said = gateway.stderr();
    let warnings: Vec<_> = said.lines().filter(|line| line.contains("WARN")).collect();
    let about_nats = warnings.iter().filter(|line| line.contains("NATS"));
    assert_eq!(about_nats.count(), 1, "{said}");
}

#[tokio::test]
async fn so_does_tail() {
    let (address, mut connections) = server(EXPIRED).await;
    let settings = Settings::new().set("NATS_URL", format!("nats://{address}"));
    let tail = Tail::of(&settings, &[]);
    let took = duration(&mut connections, 16).await;
    assert!(took > Duration::from_secs(6), "{took:?}");
    let said = tail.process.stderr();
    let expired = said.lines().filter(|line| line.contains("Expired"));
    assert_eq!(expired.count(), 1, "{said}");
    assert!(!said.contains("lost the connection"), "{said}");
}

#[tokio::test]
async fn a_lost_connection_without_a_cause_is_told_once() {
    let (address, mut connections) = server("").await;
    let gateway = gateway(Settings::new().set("NATS_URL", format!("nats://{address}"))).await;
    duration(&mut connections, 16).await;
    reports(&gateway, &["the connection to NATS is lost"]).await;
    let said = gateway.stderr();
    let lost = said.matches("the connection to NATS is lost");
    assert_eq!(lost.count(), 1, "{said}");
}
