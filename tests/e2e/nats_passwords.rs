//! Passwords and tokens for NATS: any character, from a URL, a setting or a file, and replaced while processes run.

use std::process::ExitStatus;

use importguard_nats::NatsSettings;
use importguard_runtime::{FileWatches, Secret, environment::parse_arguments};
use importguard_tests::{Binary, OpenIm, Process, SOON, Settings, eventually};
use tempfile::TempDir;

use crate::nats_access::{Files, gateway, reports, streams};

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
    servers.connect().await.is_ok()
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
    for special in all {
        let (user, password) = (format!("user{special}"), password(special));
        let in_url = format!("nats://{}:{}@{address}", encoded(&user), encoded(&password));
        let in_url: NatsSettings = parse_arguments([format!("--nats-url={in_url}")]).unwrap();
        let alone: NatsSettings = parse_arguments([
            format!("--nats-url=nats://{address}"),
            format!("--nats-user={user}"),
            format!("--nats-password={password}"),
        ])
        .unwrap();
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
    in_url.wait_for_recorder("streaming").await;
    in_url.wait_for_log(&["attempting connection"]).await;
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
        gateway.wait_for_log(&[setting, "more than one line"]).await;
        files.write("secret", "s3cret \n");
        gateway
            .wait_for_log(&[setting, "begins or ends with a space"])
            .await;
        files.write("secret", "s3cret\n");
        gateway.wait_for_recorder("streaming").await;
    }
}

#[tokio::test]
async fn after_a_password_is_replaced_gateway_and_tail_go_on_with_the_new_one() {
    let files = Files::new();
    let config = |password: &str| format!("authorization {{ user: guard, password: {password} }}");
    let (mut nats, address) = files.serve(&config("first")).await;
    let settings = Settings::new()
        .set("NATS_URL", format!("nats://{address}"))
        .set("NATS_USER", "guard")
        .set("NATS_PASSWORD_FILE", files.write("secret", "first\n"));
    let gateway = gateway(settings.clone()).await;
    gateway.wait_for_recorder("streaming").await;
    let logs = TempDir::new().unwrap();
    let mut command = settings.command(Binary::AllInOne.path());
    command.args(["tail", "--since", "1h", "--count", "2"]);
    let mut tail = Process::spawn("tail", command, logs.path());
    let server = OpenIm::server(gateway.url());
    server.import("op-1", "a", &["b"]).await;
    eventually("tail has printed the first event", SOON, async || {
        let printed = tail.stdout();
        anyhow::ensure!(printed.contains("op-1"), "{}", tail.output());
        Ok(())
    })
    .await;
    nats.kill9();
    let _nats = files.serve_at(&address, &config("second")).await;
    for process in [&*gateway, &tail] {
        process.wait_for_log(&["rejected the credentials"]).await;
    }
    files.write("secret", "second\n");
    gateway.wait_for_recorder("streaming").await;
    server.import("op-2", "a", &["b"]).await;
    assert!(tail.exit(SOON).await.success(), "{}", tail.output());
    assert!(tail.stdout().contains("op-2"), "{}", tail.output());
}
