//! OpenIM's other callbacks are forwarded to the operator's backend unchanged, and its answers returned.

use std::fs;

use http::Method;
use importguard_core::Dialect::{Documented, Server};
use importguard_tests::{
    Backend, Call, Client, MountedSecret, OpenIm, OtlpReceiver, RawConnection, SOON, Service,
    Settings, Span, TestCertificate, TraceParent, free_port, post,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::asserts;

const OTHER: &str = "/callbackBeforeAddFriendCommand?contenttype=json&x=%2F";
const OTHER_DOCUMENTED: &str = "/?command=BeforeAddFriendCommand&contenttype=json";

fn upstream(backend: &Backend) -> Settings {
    Settings::new().set(
        "IMPORTGUARD_UPSTREAM",
        format!("http://{}", backend.address()),
    )
}

#[tokio::test]
async fn a_callback_reaches_the_backend_as_it_is_and_so_does_its_answer() {
    let backend = Backend::start().await;
    let gateway = Service::gateway(upstream(&backend)).await;
    let trace = TraceParent::numbered(7);
    let body = &b"any bytes \0\xff, {\"nextCode\":0}"[..];
    for (method, target) in [(Method::POST, OTHER), (Method::PUT, OTHER_DOCUMENTED)] {
        let call = Call::new(method.clone(), gateway.url() + target)
            .header("Content-Type", "application/json; charset=utf-8")
            .header("Operationid", "op-other")
            .header("Authorization", "Basic b3BlbmltOnMzY3JldA==")
            .header("Accept-Encoding", "gzip")
            .header("Traceparent", trace.to_string())
            .header("Connection", "x-private")
            .header("X-Private", "1")
            .body(body);
        let answer = Client::default().send(call).await;
        assert_eq!(answer.status, 203);
        assert_eq!(answer.headers["x-backend"], "yes");
        assert!(
            !answer.headers.contains_key("x-hop"),
            "{:?}",
            answer.headers
        );
        assert_eq!(answer.body, body);

        let asked = backend.requests().pop().unwrap();
        assert_eq!(asked.method, method);
        assert_eq!(asked.uri.to_string(), target);
        for (name, value) in [
            ("content-type", "application/json; charset=utf-8"),
            ("operationid", "op-other"),
            ("authorization", "Basic b3BlbmltOnMzY3JldA=="),
            ("accept-encoding", "gzip"),
            ("host", &backend.address()),
            ("content-length", &body.len().to_string()),
        ] {
            assert_eq!(asked.headers[name], value, "{name}");
        }
        assert!(!asked.headers.contains_key("x-private"));
        let passed = asked.headers["traceparent"].to_str().unwrap();
        let passed = TraceParent::parse(passed).unwrap();
        assert_eq!(passed.trace_id, trace.trace_id);
        assert_ne!(passed.span_id, trace.span_id);
    }
}

#[tokio::test]
async fn a_trace_state_reaches_the_backend_and_a_malformed_one_does_not() {
    let backend = Backend::start().await;
    let gateway = Service::gateway(upstream(&backend)).await;
    for (came, passed) in [
        ("a=1, b@@c=2", Some("a=1,b@@c=2")),
        ("a=1,b=c=d", None),
        ("A=1", None),
    ] {
        let call = Call::new(Method::POST, gateway.url() + OTHER)
            .header("Operationid", "op-other")
            .header("Traceparent", TraceParent::numbered(8).to_string())
            .header("Tracestate", came);
        Client::default().send(call).await;
        let asked = backend.requests().pop().unwrap();
        let state = asked.headers.get("tracestate");
        assert_eq!(state.map(|state| state.to_str().unwrap()), passed);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_counted_and_logged() {
    for closes in [true, false] {
        let url = backend_that_breaks_off(closes).await;
        let receiver = OtlpReceiver::start().await;
        let settings = Settings::new()
            .traces_to(&receiver)
            .set("IMPORTGUARD_UPSTREAM", url)
            // The head of the response has to arrive within it, on a busy machine as well.
            .set("IMPORTGUARD_UPSTREAM_TIMEOUT", "3s");
        let gateway = Service::gateway(settings).await;
        let parent = TraceParent::numbered(15);
        let call = Call::new(Method::POST, gateway.url() + OTHER)
            .header("Operationid", "op-other")
            .header("Traceparent", parent.to_string());
        let answer = Client::default().try_send(call).await;
        assert!(answer.is_err(), "{answer:?}");
        let broken = gateway.metric("importguard_upstream_total{outcome=\"broken\"}");
        assert_eq!(broken.await.unwrap(), 1.0);
        let log = gateway
            .wait_for_log(&["response broke off", "IMPORTGUARD_UPSTREAM"])
            .await;
        let line = log.lines().find(|line| line.contains("broke off")).unwrap();
        let trace = format!("trace_id={}", parent.trace_id);
        for field in ["operationID=op-other", &trace] {
            assert!(line.contains(field), "{line}");
        }
        let both = |spans: &[Span]| spans.len() == 2;
        for span in receiver.wait_for(&parent.trace_id, SOON, both).await {
            assert_eq!(span.attributes["error.type"], "broken", "{span:#?}");
            assert!(span.error.is_some(), "{span:#?}");
        }
    }
}

/// The URL of a backend that responds to a whole request with a part of what it announces, and then closes the connection or is silent.
async fn backend_that_breaks_off(closes: bool) -> String {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", backend.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = backend.accept().await.unwrap();
        // A response before its request is no response, but a fault of another kind.
        read_until(&mut stream, b"\r\n\r\n").await;
        let part = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nten bytes.";
        stream.write_all(part).await.unwrap();
        if !closes {
            std::future::pending::<()>().await;
        }
    });
    url
}

/// What arrives, the last of it being `end`.
async fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0);
    }
    read
}

