//! Attacks with connections, windows and incomplete requests: honest callers still get the policy's verdict.

use std::time::{Duration, Instant};

use importguard_core::Dialect::Server;
use importguard_tests::{
    HeldCall, Http2Client, Http2Connection, Line, MountedSecret, Occupied, OpenIm, RawConnection,
    Reading, SOON, Service, Settings, TestCertificate, eventually, load, post,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::asserts;

const PATH: &str = "/callbackBeforeImportFriendsCommand";

/// How long an honest caller waits for a verdict at most, whatever others do.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// An import that is answered with as much as it asks: without a decider it is refused, and the documentation wants the list back.
fn echoing() -> (&'static str, String) {
    let friends: Vec<_> = (0..1_000).map(|n| format!("a_friend_{n:04}")).collect();
    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
    let body = OpenIm::documented("").body("user123", &friends);
    ("/?command=ImportFriendReqBeforeCommand", body)
}

fn impatient() -> Settings {
    Settings::new().set("IMPORTGUARD_WRITE_TIMEOUT", "500ms")
}

#[tokio::test]
async fn answers_that_no_window_is_opened_for_are_given_up() {
    let gateway = Service::gateway(impatient()).await;
    let (path, body) = echoing();
    let mut held = Vec::new();
    // The last is HTTP/2's own, which the connection has once for all of its streams.
    for window in [0, 1, 65_535] {
        let mut connection =
            Http2Connection::open_with_window(gateway.http_address(), window).await;
        for number in 0..60 {
            connection.post(2 * number + 1, path, body.as_bytes()).await;
        }
        if !connection.closes_within(SOON).await {
            held.push(window);
        }
    }
    assert!(
        held.is_empty(),
        "windows of {held:?} bytes hold 60 answers each for ever"
    );
    nothing_is_left(&gateway).await;
}

#[tokio::test]
async fn so_are_answers_that_are_not_read() {
    let gateway = Service::gateway(impatient()).await;
    let (path, body) = echoing();
    let request = post(path, "op", &body);
    let socket = TcpSocket::new_v4().unwrap();
    // The kernel would take megabytes otherwise.
    socket.set_recv_buffer_size(4_096).unwrap();
    let address = gateway.http_address().parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    // Until the other side has hung up.
    let asking = async { while stream.write_all(request.as_bytes()).await.is_ok() {} };
    let ended = timeout(SOON, asking).await;
    assert!(ended.is_ok(), "answers wait for somebody to read for ever");
    nothing_is_left(&gateway).await;
}

/// Nothing is kept for callers who have been given up, and the next one is answered.
async fn nothing_is_left(gateway: &Service) {
    eventually("they are closed", SOON, async || {
        let open = gateway.metric("importguard_connections").await?;
        let working = gateway.metric("importguard_in_flight").await?;
        anyhow::ensure!(
            open == 0.0 && working == 0.0,
            "{open} are open, {working} worked on"
        );
        Ok(())
    })
    .await;
    let answer = OpenIm::server(gateway.url())
        .import("op", "a", &["b"])
        .await;
    asserts::refuses(Server, &answer, 200, 5910);
}

/// Connections that say nothing.
async fn silent(address: &str, count: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    silent
}

#[tokio::test]
async fn idle_connections_keep_no_caller_out() {
    // Who may not be decided upon would be let in: nobody can bring that about by connecting.
    for on_overload in ["refuse", "allow"] {
        let settings = Settings::new()
            .set("IMPORTGUARD_MAX_CONNECTIONS", "20")
            // Nobody is let in because the silent ones have been given up.
            .set("IMPORTGUARD_HEADER_READ_TIMEOUT", "1h")
            .set("IMPORTGUARD_ON_OVERLOAD", on_overload);
        let line = Line::with(settings).await;
        let _silent = silent(line.gateway.http_address(), 200).await;
        let began = Instant::now();
        let server = line.server();
        let allowed = server.import("op", "user1", &["user2"]).await;
        let took = began.elapsed();
        asserts::allows(Server, &allowed);
        assert!(took < MAX_WAIT, "{took:?}");
        let refused = server.import("op", "blocked_owner", &["user2"]).await;
        asserts::refuses(Server, &refused, 200, 5001);
    }
}

/// The preface of HTTP/2 behind a request of HTTP/1.1 is an error after which hyper does not shut the connection down.
#[tokio::test]
async fn nor_do_connections_that_linger_after_an_error() {
    let settings = Settings::new().set("IMPORTGUARD_MAX_CONNECTIONS", "10");
    let line = Line::with(settings).await;
    let error =
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut lingering = Vec::new();
    for _ in 0..30 {
        let mut connection = RawConnection::open(line.gateway.http_address()).await;
        connection.send(error).await.unwrap();
        lingering.push(connection);
        let allowed = line.server().import("op", "user1", &["user2"]).await;
        asserts::allows(Server, &allowed);
    }
    let rejected = "importguard_connections_rejected_total";
    assert_eq!(line.gateway.metric(rejected).await.unwrap(), 0.0);
}

#[tokio::test]
async fn nor_do_they_take_the_place_of_a_callback_that_is_worked_on() {
    let settings = Occupied::settings().set("IMPORTGUARD_MAX_CONNECTIONS", "20");
    let line = Line::with(settings).await;
    let mut honest = Occupied::start(&line, 5).await;
    let _silent = silent(line.gateway.http_address(), 200).await;
    honest.add().await;
    for answer in honest.release().await {
        asserts::allows(Server, &answer);
    }
}

#[tokio::test]
async fn if_all_connections_are_in_use_a_new_one_is_rejected_and_not_allowed() {
    let settings = Occupied::settings()
        .set("IMPORTGUARD_MAX_CONNECTIONS", "2")
        .set("IMPORTGUARD_ON_OVERLOAD", "allow");
    let line = Line::with(settings).await;
    let honest = Occupied::start(&line, 2).await;
    let call = line.server().before_import("op-late", "user1", &["user2"]);
    // It may be closed without a word.
    if let Ok(answer) = line.server().try_send(call).await {
        let reading = asserts::reading(Server, &answer);
        assert!(matches!(reading, Reading::Refuses { .. }), "{reading:?}");
    }
    for answer in honest.release().await {
        asserts::allows(Server, &answer);
    }
    let rejected = "importguard_connections_rejected_total";
    assert!(line.gateway.metric(rejected).await.unwrap() >= 1.0);
}

#[tokio::test]
async fn a_silent_connection_is_closed_as_soon_as_one_with_an_incomplete_head() {
    let certificate = TestCertificate::new();
    let secret = MountedSecret::new(&certificate.files());
    let hasty = Settings::new().set("IMPORTGUARD_HEADER_READ_TIMEOUT", "300ms");
    let with_tls = hasty.clone().tls(&secret);
    let plain = Service::gateway(hasty).await;
    let encrypted = Service::gateway(with_tls).await;
    let after_handshake = eventually("a handshake is in time", SOON, async || {
        certificate.connect(encrypted.http_address()).await
    })
    .await;
    for mut connection in [
        RawConnection::open(plain.http_address()).await,
        RawConnection::open(encrypted.http_address()).await,
        RawConnection::over(after_handshake),
    ] {
        let ends = timeout(SOON, connection.read_to_end()).await;
        assert_eq!(ends.as_deref(), Ok(""));
    }
}

#[tokio::test]
async fn halves_of_bodies_take_no_place_from_whole_callbacks() {
    let settings = Settings::new()
        .set("IMPORTGUARD_MAX_IN_FLIGHT", "2")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "60s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "60s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "120s");
    let line = Line::with(settings).await;
    let body = line.server().body("user123", &["user456"]);
    let halves = load(50, 10, async |number| {
        let id = format!("op-half-{number}");
        let mut half = HeldCall::begin(line.gateway.http_address(), &id, &body).await;
        half.trickle().await;
        half
    })
    .await;
    for number in 0..20 {
        let id = format!("op-{number}");
        let allowed = line.server().import(&id, "user1", &["user2"]).await;
        asserts::allows(Server, &allowed);
    }
    // They are no worse for having waited.
    for half in halves.into_iter().take(2) {
        assert_eq!(half.finish().await.status, 200);
    }
}

