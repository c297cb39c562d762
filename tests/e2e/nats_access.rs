//! NATS with access control: passwords, tokens, credentials files, an inbox of one's own.

use std::{
    fs,
    process::{Command, ExitStatus},
    time::Duration,
};

use data_encoding::BASE64URL_NOPAD;
use importguard_gateway::recorder::{NatsSettings, NatsUrls};
use importguard_runtime::{FileWatches, Secret};
use importguard_tests::{
    Binary, NatsServer, OpenIm, Process, Service, Settings, eventually, free_port,
};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream};

const SOON: Duration = Duration::from_secs(20);

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
pub(crate) async fn gateway(settings: Settings) -> Service {
    let mut gateway = Service::gateway(settings).await;
    gateway.ready().await;
    gateway
}

pub(crate) async fn streams(settings: Settings) {
    let gateway = gateway(settings).await;
    gateway.until_recorder_is("streaming").await;
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

/// Characters that mean something in a URL, in a list, in a shell or in a configuration, and letters that are not ASCII.
const SPECIAL: &str = "@#,/:=?%&+[]{}()<>\\|^~!$*;'\"` é用";

/// A password with `special` in it.
fn password(special: impl std::fmt::Display) -> String {
    format!("s3{special}cret")
}

/// As the configuration of nats-server has it.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// As a URL has it.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Connects as a gateway does; whether it is let in.
async fn is_let_in(settings: NatsSettings) -> bool {
    let mut files = FileWatches::without_metrics();
    let servers = settings.servers("test", &mut files).await.unwrap();
    servers.options.connect(servers.addresses).await.is_ok()
}

#[tokio::test]
async fn each_special_character_can_be_in_a_user_a_password_and_a_token() {
    let files = Files::new();
    let all: Vec<char> = SPECIAL.chars().collect();
    let users = all.iter().map(|special| {
        let (user, password) = (
            quoted(&format!("user{special}")),
            quoted(&password(special)),
        );
        format!("{{ user: {user}, password: {password} }}")
    });
    let users: Vec<_> = users.collect();
    let config = format!("authorization {{ users: [ {} ] }}", users.join("\n"));
    let (_nats, address) = files.serve(&config).await;
    let url: NatsUrls = format!("nats://{address}").parse().unwrap();
    for special in all {
        let (user, password) = (format!("user{special}"), password(special));
        let in_url = format!("nats://{}:{}@{address}", encoded(&user), encoded(&password));
        let in_url = NatsSettings {
            nats_url: in_url.parse().unwrap(),
            ..NatsSettings::default()
        };
        let alone = NatsSettings {
            nats_url: url.clone(),
            nats_user: Some(user),
            nats_password: Some(password.parse().unwrap()),
            ..NatsSettings::default()
        };
        let file = files.write("password", &format!("{password}\n"));
        let in_file = NatsSettings {
            nats_password: None,
            nats_password_file: Some(file.into()),
            ..alone.clone()
        };
        let wrong = NatsSettings {
            nats_password: Some(Secret::new("s3cret")),
            ..alone.clone()
        };
        for (settings, let_in) in [
            (in_url, true),
            (alone, true),
            (in_file, true),
            (wrong, false),
        ] {
            let is = is_let_in(settings.clone()).await;
            assert_eq!(is, let_in, "{special:?} {settings:?}");
        }
    }
}

#[tokio::test]
async fn a_password_or_token_of_all_special_characters_is_used_by_the_gateway_and_logged_nowhere() {
    let (files, all) = (Files::new(), password(SPECIAL));
    let config = format!(
        "authorization {{ user: guard, password: {} }}",
        quoted(&all)
    );
    let (_nats, address) = files.serve(&config).await;
    let url = format!("nats://guard:{}@{address}", encoded(&all));
    // The NATS client logs the addresses of its servers.
    let settings = Settings::new()
        .set("NATS_URL", &url)
        .set("RUST_LOG", "debug,async_nats=trace");
    let in_url = gateway(settings).await;
    in_url.until_recorder_is("streaming").await;
    in_url.tells(&["attempting connection"]).await;
    for secret in [&all, &encoded(&all), "s3@"] {
        assert!(!in_url.output().contains(secret), "{}", in_url.output());
    }
    let alone = Settings::new().set("NATS_URL", format!("nats://{address}"));
    let alone = alone.set("NATS_USER", "guard").set("NATS_PASSWORD", &all);
    streams(alone).await;

    let config = format!("authorization {{ token: {} }}", quoted(&all));
    let (_nats, address) = Files::new().serve(&config).await;
    let token = Settings::new().set("NATS_URL", format!("nats://{}@{address}", encoded(&all)));
    streams(token).await;
    let alone = Settings::new().set("NATS_URL", format!("nats://{address}"));
    streams(alone.set("NATS_TOKEN", &all)).await;
}

/// How `importguard tail` ends, and what it says.
async fn tail(settings: Settings) -> (ExitStatus, String) {
    let logs = TempDir::new().unwrap();
    let mut command = settings.command(Binary::AllInOne.path());
    command.arg("tail");
    let mut tail = Process::spawn("tail", command, logs.path());
    (tail.exit(SOON).await, tail.stderr())
}

#[tokio::test]
async fn a_url_that_is_ambiguous_is_an_error_that_says_how_to_encode_and_not_the_password() {
    for special in ['@', '#', ',', '/', '?', '%', ' '] {
        let url = format!("nats://guard:{}@127.0.0.1:4222", password(special));
        let (status, stderr) = tail(Settings::new().set("NATS_URL", url)).await;
        assert_eq!(status.code(), Some(2), "{special}: {stderr}");
        for part in ["NATS_URL", "@ as %40", "NATS_PASSWORD"] {
            assert!(stderr.contains(part), "{special}: {stderr}");
        }
        assert!(
            !stderr.contains("s3") && !stderr.contains("cret"),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn contradictory_credentials_are_an_error() {
    for (variables, parts) in [
        (
            &[("NATS_USER", "a"), ("NATS_TOKEN", "b")][..],
            ["NATS_USER", "NATS_TOKEN"],
        ),
        (&[("NATS_PASSWORD", "b")], ["NATS_USER", "NATS_USER"]),
        (&[("NATS_USER", "a")], ["NATS_USER", "NATS_PASSWORD"]),
        (
            &[("NATS_TOKEN", "a"), ("NATS_TOKEN_FILE", "b")],
            ["NATS_TOKEN", "NATS_TOKEN_FILE"],
        ),
        (
            &[("NATS_TOKEN", "a"), ("NATS_URL", "nats://b:c@127.0.0.1:1")],
            ["NATS_TOKEN", "NATS_URL"],
        ),
    ] {
        let settings = variables
            .iter()
            .fold(Settings::new(), |settings, (name, value)| {
                settings.set(name, *value)
            });
        let (status, stderr) = tail(settings).await;
        assert!(!status.success(), "{variables:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{variables:?}: {stderr}");
        }
    }
}

#[tokio::test]
async fn a_file_with_a_password_or_a_token_is_read_again_when_it_changes() {
    for (config, settings, setting) in [
        (
            "user: guard, password: s3cret",
            Settings::new().set("NATS_USER", "guard"),
            "NATS_PASSWORD_FILE",
        ),
        ("token: s3cret", Settings::new(), "NATS_TOKEN_FILE"),
    ] {
        let files = Files::new();
        let (_nats, address) = files.serve(&format!("authorization {{ {config} }}")).await;
        let settings = settings
            .set("NATS_URL", format!("nats://{address}"))
            .set(setting, files.write("secret", "another\n"));
        let gateway = gateway(settings).await;
        reports(&gateway, &["rejected the credentials", "authorization"]).await;
        files.write("secret", "two\nlines\n");
        gateway.tells(&[setting, "more than one line"]).await;
        files.write("secret", "s3cret \n");
        gateway
            .tells(&[setting, "begins or ends with a space"])
            .await;
        files.write("secret", "s3cret\n");
        gateway.until_recorder_is("streaming").await;
    }
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
        .tells(&["Permissions Violation for Subscription to \"_INBOX."])
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
    files.write("replaced.creds", &credentials(&account));
    gateway.until_recorder_is("streaming").await;
}