#[tokio::test]
async fn a_backend_that_fails_is_an_error_on_the_calls_span() {
    let receiver = OtlpReceiver::start().await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let settings = Settings::new().traces_to(&receiver);
    let gateway = Service::gateway(settings.set("IMPORTGUARD_UPSTREAM", &nobody)).await;
    let trace = TraceParent::numbered(10);
    let call = Call::new(
        Method::from_bytes(b"MADEUP").unwrap(),
        gateway.url() + OTHER,
    )
    .header("Operationid", "op-other")
    .header("Traceparent", trace.to_string());
    assert_eq!(Client::default().send(call).await.status, 502);
    let called = call_of(&receiver, &trace).await;
    assert_eq!(called.name, "HTTP");
    for (name, value) in [
        ("http.request.method", "_OTHER"),
        ("error.type", "unavailable"),
        ("server.address", "127.0.0.1"),
    ] {
        assert_eq!(called.attributes[name], value, "{called:#?}");
    }
    assert!(called.error.is_some(), "{called:#?}");
}

#[tokio::test]
async fn so_is_one_that_answers_with_an_error() {
    let receiver = OtlpReceiver::start().await;
    let backend = Backend::start().await;
    let gateway = Service::gateway(upstream(&backend).traces_to(&receiver)).await;
    for (number, status, error) in [
        (11, "203", None),
        (12, "404", Some("404")),
        (13, "500", Some("500")),
    ] {
        let trace = TraceParent::numbered(number);
        let call = Call::new(Method::POST, gateway.url() + OTHER)
            .header("Operationid", "op-other")
            .header("Traceparent", trace.to_string())
            .header("X-Answer-With", status);
        assert_eq!(Client::default().send(call).await.status.as_str(), status);
        let called = call_of(&receiver, &trace).await;
        assert_eq!(called.name, "POST");
        assert_eq!(called.attributes["http.response.status_code"], status);
        let error_type = called.attributes.get("error.type");
        assert_eq!(error_type.map(String::as_str), error);
        assert_eq!(called.error.is_some(), error.is_some(), "{called:#?}");
    }
}

