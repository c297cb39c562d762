//! With a pseudonym key, events name no users but answers do, and whoever has the key finds a user's events.

use std::{fs, process::Command};

use importguard_core::Dialect;
use importguard_tests::{
    Binary, Event, Line, MountedSecret, Reading, SOON, Service, Settings, Spool, StoredEvent,
    eventually, wait_for_count,
};
use tempfile::TempDir;

use crate::asserts;

const KEY: &str = "a key that nobody guesses";

fn pseudonyms(settings: &Settings, ids: &[&str]) -> Vec<String> {
    let mut command = settings.command(Binary::AllInOne.path());
    let output = command.arg("pseudonym").args(ids).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn events_hold_pseudonyms_and_answers_ids() {
    let settings = Settings::new().set("IMPORTGUARD_PSEUDONYM_KEY", KEY);
    let line = Line::with(settings.clone()).await;
    let server = line.server();
    let answer = server
        .import("op-1", "user123", &["user456", "bot_7"])
        .await;
    let expected = Reading::Imports {
        instead: Some(vec!["user456".to_owned()]),
    };
    assert_eq!(asserts::reading(Dialect::Server, &answer), expected);
    server
        .send(server.after_import("op-1", "user123", &["user456"]))
        .await;

    let events = wait_for_count(&line.nats, 2).await;
    let names = pseudonyms(&settings, &["user123", "user456", "bot_7"]);
    assert!(
        names.iter().all(|name| name.starts_with("pn_")),
        "{names:?}"
    );
    for event in &events {
        assert_eq!(event.json["pseudonymised"], true);
        assert_eq!(event.json["subject"], names[0]);
        assert_eq!(event.json["data"]["ownerUserID"], names[0]);
        assert_eq!(event.json["data"]["friendUserIDs"][0], names[1]);
        let text = event.json.to_string();
        assert!(
            !text.contains("user123") && !text.contains("bot_7"),
            "{text}"
        );
    }
    // What was spooled before NATS was there comes after what follows it.
    let is_decision = |event: &&StoredEvent| matches!(event.event, Event::Decision(_));
    let decision = &events.iter().find(is_decision).unwrap().json["data"];
    assert_eq!(decision["friendUserIDs"][1], names[2]);
    assert_eq!(decision["removed"][0]["friends"], serde_json::json!([1]));
    assert!(!line.gateway.output().contains(KEY));
}

#[tokio::test]
async fn a_gateway_warns_of_events_that_were_spooled_before_the_key() {
    let mut line = Line::without_nats(Settings::new()).await;
    line.server().import("op-1", "user123", &["user456"]).await;
    let dir = line.gateway.spool_dir().display().to_string();
    line.gateway.kill9();
    let settings = Settings::new()
        .nats(&line.nats)
        .decider(&line.decider)
        .set("IMPORTGUARD_SPOOL", &dir)
        .set("IMPORTGUARD_PSEUDONYM_KEY", KEY);
    let gateway = Service::gateway(settings).await;
    gateway
        .wait_for_log(&["older than the pseudonym key"])
        .await;
}

#[tokio::test]
async fn the_spool_holds_pseudonyms_too() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, format!("{KEY}\n")).unwrap();
    let file = file.display().to_string();
    let settings = Settings::new().set("IMPORTGUARD_PSEUDONYM_KEY_FILE", file);
    let line = Line::without_nats(settings).await;
    line.server().import("op-1", "user123", &["user456"]).await;
    assert_eq!(Spool::of(&line.gateway).operation_ids(), ["op-1"]);
    for file in fs::read_dir(line.gateway.spool_dir()).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("user123") && !text.contains("user456"));
    }
}

#[tokio::test]
async fn a_replaced_key_is_used_without_a_restart_and_a_short_one_is_not() {
    let mut secret = MountedSecret::new(&[("key", KEY)]);
    let settings = |key: &str| Settings::new().set("IMPORTGUARD_PSEUDONYM_KEY", key);
    let file = Settings::new().set("IMPORTGUARD_PSEUDONYM_KEY_FILE", secret.setting("key"));
    let line = Line::with(file).await;
    let mut count = 0;
    let mut owner = async || {
        line.server().import("op", "user123", &["user456"]).await;
        count += 1;
        let events = wait_for_count(&line.nats, count).await;
        vec![
            events.last().unwrap().json["subject"]
                .as_str()
                .unwrap()
                .to_owned(),
        ]
    };
    let before = pseudonyms(&settings(KEY), &["user123"]);
    assert_eq!(owner().await, before);

    secret.replace(&[("key", "tooshort")]);
    eventually("the short key is reported", SOON, async || {
        let ready = line.gateway.admin("/readyz").await?;
        anyhow::ensure!(ready.contains("8 bytes"), "{ready}");
        anyhow::ensure!(!ready.contains("tooshort"), "{ready}");
        Ok(())
    })
    .await;
    assert_eq!(owner().await, before);

    let new = "another key that nobody guesses";
    secret.replace(&[("key", new)]);
    eventually("the new key is active", SOON, async || {
        let ready = line.gateway.admin("/readyz").await?;
        anyhow::ensure!(!ready.contains("lastGood"), "{ready}");
        Ok(())
    })
    .await;
    assert_eq!(owner().await, pseudonyms(&settings(new), &["user123"]));
}

#[test]
fn the_key_is_nowhere_to_be_seen_and_a_short_one_is_refused() {
    let settings = Settings::new().set("IMPORTGUARD_PSEUDONYM_KEY", KEY);
    for (binary, arguments) in [
        (Binary::Gateway, vec!["--help"]),
        (Binary::AllInOne, vec!["serve", "--help"]),
        (Binary::AllInOne, vec!["tail", "--help"]),
        (Binary::AllInOne, vec!["pseudonym", "--help"]),
    ] {
        let output = settings
            .command(binary.path())
            .args(arguments)
            .output()
            .unwrap();
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(help.contains("IMPORTGUARD_PSEUDONYM_KEY"), "{help}");
        assert!(!help.contains(KEY), "{help}");
    }
    let run = |settings: &Settings| {
        let mut command: Command = settings.command(Binary::AllInOne.path());
        let output = command.args(["pseudonym", "user123"]).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let short = run(&Settings::new().set("IMPORTGUARD_PSEUDONYM_KEY", "tooshort"));
    assert!(short.contains("8 bytes"), "{short}");
    let none = run(&Settings::new());
    assert!(none.contains("IMPORTGUARD_PSEUDONYM_KEY_FILE"), "{none}");
}
