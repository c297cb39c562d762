//! The public listener: every request gets a complete callback answer. Input that is not HTTP gets nothing that could be read as
//! consent, and its connection is closed.

use std::time::{Duration, Instant};

use importguard_core::Dialect::Server;
use importguard_tests::{OpenIm, RawConnection, Response, SOON, Service, Settings, callback};
use tokio::time::timeout;

use crate::asserts;

/// A gateway on its own: nothing here gets as far as a decider.
async fn gateway(settings: Settings) -> Service {
    Service::gateway(settings).await
}

#[track_caller]
fn refuses_and_closes(answer: &Response, status: u16, code: i32) {
    asserts::refuses(Server, answer, status, code);
    let connection = answer
        .headers
        .get("connection")
        .map(|value| value.as_bytes());
    assert_eq!(connection, Some(&b"close"[..]));
}

/// What is answered to `bytes`, the first on their connection.
async fn answer_to(gateway: &Service, bytes: impl AsRef<[u8]>) -> Response {
    let mut connection = RawConnection::open(gateway.http_address()).await;
    // A gateway that has read enough may hang up before all is sent.
    let _ = connection.send(bytes).await;
    let answer = connection.answer().await;
    connection.wait_for_close().await;
    answer
}

/// What comes of `bytes` that are no request, the first on their connection.
async fn words_to(gateway: &Service, bytes: impl AsRef<[u8]>) -> String {
    let mut connection = RawConnection::open(gateway.http_address()).await;
    let _ = connection.send(bytes).await;
    connection.read_to_end().await
}

#[tokio::test]
async fn bytes_that_are_no_request_get_nothing_to_misread() {
    let gateway = gateway(Settings::new()).await;
    for bytes in [
        "\0\0\0\0",
        "hello\r\n\r\n",
        "PO ST / HTTP/1.1\r\n\r\n",
        "POST /\x7f HTTP/1.1\r\n\r\n",
        "POST / HTTP/3.0\r\n\r\n",
        "POST / HTTP/1.1\r\nno colon\r\n\r\n",
        "POST / HTTP/1.1\r\nbad name: x\r\n\r\n",
        "POST / HTTP/1.1\r\nname: \0\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        // A TLS handshake on a plain port.
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03",
        "PRI * HTTP/2.0\r\n\r\nno\r\n\r\n",
    ] {
        asserts::is_no_answer(&words_to(&gateway, bytes).await);
    }
}

#[tokio::test]
async fn nor_do_they_after_a_good_request_and_right_behind_it() {
    let gateway = gateway(Settings::new()).await;
    let mut apart = RawConnection::open(gateway.http_address()).await;
    apart.send(callback("op")).await.unwrap();
    asserts::refuses(Server, &apart.answer().await, 200, 5910);
    apart.send("nonsense\r\n\r\n").await.unwrap();
    asserts::is_no_answer(&apart.read_to_end().await);

    let mut together = RawConnection::open(gateway.http_address()).await;
    let both = callback("op") + "nonsense\r\n\r\n";
    together.send(both).await.unwrap();
    asserts::refuses(Server, &together.answer().await, 200, 5910);
    asserts::is_no_answer(&together.read_to_end().await);
}

#[tokio::test]
async fn requests_one_behind_the_other_are_answered_in_order() {
    let gateway = gateway(Settings::new()).await;
    let mut connection = RawConnection::open(gateway.http_address()).await;
    connection.send(callback("op").repeat(10)).await.unwrap();
    for _ in 0..10 {
        asserts::refuses(Server, &connection.answer().await, 200, 5910);
    }
}

#[tokio::test]
async fn headers_over_their_bounds_are_too_large() {
    let gateway = gateway(Settings::new().set("IMPORTGUARD_MAX_HEADER_BYTES", "2048")).await;
    let head =
        "POST /callbackBeforeImportFriendsCommand HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let one_long = format!("{head}X: {}\r\n\r\n", "x".repeat(2048));
    let never_ending = format!("{head}X: {}", "x".repeat(100_000));
    let many = format!("{head}{}\r\n", "A: b\r\n".repeat(101));
    for bytes in [one_long, many] {
        asserts::refuses(Server, &answer_to(&gateway, bytes).await, 431, 5903);
    }
    // What has no end is no request.
    asserts::is_no_answer(&words_to(&gateway, never_ending).await);
}

