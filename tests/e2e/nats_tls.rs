//! TLS with NATS: certificates on both sides, no password before it, and every cause of a failure is told.

use std::{process::Command, sync::Arc, time::Duration};

use importguard_tests::{Binary, NatsServer, Process, SOON, Settings, eventually, free_port, skip};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Mutex,
};

use crate::nats_access::{Files, gateway, reports, spools, streams};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        Self::named("the operator's CA")
    }

    fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// A certificate for `name`, changed by `change`, and its key; PEM.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let signed = params.signed_by(&key, &self.0).unwrap();
        [signed.pem(), key.serialize_pem()]
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

/// The configuration of a server with this certificate and key, and `more`.
fn tls(files: &Files, [certificate, key]: [String; 2], more: &str) -> String {
    let certificate = files.write("server.pem", &certificate);
    let key = files.write("server.key", &key);
    format!("tls {{ cert_file: {certificate:?}, key_file: {key:?}, {more} }}")
}

#[tokio::test]
async fn tls_with_certificates_on_both_sides() {
    let (files, authority) = (Files::new(), Authority::new());
    let ca = files.write("ca.pem", &authority.pem());
    let verify = format!("ca_file: {ca:?}, verify: true");
    let config = tls(&files, authority.issue("127.0.0.1", |_| {}), &verify);
    let (_nats, address) = files.serve(&config).await;
    let [certificate, key] = authority.issue("gateway", |_| {});
    let stranger = Settings::new().set("NATS_URL", format!("tls://{address}"));
    let trusting = stranger.clone().set("NATS_CA", &ca);
    let known = trusting
        .clone()
        .set("NATS_CERT", files.write("client.pem", &certificate))
        .set("NATS_KEY", files.write("client.key", &key));
    streams(known.clone()).await;
    let untrusted = [
        "certificate of NATS at 127.0.0.1",
        "is not trusted: unknown issuer",
        "NATS_CA",
    ];
    spools(stranger, &untrusted).await;
    spools(
        trusting,
        &[
            "NATS at 127.0.0.1",
            "client certificate",
            "NATS_CERT and NATS_KEY",
        ],
    )
    .await;

    let [certificate, key] = Authority::new().issue("gateway", |_| {});
    let rejected = known
        .set("NATS_CERT", files.write("other.pem", &certificate))
        .set("NATS_KEY", files.write("other.key", &key));
    spools(
        rejected,
        &[
            "NATS at 127.0.0.1",
            "NATS_CERT is valid and that the server trusts",
        ],
    )
    .await;
}

#[tokio::test]
async fn the_defect_of_a_servers_certificate_is_told() {
    let authority = Authority::new();
    let expired = authority.issue("127.0.0.1", |params| {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let early = authority.issue("127.0.0.1", |params| {
        params.not_before = date_time_ymd(2090, 1, 1);
    });
    let other = authority.issue("nats.example", |_| {});
    for (certificate, parts) in [
        (
            expired,
            [
                "has expired (on 2020-01-01T00:00:00Z)",
                "certificate of NATS at 127.0.0.1",
            ],
        ),
        (
            early,
            [
                "is not valid yet (before 2090-01-01T00:00:00Z)",
                "certificate of NATS",
            ],
        ),
        (other, ["is for another name", "nats.example"]),
    ] {
        let files = Files::new();
        let (_nats, address) = files.serve(&tls(&files, certificate, "")).await;
        let settings = Settings::new()
            .set("NATS_URL", format!("tls://{address}"))
            .set("NATS_CA", files.write("ca.pem", &authority.pem()));
        spools(settings.clone(), &parts).await;

        let logs = TempDir::new().unwrap();
        let mut command = settings.command(Binary::AllInOne.path());
        command.arg("tail");
        let tail = Process::spawn("tail", command, logs.path());
        tail.wait_for_log(&parts).await;
        // It is told once, and not at each attempt.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(tail.stderr().lines().count(), 1, "{}", tail.stderr());
    }
}

#[tokio::test]
async fn why_nats_cannot_be_reached_is_told() {
    let refused = format!("nats://127.0.0.1:{}", free_port());
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("nats://{}", silent.local_addr().unwrap());
    let files = Files::new();
    let (_nats, address) = files
        .serve("authorization { user: guard, password: s3cret }")
        .await;
    for (url, parts) in [
        (refused, ["is unreachable", "connection refused"]),
        (
            "nats://nats.invalid:4222".to_owned(),
            ["cannot resolve", "NATS_URL"],
        ),
        (silent, ["does not respond", "timed out"]),
        (
            format!("nats://guard:wrong@{address}"),
            ["rejected the credentials", "authorization violation"],
        ),
    ] {
        spools(Settings::new().set("NATS_URL", url), &parts).await;
    }
}

#[tokio::test]
async fn a_server_that_waits_for_tls_before_it_greets_is_a_cause_with_its_remedy() {
    let Some(program) = NatsServer::current() else {
        skip("`handshake_first`", "no current nats-server is installed");
        return;
    };
    let (files, authority) = (Files::new(), Authority::new());
    let ca = files.write("ca.pem", &authority.pem());
    let (address, logs) = (
        format!("127.0.0.1:{}", free_port()),
        TempDir::new().unwrap(),
    );
    for (first, is_told) in [("true", true), ("auto", false)] {
        let first = format!("handshake_first: {first}");
        let config = tls(&files, authority.issue("127.0.0.1", |_| {}), &first);
        let config = files.write(
            "first.conf",
            &format!(
                "listen: {address:?}\njetstream {{ store_dir: {:?} }}\n{config}\n",
                logs.path()
            ),
        );
        let mut command = Command::new(&program);
        command.args(["--config", &config]);
        let server = Process::spawn("nats-server", command, logs.path());
        server.wait_for_log(&["Server is ready"]).await;
        let settings = Settings::new()
            .set("NATS_URL", format!("nats://{address}"))
            .set("NATS_CA", &ca);
        if is_told {
            spools(settings, &["before it greeted", "handshake_first: auto"]).await;
        } else {
            streams(settings).await;
        }
    }
}

/// A server that says it is NATS without TLS, and what clients have sent to it.
async fn recording_server(info: &'static str) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let recorded = sent.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let recorded = recorded.clone();
            tokio::spawn(async move {
                let _ = connection.write_all(info.as_bytes()).await;
                let mut buffer = [0; 4096];
                while let Ok(bytes @ 1..) = connection.read(&mut buffer).await {
                    recorded.lock().await.extend_from_slice(&buffer[..bytes]);
                    let _ = connection
                        .write_all(b"-ERR 'Unknown Protocol Operation'\r\n")
                        .await;
                }
            });
        }
    });
    (address, sent)
}

