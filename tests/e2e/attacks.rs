//! Callers who hold up connections, bodies and responses: they lose them, and honest callbacks get the policy's verdict meanwhile.

use std::time::Duration;

use http::Method;
use importguard_proto::event::Dialect::Server;
use importguard_tests::{
    Binary, Call, Client, Http2Connection, Line, MountedSecret, OpenIm, RawConnection, Service,
    Settings, TestCertificate, eventually, frame, load,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::asserts;

/// A whole callback as bytes, whose response repeats `friends` ids.
fn callback(friends: usize) -> String {
    let body = body(friends);
    format!(
        "POST /?command=ImportFriendReqBeforeCommand HTTP/1.1\r\nHost: x\r\nOperationid: op\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn body(friends: usize) -> String {
    let ids: Vec<_> = (0..friends).map(|n| format!("friend_{n:08}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    OpenIm::documented("").body("blocked_owner", &ids)
}

/// Honest callbacks one after the other, each decided by the policy.
async fn honest(server: &OpenIm, callbacks: usize) {
    for number in 0..callbacks {
        let answer = server
            .import(&format!("op-{number}"), "user123", &["user456"])
            .await;
        asserts::allows(Server, &answer);
        let answer = server
            .import(&format!("op-{number}"), "blocked_owner", &["user456"])
            .await;
        asserts::refuses(Server, &answer, 200, 5001);
    }
}

#[tokio::test]
async fn a_response_that_nobody_reads_ends_its_http2_connection() {
    const STREAMS: u32 = 60;
    let settings = Settings::new()
        .set("IMPORTGUARD_WRITE_TIMEOUT", "500ms")
        .patient();
    let line = Line::with(settings).await;
    // SETTINGS_INITIAL_WINDOW_SIZE, and the connection's own window is never opened any further.
    for window in [0_u32, 1, 65_535] {
        let size = [&[0, 4][..], &window.to_be_bytes()].concat();
        let mut unread = Http2Connection::open(line.gateway.http_address(), &size).await;
        let body = body(1_000);
        for stream in (0..STREAMS).map(|n| 2 * n + 1) {
            let path = "/?command=ImportFriendReqBeforeCommand";
            unread.begin_at(path, stream, 0).await;
            let mut parts = body.as_bytes().chunks(16_384).peekable();
            while let Some(part) = parts.next() {
                let last = if parts.peek().is_none() {
                    frame::END_STREAM
                } else {
                    0
                };
                if unread
                    .try_send(frame::DATA, last, stream, part)
                    .await
                    .is_err()
                {
                    break;
                }
            }
        }
        unread.ends().await;
    }
    honest(&line.server(), 3).await;
}

#[tokio::test]
async fn nor_does_a_caller_who_never_reads_over_http1_keep_their_connection() {
    let settings = Settings::new()
        .set("IMPORTGUARD_WRITE_TIMEOUT", "500ms")
        .patient();
    let line = Line::with(settings).await;
    let stream = TcpStream::connect(line.gateway.http_address())
        .await
        .unwrap();
    let (_unread, mut write) = stream.into_split();
    let request = callback(10_000);
    // What both kernels take is a few megabytes at most: after that nobody reads the requests either, until they are cut.
    let sent = tokio::time::timeout(Duration::from_secs(30), async {
        for _ in 0..1_000 {
            write.write_all(request.as_bytes()).await?;
        }
        std::io::Result::Ok(())
    });
    let sent = sent.await.expect("it is cut");
    assert!(sent.is_err(), "everything was read");
    honest(&line.server(), 3).await;
}

#[tokio::test]
async fn silent_sockets_do_not_shut_the_door() {
    let settings = Settings::new()
        .set("IMPORTGUARD_MAX_CONNECTIONS", "20")
        .set("IMPORTGUARD_ON_OVERLOAD", "allow")
        .patient();
    let line = Line::with(settings).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(
            TcpStream::connect(line.gateway.http_address())
                .await
                .unwrap(),
        );
    }
    honest(&line.server(), 3).await;
    drop(silent);
}

#[tokio::test]
async fn nor_do_they_end_a_connection_that_is_served() {
    let settings = Settings::new()
        .set("IMPORTGUARD_MAX_CONNECTIONS", "5")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "30s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "40s")
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1m");
    let line = Line::with(settings).await;
    line.decider.freeze().await;
    let server = line.server();
    let served = tokio::spawn(async move { server.import("op", "user1", &["user2"]).await });
    eventually("it is worked on", Duration::from_secs(10), async || {
        let now = line.gateway.metric("importguard_in_flight").await?;
        anyhow::ensure!(now == 1.0, "{now}");
        Ok(())
    })
    .await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(
            TcpStream::connect(line.gateway.http_address())
                .await
                .unwrap(),
        );
    }
    eventually("others are closed", Duration::from_secs(10), async || {
        let evicted = "importguard_connections_evicted_total";
        let now = line.gateway.metric(evicted).await?;
        anyhow::ensure!(now >= 45.0, "{now}");
        Ok(())
    })
    .await;
    line.decider.thaw();
    asserts::allows(Server, &served.await.unwrap());
}

#[tokio::test]
async fn a_connection_that_never_says_a_word_ends_soon() {
    let settings = Settings::new()
        .set("IMPORTGUARD_HEADER_READ_TIMEOUT", "300ms")
        .set("IMPORTGUARD_IDLE_TIMEOUT", "10m");
    let gateway = Service::gateway(settings).await;
    RawConnection::open(gateway.http_address())
        .await
        .ends()
        .await;
}

#[tokio::test]
async fn bodies_that_trickle_take_no_place() {
    let settings = Settings::new()
        .set("IMPORTGUARD_MAX_IN_FLIGHT", "2")
        .set("IMPORTGUARD_QUEUE_TIMEOUT", "0ms")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "15s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "15s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "5s");
    let line = Line::with(settings).await;
    let request = callback(100);
    let mut trickling = Vec::new();
    for _ in 0..50 {
        let mut connection = RawConnection::open(line.gateway.http_address()).await;
        connection
            .send(&request[..request.len() - 1])
            .await
            .unwrap();
        trickling.push(connection);
    }
    honest(&line.server(), 5).await;
    // They are no worse off themselves.
    for mut connection in trickling {
        connection
            .send(&request[request.len() - 1..])
            .await
            .unwrap();
        let answer = connection.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn room_for_bytes_is_made_by_who_holds_up_most() {
    let settings = Settings::new()
        .set("IMPORTGUARD_MAX_BYTES_IN_FLIGHT", "1048576")
        .set("IMPORTGUARD_MAX_BODY_BYTES", "400000")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "15s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "15s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "5s");
    let line = Line::with(settings).await;
    let request = callback(15_000);
    let mut trickling = Vec::new();
    for _ in 0..5 {
        let mut connection = RawConnection::open(line.gateway.http_address()).await;
        // One that was closed for another is not written to any more.
        let _ = connection.send(&request[..request.len() - 1]).await;
        trickling.push(connection);
    }
    honest(&line.server(), 5).await;
    let evicted = line.gateway.metric("importguard_connections_evicted_total");
    assert!(evicted.await.unwrap() > 0.0);
}

#[tokio::test]
async fn a_burst_is_worked_off_over_https_as_it_is_over_http() {
    const AT_ONCE: usize = 400;
    // More than are worked on at once, and as patient as a debug build on a busy machine needs.
    let patient = || {
        Settings::new()
            .set("IMPORTGUARD_MAX_IN_FLIGHT", "32")
            .set("IMPORTGUARD_QUEUE_TIMEOUT", "20s")
            .set("IMPORTGUARD_REQUEST_BUDGET", "30s")
            .set("IMPORTGUARD_DECIDER_TIMEOUT", "15s")
            .set("IMPORTGUARD_BODY_READ_TIMEOUT", "15s")
    };
    let certificate = TestCertificate::new();
    let secret = MountedSecret::new(&[
        ("tls.crt", certificate.cert_pem()),
        ("tls.key", certificate.key_pem()),
    ]);
    let over_tls = patient()
        .set("IMPORTGUARD_TLS_CERT_FILE", secret.setting("tls.crt"))
        .set("IMPORTGUARD_TLS_KEY_FILE", secret.setting("tls.key"));
    for (settings, scheme) in [(patient(), "http"), (over_tls, "https")] {
        let line = Line::with(settings).await;
        let url = format!("{scheme}://{}", line.gateway.http_address());
        // Over HTTP/2 a hundred at once share a connection.
        let servers: Vec<_> = (0..AT_ONCE / 100)
            .map(|_| match scheme {
                "https" => OpenIm::server(&url).over(Client::http2(&certificate)),
                _ => OpenIm::server(&url),
            })
            .collect();
        let answers = load(AT_ONCE, AT_ONCE, async |number| {
            let server = &servers[number % servers.len()];
            server.import(&format!("op-{number}"), "a", &["b"]).await
        })
        .await;
        for answer in answers {
            asserts::allows(Server, &answer);
        }
    }
}

#[tokio::test]
async fn idle_connections_to_the_admin_listener_leave_callbacks_answered() {
    let line = Line::with(Settings::new().patient()).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(
            TcpStream::connect(line.gateway.admin_address())
                .await
                .unwrap(),
        );
    }
    honest(&line.server(), 3).await;
    line.gateway.admin("/readyz").await.unwrap();
    let files = line.gateway.vitals().files;
    assert!(files < 250, "{files} files are open");
}

#[tokio::test]
async fn a_limit_of_open_files_below_the_settings_is_an_error_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -n 300 && exec \"$0\""])
        .arg(Binary::Gateway.path())
        .current_dir(dir.path());
    Settings::new()
        .set("IMPORTGUARD_HTTP_LISTEN", "127.0.0.1:0")
        .set("IMPORTGUARD_ADMIN_LISTEN", "127.0.0.1:0")
        .apply(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["300 files", "IMPORTGUARD_MAX_CONNECTIONS", "ulimit -Hn"] {
        assert!(said.contains(part), "no {part} in {said}");
    }
}

