//! A backend that misbehaves, or that is slow, harms neither the caller nor imports.

use std::time::Duration;

use http::Method;
use importguard_core::Dialect::Server;
use importguard_tests::{Call, Client, OpenIm, RawConnection, Service, Settings, free_port, post};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};

use crate::asserts;

const OTHER: &str = "/callbackBeforeAddFriendCommand";

/// The URL of a backend that answers each connection's first request with these bytes, and reports when the gateway closes it.
async fn backend(answer: &'static str) -> (String, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (closed, reports) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let closed = closed.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while !read.windows(4).any(|four| four == b"\r\n\r\n") {
                    assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                while !matches!(stream.read_buf(&mut read).await, Ok(0) | Err(_)) {}
                let _ = closed.send(());
            });
        }
    });
    (url, reports)
}

async fn gateway(url: String) -> Service {
    Service::gateway(Settings::new().set("IMPORTGUARD_UPSTREAM", url)).await
}

fn other(gateway: &Service) -> Call {
    Call::new(Method::POST, gateway.url() + OTHER)
}

#[tokio::test]
async fn a_switch_of_protocols_that_nobody_asked_for_is_refused() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n";
    let (url, _closed) = backend(switch).await;
    let gateway = gateway(url).await;
    let answer = Client::default().send(other(&gateway)).await;
    asserts::refuses(Server, &answer, 502, 5910);
    gateway.wait_for_log(&["switched protocols"]).await;
}

#[tokio::test]
async fn a_length_beside_chunks_is_not_passed_on() {
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
    let (url, _closed) = backend(both).await;
    let gateway = gateway(url).await;
    let answer = Client::default().send(other(&gateway)).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, "{}"));
    let length = answer.headers.get("content-length");
    assert_ne!(length.map(|it| it.as_bytes()), Some(&b"5"[..]));
}

/// Any caller can have a backend break off.
#[tokio::test]
async fn many_responses_that_break_off_are_logged_in_few_lines() {
    let broken = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n";
    let (url, _closed) = backend(broken).await;
    let gateway = gateway(url).await;
    for _ in 0..100 {
        let answer = Client::default().try_send(other(&gateway)).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    let broken = "importguard_upstream_total{outcome=\"broken\"}";
    assert_eq!(gateway.metric(broken).await.unwrap(), 100.0);
    gateway
        .wait_for_log(&["more of the backend's responses broke off"])
        .await;
}

#[tokio::test]
async fn what_tells_of_something_done_fails_with_its_backend() {
    let gateway = gateway(format!("http://127.0.0.1:{}", free_port())).await;
    let after = gateway.url() + "/callbackAfterAddFriendCommand";
    let answer = Client::default().send(Call::new(Method::POST, after)).await;
    asserts::refuses(Server, &answer, 502, 5910);
}

#[tokio::test]
async fn idle_connections_are_closed_before_common_backends_close_them() {
    let (url, mut closed) = backend("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
    let gateway = gateway(url).await;
    assert_eq!(Client::default().send(other(&gateway)).await.status, 200);
    // It was 30 seconds once; a busy machine may take longer than the one that it is.
    let closed = timeout(Duration::from_secs(20), closed.recv()).await;
    assert_eq!(closed, Ok(Some(())));
}

#[tokio::test]
async fn callbacks_for_a_silent_backend_leave_imports_memory() {
    let (url, _closed) = backend("").await;
    let settings = Settings::new()
        .set("IMPORTGUARD_UPSTREAM", url)
        .set("IMPORTGUARD_UPSTREAM_TIMEOUT", "60s")
        .set("IMPORTGUARD_MAX_BODY_BYTES", "100KiB")
        .set("IMPORTGUARD_MAX_BYTES_IN_FLIGHT", "1MiB");
    let gateway = Service::gateway(settings).await;
    let body = "x".repeat(100 * 1024);
    let mut held = Vec::new();
    // Five of them have half of the memory.
    for number in 0..5 {
        let mut connection = RawConnection::open(gateway.http_address()).await;
        let callback = post(OTHER, &format!("op-{number}"), &body);
        connection.send(callback).await.unwrap();
        held.push(connection);
    }
    let in_flight = "importguard_upstream_in_flight";
    gateway
        .wait_for_metric(in_flight, |count| count == 5.0)
        .await;
    for _ in 0..5 {
        let call = other(&gateway).body(body.clone());
        asserts::refuses(Server, &Client::default().send(call).await, 503, 5913);
    }
    let server = OpenIm::server(gateway.url());
    asserts::refuses(Server, &server.import("op", "a", &["b"]).await, 200, 5910);
}