/// The span of the call to the backend.
async fn call_of(receiver: &OtlpReceiver, trace: &TraceParent) -> Span {
    let both = |spans: &[Span]| spans.len() == 2;
    let spans = receiver.wait_for(&trace.trace_id, SOON, both).await;
    let mut calls = spans
        .into_iter()
        .filter(|span| span.kind == SpanKind::Client);
    calls.next().unwrap()
}

#[tokio::test]
async fn the_backends_url_takes_the_place_of_the_base_path() {
    let backend = Backend::start().await;
    let settings = Settings::new().set("IMPORTGUARD_BASE_PATH", "/s3cret").set(
        "IMPORTGUARD_UPSTREAM",
        format!("http://{}/hooks/", backend.address()),
    );
    let gateway = Service::gateway(settings).await;
    for (path, passed) in [
        ("/s3cret/callbackX", "/hooks/callbackX"),
        ("/s3cret?command=X", "/hooks?command=X"),
    ] {
        let call = Call::new(Method::POST, gateway.url() + path);
        assert_eq!(Client::default().send(call).await.status, 203);
        assert_eq!(backend.requests().pop().unwrap().uri.to_string(), passed);
    }
}

#[tokio::test]
async fn nothing_else_reaches_it() {
    let backend = Backend::start().await;
    let gateway = Service::gateway(upstream(&backend)).await;
    for path in ["/", "/metrics", "/x/callbackX", "/callbackX/y"] {
        let call = Call::new(Method::POST, gateway.url() + path);
        asserts::refuses(Server, &Client::default().send(call).await, 404, 5901);
    }
    for dialect in [Documented, Server] {
        let own = OpenIm::new(dialect, gateway.url());
        let answer = own.import("op", "user1", &["user2"]).await;
        asserts::refuses(dialect, &answer, 200, 5910);
    }
    let server = OpenIm::server(gateway.url());
    let report = server.send(server.after_import("op", "a", &["b"])).await;
    asserts::allows(Server, &report);
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn a_response_is_passed_on_as_it_comes_and_never_held() {
    const CHUNK: usize = 1024 * 1024;
    const CHUNKS: usize = 256;
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", backend.local_addr().unwrap());
    let gateway = Service::gateway(Settings::new().set("IMPORTGUARD_UPSTREAM", url)).await;
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib * 1024
    };

    let mut client = TcpStream::connect(gateway.http_address()).await.unwrap();
    let request = post(OTHER, "op", "{}");
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut stream, _) = backend.accept().await.unwrap();
    read_until(&mut stream, b"{}").await;
    let length = CHUNK * CHUNKS;
    let head = format!("HTTP/1.1 203 OK\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let said = read_until(&mut client, b"\r\n\r\n").await;
    assert!(said.starts_with(b"HTTP/1.1 203"), "{said:?}");
    let before = peak();
    let (chunk, mut read) = (vec![b'x'; CHUNK], vec![0; CHUNK]);
    for _ in 0..CHUNKS {
        // Each part is there before the next one is sent.
        let (sent, read) = tokio::join!(stream.write_all(&chunk), client.read_exact(&mut read));
        sent.unwrap();
        read.unwrap();
    }
    // A gateway that holds what it passes on grows by all of it. A quarter is for what the allocator keeps of passing buffers:
    // 2 to 25 MiB were seen, depending on which threads they passed through.
    let grown = peak() - before;
    assert!(
        grown < CHUNKS / 4 * CHUNK,
        "{grown} bytes more for {CHUNKS} MiB"
    );
}