/// open-im-server's hundred connections bound nothing where each has a hundred streams.
#[tokio::test]
async fn a_thousand_imports_at_once_over_https_all_get_the_policys_verdict() {
    const CONNECTIONS: usize = 10;
    const STREAMS: usize = 100;
    let certificate = TestCertificate::new();
    let secret = MountedSecret::new(&certificate.files());
    // What is asked is whether all are decided upon, and not how soon: this is a debug build on a busy machine.
    let settings = Settings::new()
        .tls(&secret)
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "60s")
        .set("IMPORTGUARD_QUEUE_TIMEOUT", "60s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "60s")
        .set("IMPORTGUARD_WRITE_TIMEOUT", "60s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "120s");
    let line = Line::with(settings).await;
    let address = line.gateway.http_address();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Http2Client::connect(address, &certificate).await);
    }
    let server = OpenIm::server(format!("https://{address}"));
    let count = CONNECTIONS * STREAMS;
    let answers = load(count, count, async |number| {
        let owner = ["user1", "blocked_owner"][number % 2];
        let call = server.before_import(&format!("op-{number}"), owner, &["user2"]);
        connections[number % CONNECTIONS].send(call).await
    })
    .await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(asserts::code(answer), [0, 5001][number % 2], "{number}");
    }
}

#[tokio::test]
async fn at_the_byte_limit_the_connection_stalled_for_longest_is_evicted() {
    let settings = Settings::new()
        .set("IMPORTGUARD_MAX_BYTES_IN_FLIGHT", "1048576")
        .set("IMPORTGUARD_MAX_BODY_BYTES", "400000")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "15s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "15s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "5s");
    let line = Line::with(settings).await;
    let friends: Vec<_> = (0..15_000).map(|n| format!("a_friend_{n:06}")).collect();
    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
    let body = line.server().body("user123", &friends);
    let request = post(PATH, "op", &body);
    let mut trickling = Vec::new();
    for _ in 0..5 {
        let mut connection = RawConnection::open(line.gateway.http_address()).await;
        // One that was closed for another is not written to any more.
        let _ = connection.send(&request[..request.len() - 1]).await;
        trickling.push(connection);
    }
    for number in 0..5 {
        let id = format!("op-{number}");
        let allowed = line.server().import(&id, "user1", &["user2"]).await;
        asserts::allows(Server, &allowed);
    }
    let evicted = "importguard_connections_evicted_total";
    line.gateway
        .wait_for_metric(evicted, |found| found > 0.0)
        .await;
}