#[tokio::test]
async fn a_low_soft_limit_of_open_files_is_raised() {
    let gateway = Service::gateway(Settings::new()).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.id())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let mut files = files.unwrap().split_whitespace().skip(3);
    assert_eq!(files.next(), files.next(), "{limits}");
}

#[tokio::test]
async fn a_flood_of_rejections_has_few_lines_with_the_peers_address() {
    const CALLS: usize = 500;
    let gateway = Service::gateway(Settings::new()).await;
    let client = Client::default();
    let began = std::time::Instant::now();
    load(CALLS, 16, async |_| {
        let call = Call::new(Method::POST, gateway.url() + "/nowhere");
        assert_eq!(client.send(call).await.status, 404);
    })
    .await;
    let seconds = began.elapsed().as_secs() + 2;
    let told = gateway
        .tells(&["so many more requests with this code"])
        .await;
    let lines = told
        .lines()
        .filter(|line| line.contains("rejected: unknown"));
    let lines: Vec<_> = lines.collect();
    assert!(lines.len() as u64 <= 20 * seconds, "{} lines", lines.len());
    assert!(lines[0].contains("peer=127.0.0.1:"), "{}", lines[0]);
    let rejected = "importguard_rejections_total{code=\"5901\"}";
    assert_eq!(gateway.metric(rejected).await.unwrap(), CALLS as f64);
}