#[tokio::test]
async fn requests_that_never_arrive_hold_no_place_at_the_backend() {
    let backend = Backend::start().await;
    let settings = upstream(&backend)
        .set("IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT", "2")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "30s");
    let gateway = Service::gateway(settings).await;
    let request = post(OTHER, "op", "a body of which the end is missing");
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut connection = RawConnection::open(gateway.http_address()).await;
        connection
            .send(&request[..request.len() - 1])
            .await
            .unwrap();
        held.push(connection);
    }
    for _ in 0..10 {
        let call = Call::new(Method::POST, gateway.url() + OTHER).body("{}");
        assert_eq!(Client::default().send(call).await.status, 203);
    }
    assert_eq!(backend.requests().len(), 10);
}

#[tokio::test]
async fn a_request_that_is_too_large_too_slow_or_broken_is_not_blamed_on_the_backend() {
    let backend = Backend::start().await;
    let settings = upstream(&backend)
        .set("IMPORTGUARD_MAX_BODY_BYTES", "1000")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "300ms");
    let gateway = Service::gateway(settings).await;
    let large = "x".repeat(1001);
    let head = format!("POST {OTHER} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    for (rest, status, code) in [
        (format!("Content-Length: 1001\r\n\r\n{large}"), 413, 5903),
        (
            format!("Transfer-Encoding: chunked\r\n\r\n3e9\r\n{large}\r\n0\r\n\r\n"),
            413,
            5903,
        ),
        ("Content-Length: 10\r\n\r\nx".to_owned(), 408, 5900),
        (
            "Transfer-Encoding: chunked\r\n\r\nno number\r\n".to_owned(),
            400,
            5900,
        ),
    ] {
        let mut connection = RawConnection::open(gateway.http_address()).await;
        connection.send(head.clone() + &rest).await.unwrap();
        let said = connection.read_to_end().await;
        let (status, code) = (format!("HTTP/1.1 {status}"), format!("\"errCode\":{code}"));
        assert!(said.starts_with(&status) && said.contains(&code), "{said}");
    }
    assert!(backend.requests().is_empty(), "{:#?}", backend.requests());
    for outcome in ["unavailable", "timeout"] {
        let series = format!("importguard_upstream_total{{outcome=\"{outcome}\"}}");
        assert_eq!(gateway.metric(&series).await.unwrap(), 0.0, "{outcome}");
    }
    assert!(!gateway.stderr().contains("check IMPORTGUARD_UPSTREAM"));
}

/// Any caller can send such headers.
#[tokio::test]
async fn requests_that_pretend_to_go_in_circles_are_counted_apart_and_logged_in_few_lines() {
    let backend = Backend::start().await;
    let gateway = Service::gateway(upstream(&backend)).await;
    for _ in 0..100 {
        let call = Call::new(Method::POST, gateway.url() + OTHER)
            .header("Via", "1.1 importguard, 1.1 importguard, 1.1 importguard");
        asserts::refuses(Server, &Client::default().send(call).await, 502, 5910);
    }
    assert!(backend.requests().is_empty());
    for (outcome, count) in [("loop", 100.0), ("unavailable", 0.0)] {
        let series = format!("importguard_upstream_total{{outcome=\"{outcome}\"}}");
        assert_eq!(gateway.metric(&series).await.unwrap(), count, "{outcome}");
    }
    gateway
        .wait_for_log(&["more callbacks were not forwarded"])
        .await;
}

