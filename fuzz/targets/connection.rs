//! Bytes on a connection to a gateway with a password: everything that it says is a callback answer that refuses, as it has no
//! decider, or a client error without a body, where the bytes are no HTTP; but for the answer to a report, which is recorded without one. The first byte cuts the bytes in two packets.
#![no_main]

use std::{net::SocketAddr, sync::LazyLock, time::Duration};

use clap::Parser;
use importguard_core::Dialect;
use importguard_fuzz::spoken;
use importguard_gateway::{Gateway, Settings};

use importguard_tests::Reading;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longer than any time-out of the gateway below.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    settings: Settings,
}

struct Running {
    runtime: Runtime,
    address: SocketAddr,
    _files: TempDir,
}

static GATEWAY: LazyLock<Running> = LazyLock::new(|| {
    let files = TempDir::new().unwrap();
    let keys = files.path().join("keys");
    std::fs::write(&keys, "openim:secret\n").unwrap();
    let settings = Cli::parse_from([
        "gateway".as_ref(),
        "--basic-auth-file".as_ref(),
        keys.as_os_str(),
        "--spool".as_ref(),
        files.path().join("spool").as_os_str(),
        // Nobody listens on these.
        "--decider-url=http://127.0.0.1:9".as_ref(),
        "--nats-url=nats://127.0.0.1:9".as_ref(),
    ])
    .settings;
    let runtime = Runtime::new().unwrap();
    let address = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut shared = importguard_runtime::Runtime::new(CancellationToken::new()).unwrap();
        let gateway = Gateway::start(&settings, &mut shared).await.unwrap();
        tokio::spawn(async move {
            let ended = gateway.serve(listener, CancellationToken::new()).await;
            panic!("the gateway has ended: {ended:?}");
        });
        address
    });
    Running {
        runtime,
        address,
        _files: files,
    }
});

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    let Running {
        runtime, address, ..
    } = &*GATEWAY;
    let said = runtime.block_on(converse(
        *address,
        bytes.split_at(bytes.len().min(cut.into())),
    ));
    if !said.is_empty() && !bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
        let report = b"callbackAfterImportFriendsCommand";
        let may_report = bytes.windows(report.len()).any(|part| part == report);
        only_refuses(&said, may_report);
    }
});

/// Sends both parts, and returns everything that is said until the other side hangs up.
async fn converse(address: SocketAddr, (first, second): (&[u8], &[u8])) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    // A gateway that has heard enough may hang up.
    let _ = stream.write_all(first).await;
    let _ = stream.write_all(second).await;
    let _ = stream.shutdown().await;
    let mut said = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut said)).await;
    // Kept, a reset comes after the answer.
    let _ = read.expect("the gateway hangs up");
    said
}

/// One answer after the other, each with a body that refuses; an interim answer has none.
fn only_refuses(mut said: &[u8], may_report: bool) {
    while !said.is_empty() {
        let shown = String::from_utf8_lossy(said);
        let end = said.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no whole head: {shown}"));
        let head = std::str::from_utf8(&said[..end]).expect("a head in ASCII");
        said = &said[end + 4..];
        if head.starts_with("HTTP/1.1 100 ") {
            continue;
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.expect("a length").parse().unwrap();
        // An answer to HEAD has a length and no body.
        if said.first() != Some(&b'{') {
            assert!(said.is_empty() || said.starts_with(b"HTTP/1."), "{shown}");
            continue;
        }
        let (body, rest) = said.split_at_checked(length).expect("a whole body");
        // Each dialect's reader fails on the other's answers.
        let fits = |dialect| match spoken(dialect, body) {
            Reading::Refuses { .. } => true,
            Reading::Imports { instead } => may_report && instead.is_none(),
            Reading::Fails(_) => false,
        };
        let fits = [Dialect::Documented, Dialect::Server].into_iter().any(fits);
        assert!(fits, "{shown}");
        said = rest;
    }
}
