//! `importguard`: gateway, decider and spool in one process.

use importguard_core::Dialect;
use importguard_tests::{
    Binary, Client, MountedSecret, NatsServer, OpenIm, PolicyDir, SOON, Service, Settings, Spool,
    eventually, wait_for_count,
};

use crate::{asserts, curl};

#[tokio::test]
async fn it_answers_and_records_without_anything_else() {
    let service = Service::all_in_one(Settings::new()).await;
    for dialect in [Dialect::Documented, Dialect::Server] {
        let caller = OpenIm::new(dialect, service.url());
        asserts::allows(dialect, &caller.import("op", "user123", &["user456"]).await);
        let refused = caller.import("op", "blocked_owner", &["user456"]).await;
        asserts::refuses(dialect, &refused, 200, 5001);
    }
    assert_eq!(Spool::of(&service).operation_ids(), ["op"; 4]);
}

#[tokio::test]
async fn it_prints_its_addresses_the_nats_status_and_a_command_to_try() {
    let service = Service::all_in_one(Settings::new()).await;
    let command = eventually("all of it is printed", SOON, async || {
        let output = service.output();
        let told = output.contains(&service.url()) && output.contains("NATS");
        curl::find(&output).filter(|_| told).ok_or(output)
    })
    .await;
    assert!(command.contains(service.http_address()), "{command}");

    let answer = Client::default().send(curl::parse(&command)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let dialect = if command.contains("command=") {
        Dialect::Documented
    } else {
        Dialect::Server
    };
    asserts::allows(dialect, &answer);
}

#[tokio::test]
async fn the_command_to_try_says_what_a_caller_needs() {
    let secret = MountedSecret::new(&[("passwords", "openim:s3cret"), ("tokens", "t0ken")]);
    let passwords = secret.setting("passwords");
    let tokens = secret.setting("tokens");
    for (variable, value, parts) in [
        (
            "IMPORTGUARD_BASIC_AUTH_FILE",
            passwords.as_str(),
            [
                "curl -i -u USER:PASSWORD ",
                "\n  USER:PASSWORD is a line of ",
            ],
        ),
        (
            "IMPORTGUARD_BEARER_TOKEN_FILE",
            &tokens,
            [
                "-H 'Authorization: Bearer TOKEN'",
                "\n  TOKEN is a line of ",
            ],
        ),
        (
            "IMPORTGUARD_BASE_PATH",
            "/s3cret",
            ["$IMPORTGUARD_BASE_PATH/?command", "set it in your shell"],
        ),
    ] {
        let service = Service::all_in_one(Settings::new().set(variable, value)).await;
        let output = eventually("the banner is printed", SOON, async || {
            let output = service.stdout();
            match output.contains("Press Ctrl-C") {
                true => Ok(output),
                false => Err(output),
            }
        })
        .await;
        for part in parts {
            assert!(output.contains(part), "no {part:?} in: {output}");
        }
        assert!(!output.contains("s3cret"), "{output}");
    }
}

#[tokio::test]
async fn it_warns_of_settings_that_have_no_effect_in_one_process() {
    let name = "IMPORTGUARD_DECIDER_URL has no effect";
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_URL", "http://127.0.0.1:1");
    let service = Service::all_in_one(settings).await;
    service.wait_for_log(&[name, "unset it"]).await;
    let quiet = Service::all_in_one(Settings::new()).await;
    assert!(!quiet.stderr().contains(name), "{}", quiet.stderr());
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_TIMEOUT", "100ms");
    let impatient = Service::all_in_one(settings).await;
    // After all warnings about settings.
    let log = impatient.wait_for_log(&["decider", "available"]).await;
    assert!(!log.contains("IMPORTGUARD_DECIDER_RETRY_AFTER"), "{log}");
}

#[tokio::test]
async fn its_banner_says_where_events_wait_for_nats() {
    let service = Service::all_in_one(Settings::new()).await;
    let buffering = format!(
        "; buffering in {} (0 events)",
        service.spool_dir().display()
    );
    eventually("the banner is printed", SOON, async || {
        let output = service.stdout();
        let events = output.lines().find(|line| line.contains("events "));
        let events = events.filter(|line| line.contains("NATS at 127.0.0.1:"));
        match events.is_some_and(|line| line.contains(&buffering)) {
            true => Ok(()),
            false => Err(output),
        }
    })
    .await;
}

#[tokio::test]
async fn with_nats_it_starts_without_warnings() {
    let nats = NatsServer::start().await;
    let connecting = format!("INFO connecting to NATS at {}", nats.address());
    // A busy machine may be too slow for a connection, but not every time.
    eventually("it starts without warnings", SOON, async || {
        let service = Service::all_in_one(Settings::new().nats(&nats)).await;
        let log = service
            .wait_for_log(&[&connecting, "streaming events to NATS"])
            .await;
        anyhow::ensure!(!log.contains("WARN"), "{log}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn it_uses_nats_where_that_is() {
    let nats = NatsServer::start().await;
    let service = Service::all_in_one(Settings::new().nats(&nats)).await;
    let caller = OpenIm::server(service.url());
    asserts::allows(Dialect::Server, &caller.import("op", "a", &["b"]).await);
    let events = wait_for_count(&nats, 1).await;
    assert_eq!(events[0].operation_id(), "op");
}

/// Starts `binary`, which must give up, and returns what it printed.
async fn gives_up(binary: Binary, settings: Settings) -> String {
    let mut service = Service::spawn(binary, settings);
    let status = service.exit(SOON).await;
    let output = service.output();
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{status}: {output}"
    );
    assert!(!output.contains("panicked"), "{output}");
    output
}

#[tokio::test]
async fn a_policy_with_an_error_ends_it_with_file_and_line() {
    let yaml =
        "apiVersion: importguard/v1\nname: broken\nrules:\n  - id: a\n    dropFriend: { in: x }\n";
    let policy = PolicyDir::new(yaml, &[]);
    for binary in [Binary::AllInOne, Binary::Decider] {
        let output = gives_up(binary, Settings::new().policy(&policy)).await;
        let place = format!("{}:5", policy.path().display());
        assert!(output.contains(&place), "no {place} in: {output}");
        assert!(
            output.contains("dropFriends"),
            "no word of what to write instead: {output}"
        );
    }
}

#[tokio::test]
async fn a_policy_that_is_not_there_ends_it_with_its_name() {
    for binary in [Binary::AllInOne, Binary::Decider] {
        let settings = Settings::new().set("IMPORTGUARD_POLICY", "nowhere/policy.yaml");
        let output = gives_up(binary, settings).await;
        assert!(output.contains("nowhere/policy.yaml"), "{output}");
    }
}

#[tokio::test]
async fn a_port_in_use_ends_it_with_the_address_before_anything_serves() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("spool");
    for (binary, name) in [
        (Binary::AllInOne, "IMPORTGUARD_HTTP_LISTEN"),
        (Binary::AllInOne, "IMPORTGUARD_ADMIN_LISTEN"),
        (Binary::AllInOne, "IMPORTGUARD_DECIDER_LISTEN"),
        (Binary::Gateway, "IMPORTGUARD_HTTP_LISTEN"),
        (Binary::Gateway, "IMPORTGUARD_ADMIN_LISTEN"),
        (Binary::Decider, "IMPORTGUARD_DECIDER_LISTEN"),
        (Binary::Decider, "IMPORTGUARD_ADMIN_LISTEN"),
    ] {
        let settings = Settings::new()
            .set(name, &address)
            .set("IMPORTGUARD_SPOOL", spool.display().to_string());
        let output = gives_up(binary, settings).await;
        for word in [address.as_str(), name] {
            assert!(output.contains(word), "{binary:?}, {name}: {output}");
        }
        // The spool is opened, and the policy taken into force, before the first request is waited for.
        assert!(!spool.exists(), "{binary:?}, {name}");
        assert!(
            !output.contains("is active"),
            "{binary:?}, {name}: {output}"
        );
    }
}

#[tokio::test]
async fn a_setting_that_makes_no_sense_ends_it_with_its_name() {
    for (binary, name) in [
        (Binary::Gateway, "IMPORTGUARD_DECIDER_TIMEOUT"),
        (Binary::Gateway, "IMPORTGUARD_ON_DECIDER_UNAVAILABLE"),
        (Binary::Gateway, "IMPORTGUARD_DECIDER_URL"),
        (Binary::Gateway, "IMPORTGUARD_BASE_PATH"),
        (Binary::Decider, "IMPORTGUARD_DECIDER_LISTEN"),
    ] {
        let output = gives_up(binary, Settings::new().set(name, "no sense")).await;
        let flag = name
            .trim_start_matches("IMPORTGUARD_")
            .to_lowercase()
            .replace('_', "-");
        assert!(
            output.contains(name) || output.contains(&flag),
            "{name}: {output}"
        );
    }
}
