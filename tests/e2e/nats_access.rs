//! NATS with access control: TLS on both sides, passwords, credentials files.

use std::{fs, process::Command, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use importguard_tests::{NatsServer, OpenIm, Process, Service, Settings, eventually, free_port};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream};

const SOON: Duration = Duration::from_secs(20);

/// Files that a nats-server and a gateway are given.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Writes the file and returns where it is.
    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// A nats-server with JetStream and the rest of its configuration, and its `host:port`.
    async fn serve(&self, config: &str) -> (Process, String) {
        let address = format!("127.0.0.1:{}", free_port());
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
            let mut connection = TcpStream::connect(&address).await?;
            connection.read_exact(&mut greeting).await.map(drop)
        })
        .await;
        (process, address)
    }
}

/// A gateway that has answered one import, which is recorded in any case: here nobody decides.
async fn gateway(settings: Settings) -> Service {
    let mut gateway = Service::gateway(settings).await;
    gateway.ready().await;
    gateway
}

async fn streams(settings: Settings) {
    let gateway = gateway(settings).await;
    gateway.wait_for_recorder("streaming").await;
    OpenIm::server(gateway.url())
        .import("op", "a", &["b"])
        .await;
    assert_eq!(gateway.events_by("streamed").await.unwrap(), 1.0);
}

/// The gateway can't use NATS, says why with one of `words`, and spools.
async fn spools(settings: Settings, words: &[&str]) {
    let gateway = gateway(settings).await;
    eventually("the trouble is told", SOON, async || {
        let recorder = gateway.recorder().await?;
        let told = recorder["lastError"].as_str().unwrap_or_default();
        let known = words.iter().any(|word| told.to_lowercase().contains(word));
        anyhow::ensure!(known, "{recorder}");
        Ok(())
    })
    .await;
    OpenIm::server(gateway.url())
        .import("op", "a", &["b"])
        .await;
    assert_eq!(gateway.events_by("spooled").await.unwrap(), 1.0);
}

/// An authority's certificate and, signed by it, one for 127.0.0.1 with its key; all PEM.
fn certificates() -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap());
    let authority = authority.unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let signed = params.signed_by(&key, &authority).unwrap();
    (authority.pem(), signed.pem(), key.serialize_pem())
}

#[tokio::test]
async fn tls_with_certificates_on_both_sides() {
    let files = Files::new();
    let (authority, certificate, key) = certificates();
    let authority = files.write("ca.pem", &authority);
    let certificate = files.write("cert.pem", &certificate);
    let key = files.write("key.pem", &key);
    let config = format!(
        "tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {authority:?}, verify: true }}"
    );
    let (_nats, address) = files.serve(&config).await;
    let stranger = Settings::new().set("NATS_URL", format!("tls://{address}"));
    let trusting = stranger.clone().set("NATS_CA", &authority);
    let known = trusting
        .clone()
        .set("NATS_CERT", &certificate)
        .set("NATS_KEY", &key);
    streams(known).await;
    // Its certificate is nothing to one who doesn't know the authority, and it wants to see one itself.
    spools(stranger, &["certificate", "tls", "nats is unreachable"]).await;
    spools(
        trusting,
        &["certificate", "tls", "lost", "nats is unreachable"],
    )
    .await;
}

#[tokio::test]
async fn user_and_password_in_the_url() {
    let files = Files::new();
    let config = "authorization { user: guard, password: s3cret }";
    let (_nats, address) = files.serve(config).await;
    let url = |password: &str| {
        let url = format!("nats://guard:{password}@{address}");
        Settings::new().set("NATS_URL", url)
    };
    streams(url("s3cret")).await;
    spools(url("wrong"), &["authorization"]).await;
}

/// A JWT as NATS reads it, with `claims` about `subject`, signed by `issuer`.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: Value) -> String {
    let encode = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let header = encode(json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let body = encode(json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name,
        "sub": subject.public_key(), "nats": claims,
    }));
    let signature = issuer.sign(format!("{header}.{body}").as_bytes()).unwrap();
    format!("{header}.{body}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// A user of `account`, as a credentials file.
fn credentials(account: &KeyPair) -> String {
    let user = KeyPair::new_user();
    let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    let jwt = jwt(account, &user, "gateway", claims);
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
    spools(with("other.creds", other.clone()), &["authorization"]).await;

    let gateway = gateway(with("replaced.creds", other)).await;
    files.write("replaced.creds", "no credentials");
    eventually("the broken file is reported", SOON, async || {
        let ready = gateway.admin("/readyz").await?;
        anyhow::ensure!(ready.contains("it holds no user JWT"), "{ready}");
        Ok(())
    })
    .await;
    files.write("replaced.creds", &credentials(&account));
    gateway.wait_for_recorder("streaming").await;
}
