//! NATS with access control: credentials files, an inbox of one's own, and a warning without TLS.

use std::{fs, process::Command, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use importguard_tests::{
    Binary, NatsServer, OpenIm, Process, SOON, Service, Settings, eventually, free_port,
};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream};

/// Files that a nats-server and a gateway are given.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Writes the file and returns where it is.
    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// A nats-server with JetStream and the rest of its configuration, and its `host:port`.
    pub(crate) async fn serve(&self, config: &str) -> (Process, String) {
        let address = format!("127.0.0.1:{}", free_port());
        (self.serve_at(&address, config).await, address)
    }

    pub(crate) async fn serve_at(&self, address: &str, config: &str) -> Process {
        let store = self.0.path().join("store");
        let file = self.write(
            "nats.conf",
            &format!("listen: {address:?}\njetstream {{ store_dir: {store:?} }}\n{config}\n"),
        );
        let mut command = Command::new(NatsServer::program());
        command.args(["--config", &file]);
        let mut process = Process::spawn("nats-server", command, self.0.path());
        eventually("nats-server answers", SOON, async || {
            assert_eq!(process.ended(), None, "nats-server gave up");
            // It greets with INFO {…}, also before TLS.
            let mut greeting = [0; 4];
            let mut connection = TcpStream::connect(address).await?;
            connection.read_exact(&mut greeting).await.map(drop)
        })
        .await;
        process
    }
}

/// A gateway that has answered one import, which is recorded in any case: here nobody decides.
pub(crate) async fn gateway(settings: Settings) -> Service {
    let mut gateway = Service::gateway(settings).await;
    gateway.ready().await;
    gateway
}

pub(crate) async fn streams(settings: Settings) {
    let gateway = gateway(settings.with_long_ack_timeout()).await;
    gateway.wait_for_recorder("streaming").await;
    OpenIm::server(gateway.url())
        .import("op", "a", &["b"])
        .await;
    assert_eq!(gateway.events_by("streamed").await.unwrap(), 1.0);
}

/// The gateway cannot use NATS, says why with all of `parts` in its log and in `/readyz`, and spools.
pub(crate) async fn spools(settings: Settings, parts: &[&str]) {
    let gateway = gateway(settings).await;
    reports(&gateway, parts).await;
    OpenIm::server(gateway.url())
        .import("op", "a", &["b"])
        .await;
    assert_eq!(gateway.events_by("spooled").await.unwrap(), 1.0);
    // Reported once, and not at each attempt.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let said = gateway.stderr();
    let lines = said
        .lines()
        .filter(|line| parts.iter().all(|part| line.contains(part)));
    assert_eq!(lines.count(), 1, "{said}");
}