/// Heads of 15 KB that wait for somebody to read their answers, which nobody does.
#[tokio::test]
async fn heads_count_towards_the_byte_limit() {
    const CONNECTIONS: usize = 80;
    const STREAMS: u32 = 100;
    const MIB: u64 = 1024 * 1024;
    let settings = Settings::new().set("IMPORTGUARD_WRITE_TIMEOUT", "1s");
    let line = Line::with(settings).await;
    let at_rest = line.gateway.vitals().resident_bytes;
    let path = format!("/{}", "a".repeat(15_000));
    let held = load(CONNECTIONS, CONNECTIONS, async |_| {
        let address = line.gateway.http_address();
        let mut connection = Http2Connection::open_with_window(address, 0).await;
        for number in 0..STREAMS {
            connection.post(2 * number + 1, &path, b"{}").await;
        }
        connection
    })
    .await;
    let mut most = 0;
    eventually("all connections are closed", SOON, async || {
        most = most.max(line.gateway.vitals().resident_bytes);
        let open = line.gateway.metric("importguard_connections").await?;
        anyhow::ensure!(open == 0.0, "{open} are open");
        Ok(())
    })
    .await;
    drop(held);
    let more = most.saturating_sub(at_rest) / MIB;
    assert!(more <= 64, "{more} MiB more than at rest");
    let allowed = line.server().import("op", "user1", &["user2"]).await;
    asserts::allows(Server, &allowed);
}

/// Callbacks that a decider was asked about.
async fn asked(line: &Line) -> f64 {
    let asked = "importguard_decider_call_duration_seconds_count{result=\"ok\"}";
    line.gateway.metric(asked).await.unwrap()
}

#[tokio::test]
async fn who_takes_no_answer_has_few_imports_decided() {
    const STREAMS: u32 = 60;
    let line = Line::with(Settings::new().set("IMPORTGUARD_QUEUE_TIMEOUT", "100ms")).await;
    let body = line.server().body("user1", &["user2"]);
    let mut connection = Http2Connection::open_with_window(line.gateway.http_address(), 0).await;
    for number in 0..STREAMS {
        connection.post(2 * number + 1, PATH, body.as_bytes()).await;
    }
    // The heads of all answers are let through.
    for _ in 0..STREAMS {
        connection.next_on_any_stream().await;
    }
    let decided = asked(&line).await;
    assert!((1.0..=8.0).contains(&decided), "{decided} of {STREAMS}");
    let answer = line.server().import("op", "user1", &["user2"]).await;
    asserts::allows(Server, &answer);
}

#[tokio::test]
async fn so_has_a_caller_that_reads_nothing() {
    let line = Line::start().await;
    let friends: Vec<_> = (0..900).map(|n| format!("a_friend_{n:05}")).collect();
    let mut friends: Vec<_> = friends.iter().map(String::as_str).collect();
    // It is dropped, so that the answer has all others.
    friends.push("blocked_1");
    let body = line.server().body("user1", &friends);
    let request = post(PATH, "op", &body);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let address = line.gateway.http_address().parse().unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let asking = async { while stream.write_all(request.as_bytes()).await.is_ok() {} };
    // Until it is given up, after IMPORTGUARD_WRITE_TIMEOUT.
    timeout(SOON, asking).await.unwrap();
    let decided = asked(&line).await;
    assert!((1.0..=8.0).contains(&decided), "{decided}");
}