#[tokio::test]
async fn where_tls_is_required_no_password_is_sent_without_it() {
    const INFO: &str = "INFO {\"server_id\":\"x\",\"version\":\"2.10.0\",\"max_payload\":1048576,\"headers\":true}\r\n";
    let (files, authority) = (Files::new(), Authority::new());
    let ca = files.write("ca.pem", &authority.pem());
    let [certificate, key] = authority.issue("gateway", |_| {});
    let (certificate, key) = (
        files.write("cert.pem", &certificate),
        files.write("cert.key", &key),
    );
    let (address, sent) = recording_server(INFO).await;
    let (_nats, real) = files
        .serve("authorization { user: guard, password: s3cret }")
        .await;
    for address in [address, real] {
        let plain = Settings::new().set("NATS_URL", format!("nats://guard:s3cret@{address}"));
        for settings in [
            plain.clone().set("NATS_CA", &ca),
            plain
                .clone()
                .set("NATS_CERT", &certificate)
                .set("NATS_KEY", &key),
            plain.set("NATS_URL", format!("tls://guard:s3cret@{address}")),
        ] {
            let gateway = gateway(settings).await;
            reports(&gateway, &["offers no TLS", "sent no credentials"]).await;
        }
    }
    let sent = sent.lock().await;
    let sent = String::from_utf8_lossy(&sent);
    assert!(!sent.is_empty());
    assert!(
        !sent.contains("CONNECT") && !sent.contains("s3cret"),
        "{sent}"
    );
}

#[tokio::test]
async fn certificates_are_read_again_and_invalid_ones_replace_nothing() {
    let (files, authority) = (Files::new(), Authority::new());
    let ca = files.write("ca.pem", &Authority::named("another CA").pem());
    let trusted = files.write("trusted.pem", &authority.pem());
    let verify = format!("ca_file: {trusted:?}, verify: true");
    let config = tls(&files, authority.issue("127.0.0.1", |_| {}), &verify);
    let (_nats, address) = files.serve(&config).await;
    let [certificate, key] = Authority::new().issue("gateway", |_| {});
    let settings = Settings::new()
        .set("NATS_URL", format!("nats://{address}"))
        .set("NATS_CA", &ca)
        .set("NATS_CERT", files.write("client.pem", &certificate))
        .set("NATS_KEY", files.write("client.key", &key));
    let gateway = gateway(settings).await;
    reports(&gateway, &["unknown issuer"]).await;
    files.write("ca.pem", &Authority::new().pem());
    reports(&gateway, &["of the same name", "another key"]).await;
    files.write("ca.pem", &authority.pem());
    reports(&gateway, &["NATS_CERT is valid"]).await;
    files.write("ca.pem", "-----BEGIN CERTIFICATE-----");
    eventually("the invalid file is reported", SOON, async || {
        let ready = gateway.admin("/readyz").await?;
        anyhow::ensure!(ready.contains("lastGood"), "{ready}");
        let metrics = gateway.admin("/metrics").await?;
        anyhow::ensure!(metrics.contains("importguard_file_valid{setting=\"NATS_CA\"} 0"));
        Ok(())
    })
    .await;
    reports(&gateway, &["NATS_CERT is valid"]).await;
    files.write("ca.pem", &authority.pem());
    let [certificate, key] = authority.issue("gateway", |_| {});
    files.write("client.key", &key);
    files.write("client.pem", &certificate);
    gateway.wait_for_recorder("streaming").await;
}
