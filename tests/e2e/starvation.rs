//! Attacks on the gateway's time: whatever callers send that needs no decision, honest ones still get the policy's verdict.

use importguard_core::Dialect::Server;
use importguard_tests::{Frame, Line, MountedSecret, Settings};
use tokio::{
    io::{AsyncWriteExt, copy, sink},
    net::TcpStream,
    task::JoinSet,
};

use crate::asserts;

const TOKEN: &str = "t0ken";

/// Connections that send `bytes` again and again, as fast as they are taken, and read all answers. A new one replaces each that is
/// closed. They end when this is dropped.
fn flood(address: &str, connections: usize, opening: &[u8], bytes: &[u8]) -> JoinSet<()> {
    (0..connections)
        .map(|_| {
            let (address, opening, bytes) = (address.to_owned(), opening.to_vec(), bytes.to_vec());
            async move {
                loop {
                    let Ok(stream) = TcpStream::connect(&address).await else {
                        continue;
                    };
                    let (mut read, mut write) = stream.into_split();
                    let sending = async {
                        let _ = write.write_all(&opening).await;
                        while write.write_all(&bytes).await.is_ok() {}
                    };
                    let mut unread = sink();
                    let _ = tokio::join!(sending, copy(&mut read, &mut unread));
                }
            }
        })
        .collect()
}

/// The policy refuses every one of them, and a decider that is too late would allow it.
async fn all_are_refused(line: &Line) {
    let bearer = format!("Bearer {TOKEN}");
    for number in 0..20 {
        let server = line.server();
        let call = server.before_import(&format!("op-{number}"), "blocked_owner", &["user2"]);
        let answer = server.send(call.header("Authorization", &bearer)).await;
        asserts::refuses(Server, &answer, 200, 5001);
    }
}

/// A gateway that lets in who has the token, and its decider.
async fn locked(secret: &MountedSecret) -> Line {
    let settings = Settings::new()
        .set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"))
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "500ms")
        .set("IMPORTGUARD_ON_DECIDER_TIMEOUT", "allow");
    Line::with(settings).await
}

#[tokio::test]
async fn pipelined_requests_without_credentials_delay_no_verdict_until_it_is_too_late() {
    let secret = MountedSecret::new(&[("tokens", TOKEN)]);
    let line = locked(&secret).await;
    let request =
        "POST /callbackBeforeImportFriendsCommand HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let address = line.gateway.http_address();
    let _flood = flood(address, 100, &[], request.repeat(100).as_bytes());
    let rejected = "importguard_rejections_total{code=\"5902\"}";
    line.gateway
        .wait_for_metric(rejected, |count| count > 1_000.0)
        .await;
    all_are_refused(&line).await;
}

#[tokio::test]
async fn nor_do_frames_that_belong_to_no_request() {
    let secret = MountedSecret::new(&[("tokens", TOKEN)]);
    let line = locked(&secret).await;
    for (kind, stream, payload) in [
        (Frame::PING, 0, &[0; 8][..]),
        (Frame::SETTINGS, 0, &[]),
        (Frame::WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        // PRIORITY, and a type that nothing has.
        (2, 3, &[0, 0, 0, 0, 16]),
        (0x55, 0, &[]),
    ] {
        let opening = [Frame::PREFACE, &Frame::bytes(Frame::SETTINGS, 0, 0, &[])].concat();
        let frames = Frame::bytes(kind, 0, stream, payload).repeat(4_000);
        let flood = flood(line.gateway.http_address(), 20, &opening, &frames);
        all_are_refused(&line).await;
        drop(flood);
    }
}