pub(crate) async fn reports(gateway: &Service, parts: &[&str]) {
    eventually("the cause is reported", SOON, async || {
        let recorder = gateway.recorder().await?;
        let error = recorder["lastError"].as_str().unwrap_or_default();
        let complete = parts.iter().all(|part| error.contains(part));
        anyhow::ensure!(complete, "{parts:?}: {recorder}");
        anyhow::ensure!(gateway.stderr().contains(error), "{}", gateway.stderr());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_inbox_prefix_needs_no_permission_for_the_inboxes_of_others() {
    let files = Files::new();
    let config = "authorization { users: [ { user: guard, password: s3cret, permissions: {
        publish: [\"importguard.v1.>\", \"$JS.API.>\"], subscribe: [\"_INBOX_guard.>\"] } } ] }";
    let (_nats, address) = files.serve(config).await;
    let shared = Settings::new().set("NATS_URL", format!("nats://guard:s3cret@{address}"));
    let refused = gateway(shared.clone()).await;
    refused
        .wait_for_log(&["Permissions Violation for Subscription to \"_INBOX."])
        .await;
    OpenIm::server(refused.url())
        .import("op", "a", &["b"])
        .await;
    assert_eq!(refused.events_by("spooled").await.unwrap(), 1.0);
    let own = shared.set("NATS_INBOX_PREFIX", "_INBOX_guard");
    streams(own.clone()).await;

    let mut command = own.command(Binary::AllInOne.path());
    command.args(["tail", "--since", "1h", "--count", "1"]);
    let mut tail = Process::spawn("tail", command, files.0.path());
    assert!(tail.exit(SOON).await.success(), "{}", tail.output());
}

#[tokio::test]
async fn credentials_in_clear_off_this_machine_are_a_warning() {
    const WARNING: &str = "sent unencrypted";
    for (url, warns) in [
        ("nats://guard:s3cret@nats.invalid:4222", true),
        ("nats://s3cret@nats.invalid:4222,nats://127.0.0.1:1", true),
        ("tls://guard:s3cret@nats.invalid:4222", false),
        ("nats://nats.invalid:4222", false),
        (
            "nats://guard:s3cret@localhost:1,nats://guard:s3cret@127.0.0.1:1",
            false,
        ),
    ] {
        let gateway = gateway(Settings::new().set("NATS_URL", url)).await;
        // The warning comes before this line.
        gateway.wait_for_log(&["connecting to NATS at"]).await;
        let said = gateway.output();
        assert_eq!(
            said.matches(WARNING).count(),
            usize::from(warns),
            "{url}: {said}"
        );
        if warns {
            assert!(
                said.contains("use tls:// in NATS_URL, or set NATS_CA"),
                "{said}"
            );
        }
        assert!(!said.contains("s3cret"), "{said}");
    }
}

/// A JWT as NATS reads it, with `claims` about `subject`, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: Value) -> String {
    jwt_until(0, issuer, subject, name, claims)
}

/// A JWT that expires at `end`, in seconds since 1970; at 0, never.
fn jwt_until(end: u64, issuer: &KeyPair, subject: &KeyPair, name: &str, claims: Value) -> String {
    let encode = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let header = encode(json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let body = encode(json!({
        "jti": name, "iat": 1_700_000_000, "exp": end, "iss": issuer.public_key(), "name": name,
        "sub": subject.public_key(), "nats": claims,
    }));
    let signature = issuer.sign(format!("{header}.{body}").as_bytes()).unwrap();
    format!("{header}.{body}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// A user of `account`, as a credentials file.
pub(crate) fn credentials(account: &KeyPair) -> String {
    credentials_until(0, account)
}

fn credentials_until(end: u64, account: &KeyPair) -> String {
    let user = KeyPair::new_user();
    let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    let jwt = jwt_until(end, account, &user, "gateway", claims);
    let seed = user.seed().unwrap();
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

/// An account with these limits on what it stores, as the server's configuration has it.
fn preloaded(operator: &KeyPair, account: &KeyPair, storage: &Value) -> String {
    let mut limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    for (name, limit) in storage.as_object().unwrap() {
        limits[name] = limit.clone();
    }
    let claims = json!({"type": "account", "version": 2, "limits": limits});
    let jwt = jwt(operator, account, "importguard", claims);
    format!("{}: {jwt}", account.public_key())
}

#[tokio::test]
async fn a_credentials_file_of_an_operators_account() {
    let files = Files::new();
    let operator = KeyPair::new_operator();
    let (account, system) = (KeyPair::new_account(), KeyPair::new_account());
    let claims = json!({"type": "operator", "version": 2, "system_account": system.public_key()});
    let operator_jwt = jwt(&operator, &operator, "operator", claims);
    // Only a server with a system account has JetStream, and that account may not have it.
    let storage = json!({"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
    let config = format!(
        "operator: {operator_jwt}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload {{ {}\n{} }}",
        system.public_key(),
        preloaded(&operator, &system, &json!({})),
        preloaded(&operator, &account, &storage)
    );
    let (_nats, address) = files.serve(&config).await;
    let with = |name: &str, content: String| {
        let settings = Settings::new().set("NATS_URL", format!("nats://{address}"));
        settings.set("NATS_CREDS", files.write(name, &content))
    };
    streams(with("gateway.creds", credentials(&account))).await;
    let other = credentials(&KeyPair::new_account());
    spools(
        with("other.creds", other.clone()),
        &["rejected the credentials", "authorization violation"],
    )
    .await;

    let gateway = gateway(with("replaced.creds", other)).await;
    files.write("replaced.creds", "no credentials");
    eventually("the broken file is reported", SOON, async || {
        let ready = gateway.admin("/readyz").await?;
        anyhow::ensure!(ready.contains("it holds no user JWT"), "{ready}");
        Ok(())
    })
    .await;
    let no_jwt = credentials(&account).replace('.', "");
    files.write("replaced.creds", &no_jwt);
    eventually("what is no JWT is reported", SOON, async || {
        let ready = gateway.admin("/readyz").await?;
        anyhow::ensure!(ready.contains("its user JWT is invalid"), "{ready}");
        Ok(())
    })
    .await;
    files.write("replaced.creds", &credentials(&account));
    gateway.wait_for_recorder("streaming").await;

    // One that has expired does not replace it; a gateway starts with it, as events can wait in the spool.
    let expired = credentials_until(1_700_000_001, &account);
    files.write("replaced.creds", &expired);
    let parts = ["cannot reload NATS_CREDS", "expired on 2023-11-14"];
    gateway.wait_for_log(&parts).await;
    let settings = with("expired.creds", expired);
    spools(settings, &["rejected the credentials"]).await;
}

#[tokio::test]
async fn a_server_without_jetstream_is_the_cause_that_is_named() {
    let directory = TempDir::new().unwrap();
    let port = free_port().to_string();
    let mut command = Command::new(NatsServer::program());
    command.args(["--addr", "127.0.0.1", "--port", &port]);
    let _server = Process::spawn("nats-server", command, directory.path());
    let address = format!("127.0.0.1:{port}");
    eventually("nats-server answers", SOON, async || {
        TcpStream::connect(&address).await.map(drop)
    })
    .await;
    let settings = Settings::new().set("NATS_URL", format!("nats://{address}"));
    let output = settings.run(["tail", "--no-follow"]).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("JetStream is off"), "{stderr}");
}