async fn fails(gateway: &Service, status: u16, code: i32) {
    for (target, dialect) in [(OTHER, Server), (OTHER_DOCUMENTED, Documented)] {
        let call = Call::new(Method::POST, gateway.url() + target).body("{}");
        let answer = Client::default().send(call).await;
        asserts::refuses(dialect, &answer, status, code);
    }
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_answered_for_with_a_refusal() {
    let address = format!("127.0.0.1:{}", importguard_tests::free_port());
    let settings = Settings::new().set("IMPORTGUARD_UPSTREAM", format!("http://{address}"));
    fails(&Service::gateway(settings).await, 502, 5910).await;
}

/// It takes connections and says nothing.
async fn silent_backend() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn so_is_one_that_is_silent_and_one_that_has_enough_to_do() {
    let (_silent, url) = silent_backend().await;
    let settings = Settings::new()
        .set("IMPORTGUARD_UPSTREAM", url)
        .set("IMPORTGUARD_UPSTREAM_TIMEOUT", "300ms");
    fails(&Service::gateway(settings).await, 504, 5911).await;

    let (silent, url) = silent_backend().await;
    let settings = Settings::new()
        .set("IMPORTGUARD_UPSTREAM", url)
        .set("IMPORTGUARD_UPSTREAM_TIMEOUT", "15s")
        .set("IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT", "1");
    let gateway = Service::gateway(settings).await;
    let call = Call::new(Method::POST, gateway.url() + OTHER);
    let client = Client::default();
    let first = client.send(call);
    let second = async {
        // The first one is at the backend.
        let _connection = silent.accept().await.unwrap();
        fails(&gateway, 503, 5913).await;
    };
    tokio::select! {
        answer = first => panic!("answered: {answer:?}"),
        () = second => {}
    }
    // Imports have places of their own.
    let server = OpenIm::server(gateway.url());
    asserts::refuses(Server, &server.import("op", "a", &["b"]).await, 200, 5910);
}

#[tokio::test]
async fn so_is_one_that_is_the_gateway_itself() {
    let port = free_port();
    let settings = Settings::new()
        .set("IMPORTGUARD_HTTP_LISTEN", format!("127.0.0.1:{port}"))
        .set("IMPORTGUARD_UPSTREAM", format!("http://127.0.0.1:{port}"));
    let gateway = Service::gateway(settings).await;
    fails(&gateway, 502, 5910).await;
    gateway.wait_for_log(&["leads back to this gateway"]).await;
    // Each of the two callbacks ended the third time that it came back.
    for (outcome, count) in [("passed", 6.0), ("loop", 2.0)] {
        let series = format!("importguard_upstream_total{{outcome=\"{outcome}\"}}");
        assert_eq!(gateway.metric(&series).await.unwrap(), count, "{outcome}");
    }
}

#[tokio::test]
async fn a_backend_with_tls_is_known_by_its_certificate() {
    let [trusted, other] = [(); 2].map(|()| TestCertificate::new());
    let roots = MountedSecret::new(&[("ca.pem", trusted.cert_pem())]);
    for (certificate, trusted) in [(&trusted, true), (&other, false)] {
        let backend = Backend::with_tls(certificate).await;
        let settings = Settings::new()
            .set("SSL_CERT_FILE", roots.setting("ca.pem"))
            .set(
                "IMPORTGUARD_UPSTREAM",
                format!("https://{}", backend.address()),
            );
        let gateway = Service::gateway(settings).await;
        if trusted {
            let call = Call::new(Method::POST, gateway.url() + OTHER).body("{}");
            assert_eq!(Client::default().send(call).await.status, 203);
        } else {
            fails(&gateway, 502, 5910).await;
            gateway
                .wait_for_log(&[
                    "the backend is unreachable: its certificate was not issued by a CA that the system trusts",
                    "SSL_CERT_FILE",
                ])
                .await;
        }
    }
}

#[tokio::test]
async fn a_backend_without_tls_is_told_apart() {
    let backend = Backend::start().await;
    let settings = Settings::new().set(
        "IMPORTGUARD_UPSTREAM",
        format!("https://{}", backend.address()),
    );
    let gateway = Service::gateway(settings).await;
    fails(&gateway, 502, 5910).await;
    gateway
        .wait_for_log(&["it does not use TLS; use http:// in IMPORTGUARD_UPSTREAM"])
        .await;
}

#[tokio::test]
async fn who_may_not_come_in_does_not_reach_it_either() {
    let backend = Backend::start().await;
    let secret = MountedSecret::new(&[("tokens", "t0ken")]);
    let settings =
        upstream(&backend).set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"));
    fails(&Service::gateway(settings).await, 401, 5902).await;
    assert!(backend.requests().is_empty());
}