#[tokio::test]
async fn a_url_over_that_bound_is_too_long() {
    let gateway = gateway(Settings::new().set("IMPORTGUARD_MAX_HEADER_BYTES", "2048")).await;
    let long = "x".repeat(3_000);
    for target in [
        format!("/{long}"),
        format!("/callbackBeforeImportFriendsCommand?contenttype={long}"),
    ] {
        let bytes = format!("POST {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        asserts::refuses(Server, &answer_to(&gateway, bytes).await, 414, 5903);
    }
}

#[tokio::test]
async fn a_url_longer_than_any_is_no_request() {
    let gateway = gateway(Settings::new().set("IMPORTGUARD_MAX_HEADER_BYTES", "100000")).await;
    let long = format!("POST /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
    asserts::is_no_answer(&words_to(&gateway, long).await);
}

#[tokio::test]
async fn headers_that_trickle_are_given_up() {
    let settings = Settings::new().set("IMPORTGUARD_HEADER_READ_TIMEOUT", "2s");
    let gateway = gateway(settings).await;
    for first in [String::new(), callback("op")] {
        let began = Instant::now();
        let mut connection = RawConnection::open(gateway.http_address()).await;
        if !first.is_empty() {
            connection.send(&first).await.unwrap();
            asserts::refuses(Server, &connection.answer().await, 200, 5910);
        }
        connection.send("POST / HT").await.unwrap();
        // Whoever trickles doesn't begin anew with each byte, and so does not go on for ever.
        let trickling = async {
            loop {
                let pause = Duration::from_millis(200);
                match timeout(pause, connection.read_to_end()).await {
                    Ok(words) => break words,
                    Err(_) => drop(connection.send("T").await),
                }
            }
        };
        let words = timeout(SOON, trickling).await;
        asserts::is_no_answer(&words.expect("it is given up"));
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(2), "{took:?}");
    }
}

#[tokio::test]
async fn an_incomplete_body_gets_a_refusal_and_an_incomplete_head_no_answer() {
    let gateway = gateway(Settings::new()).await;
    let whole = callback("op");
    for part in ["P", "PRI", "POST / HTTP/1.1\r\nHost"] {
        let mut connection = RawConnection::open(gateway.http_address()).await;
        connection.send(part).await.unwrap();
        connection.finish().await;
        asserts::is_no_answer(&connection.read_to_end().await);
    }
    let mut connection = RawConnection::open(gateway.http_address()).await;
    connection.send(&whole[..whole.len() - 1]).await.unwrap();
    connection.finish().await;
    asserts::refuses(Server, &connection.answer().await, 400, 5900);
    connection.wait_for_close().await;
}

#[tokio::test]
async fn nor_does_one_whose_second_request_began_with_the_first() {
    let gateway = gateway(Settings::new()).await;
    for part in ["P", "POST / HTTP/1.1\r\nHost"] {
        let mut connection = RawConnection::open(gateway.http_address()).await;
        connection.send(callback("op") + part).await.unwrap();
        asserts::refuses(Server, &connection.answer().await, 200, 5910);
        connection.finish().await;
        asserts::is_no_answer(&connection.read_to_end().await);
    }
}

#[tokio::test]
async fn a_connection_without_a_request_ends_without_a_word() {
    let settings = Settings::new().set("IMPORTGUARD_IDLE_TIMEOUT", "300ms");
    let gateway = gateway(settings).await;
    let mut fresh = RawConnection::open(gateway.http_address()).await;
    fresh.wait_for_close().await;
    let mut used = RawConnection::open(gateway.http_address()).await;
    used.send(callback("op")).await.unwrap();
    asserts::refuses(Server, &used.answer().await, 200, 5910);
    used.wait_for_close().await;
}

#[tokio::test]
async fn a_body_over_its_bound_is_refused_while_it_is_still_being_sent() {
    let gateway = gateway(Settings::new().set("IMPORTGUARD_MAX_BODY_BYTES", "1000")).await;
    for framing in ["Content-Length: 8000000", "Transfer-Encoding: chunked"] {
        let head = format!(
            "POST /callbackBeforeImportFriendsCommand HTTP/1.1\r\nHost: x\r\nOperationid: op\r\n{framing}\r\n\r\n"
        );
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        let bytes = head + &chunk.repeat(500);
        refuses_and_closes(&answer_to(&gateway, bytes).await, 413, 5903);
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let settings = Settings::new()
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "300ms")
        .set("IMPORTGUARD_REQUEST_BUDGET", "60s");
    let gateway = gateway(settings).await;
    let whole = callback("op");
    let began = Instant::now();
    let answer = answer_to(&gateway, &whole[..whole.len() - 1]).await;
    refuses_and_closes(&answer, 408, 5900);
    assert!(began.elapsed() < Duration::from_secs(25));
}

#[tokio::test]
async fn json_nested_deeper_than_any_request_is_malformed_or_ignored() {
    let gateway = gateway(Settings::new()).await;
    let server = OpenIm::server(gateway.url());
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    let good = server.body("user123", &["user456"]);
    for (body, status, code) in [
        (good.replace("[\"user456\"]", &deep), 400, 5900),
        (
            good.replacen('{', &format!("{{\"unknown\":{deep},"), 1),
            200,
            5910,
        ),
    ] {
        let answer = server.send(server.with_body("op", &body)).await;
        asserts::refuses(Server, &answer, status, code);
    }
}

#[tokio::test]
async fn a_connection_above_the_limit_evicts_the_one_idle_for_longest() {
    let settings = Settings::new().set("IMPORTGUARD_MAX_CONNECTIONS", "2");
    let gateway = gateway(settings).await;
    let mut first = RawConnection::open(gateway.http_address()).await;
    let mut second = RawConnection::open(gateway.http_address()).await;
    let is_answered = async |connection: &mut RawConnection| {
        connection.send(callback("op")).await.unwrap();
        asserts::refuses(Server, &connection.answer().await, 200, 5910);
    };
    is_answered(&mut first).await;
    is_answered(&mut second).await;
    // Who came first has asked last.
    is_answered(&mut first).await;
    let mut third = RawConnection::open(gateway.http_address()).await;
    is_answered(&mut third).await;
    second.wait_for_close().await;
    is_answered(&mut first).await;
    is_answered(&mut third).await;
    for (name, count) in [
        ("importguard_connections_evicted_total", 1.0),
        ("importguard_connections_rejected_total", 0.0),
    ] {
        assert_eq!(gateway.metric(name).await.unwrap(), count, "{name}");
    }
}
