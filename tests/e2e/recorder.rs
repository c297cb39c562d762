//! The recorder's status, and its handling of a damaged spool.

use std::{fs, path::PathBuf};

use importguard_tests::{Binary, Line, SOON, Service, Settings, Spool, load, wait_for_count};

use crate::asserts;

/// `count` imports whose events take `friends` times 30 bytes, all allowed.
async fn ask(line: &Line, name: &str, count: usize, friends: usize) {
    let friends: Vec<_> = (0..friends)
        .map(|number| format!("a_friend_with_a_long_name_{number}"))
        .collect();
    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
    let server = line.server();
    load(count, 16, async |number| {
        let answer = server
            .import(&format!("{name}-{number}"), "a", &friends)
            .await;
        assert_eq!(asserts::code(&answer), 0);
    })
    .await;
}

async fn metric(gateway: &Service, name: &str) -> f64 {
    gateway.metric(name).await.unwrap()
}

/// The one state whose gauge is 1.
async fn state_in_metrics(gateway: &Service) -> &'static str {
    let mut states = Vec::new();
    for state in ["streaming", "spooling", "draining"] {
        let name = format!("importguard_recorder_state{{state=\"{state}\"}}");
        if metric(gateway, &name).await == 1.0 {
            states.push(state);
        }
    }
    assert_eq!(states.len(), 1, "{states:?}");
    states[0]
}

#[tokio::test]
async fn readiness_and_metrics_tell_the_way_from_streaming_to_spooling_to_draining_and_back() {
    // Enough that the drain takes longer than a few looks at it.
    const EVENTS: usize = 3_000;
    let mut line = Line::with(Settings::new().with_long_ack_timeout()).await;
    let told = line.gateway.wait_for_recorder("streaming").await;
    assert_eq!(told["spooledEvents"], 0);
    let empty = told["spoolBytes"].as_u64().unwrap();
    assert!(empty < 100_000, "{told}");
    assert_eq!(told["nats"], line.nats.address());
    assert!(told.get("lastError").is_none(), "{told}");
    ask(&line, "streamed", 10, 1).await;
    let gateway = &line.gateway;
    assert_eq!(state_in_metrics(gateway).await, "streaming");
    assert_eq!(gateway.events_by("streamed").await.unwrap(), 10.0);
    let acks = "importguard_recorder_ack_seconds_count";
    assert_eq!(metric(gateway, acks).await, 10.0);
    let oldest = "importguard_recorder_oldest_unpublished_seconds";
    assert_eq!(metric(gateway, oldest).await, 0.0);

    line.nats.kill9();
    ask(&line, "spooled", EVENTS, 400).await;
    let gateway = &line.gateway;
    let told = gateway.wait_for_recorder("spooling").await;
    assert_eq!(told["spooledEvents"], EVENTS);
    assert!(told["lastError"].is_string(), "{told}");
    assert!(told["spoolBytes"].as_u64() > Some(EVENTS as u64 * 400 * 26));
    assert_eq!(told["spoolMaxBytes"], 1 << 30);
    assert_eq!(state_in_metrics(gateway).await, "spooling");
    assert_eq!(gateway.events_by("spooled").await.unwrap(), EVENTS as f64);
    let depth = "importguard_recorder_spool_events";
    assert_eq!(metric(gateway, depth).await, EVENTS as f64);
    for (name, field) in [
        ("importguard_recorder_spool_bytes", "spoolBytes"),
        ("importguard_recorder_spool_max_bytes", "spoolMaxBytes"),
    ] {
        assert_eq!(Some(metric(gateway, name).await), told[field].as_f64());
    }
    assert!(metric(gateway, oldest).await > 0.0);

    let (draining, ()) = tokio::join!(gateway.wait_for_recorder("draining"), line.nats.restart());
    assert!(draining.get("lastError").is_none(), "{draining}");
    let told = gateway.wait_for_recorder("streaming").await;
    assert_eq!(
        (&told["spooledEvents"], &told["spoolBytes"]),
        (&0.into(), &empty.into())
    );
    assert_eq!(state_in_metrics(gateway).await, "streaming");
    assert_eq!(gateway.events_by("drained").await.unwrap(), EVENTS as f64);
    assert_eq!(metric(gateway, depth).await, 0.0);
    assert_eq!(metric(gateway, oldest).await, 0.0);
    assert_eq!(gateway.events_by("unrecordable").await.unwrap(), 0.0);
}

#[tokio::test]
async fn the_first_callback_finds_out_that_nats_hangs_however_long_an_ack_may_take() {
    let settings = Settings::new()
        .set("IMPORTGUARD_ACK_TIMEOUT", "60s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "3s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "6s");
    let line = Line::with(settings).await;
    line.gateway.wait_for_recorder("streaming").await;
    line.gateway
        .wait_for_log(&["IMPORTGUARD_ACK_TIMEOUT exceeds"])
        .await;
    line.nats.freeze().await;
    ask(&line, "op", 1, 1).await;
    assert_eq!(state_in_metrics(&line.gateway).await, "spooling");
}

#[tokio::test]
async fn of_two_gateways_on_one_spool_the_second_reports_it_and_exits() {
    let line = Line::without_nats(Settings::new()).await;
    let directory = line.gateway.spool_dir().display().to_string();
    let settings = Settings::new().set("IMPORTGUARD_SPOOL", &directory);
    let mut second = Service::spawn(Binary::Gateway, settings.clone());
    let status = second.exit(SOON).await;
    assert_eq!(status.code(), Some(1), "{status}");
    let said = second.output();
    let holder = format!("process {}", line.gateway.id());
    for word in [directory.as_str(), &holder, "IMPORTGUARD_SPOOL"] {
        assert!(said.contains(word), "no {word} in: {said}");
    }

    // The first goes on; and its end, be it by SIGKILL, frees the directory.
    ask(&line, "op", 5, 1).await;
    assert_eq!(Spool::of(&line.gateway).operation_ids().len(), 5);
    let Line { mut gateway, .. } = line;
    gateway.kill9();
    let successor = Service::gateway(settings).await;
    assert_eq!(Spool::of(&successor).operation_ids().len(), 5);
}

/// The databases in the spool's directory that were set aside.
fn set_aside(gateway: &Service) -> Vec<PathBuf> {
    let entries = fs::read_dir(gateway.spool_dir()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.display().to_string().contains("spool.corrupt-"))
        .filter(|path| path.extension().is_some_and(|ending| ending == "db"))
        .collect()
}

#[tokio::test]
async fn a_corrupt_spool_is_set_aside_loudly_and_the_gateway_goes_on() {
    let mut line = Line::without_nats(Settings::new()).await;
    ask(&line, "before", 20, 1).await;
    line.gateway.kill9();
    let garbage = b"this is no database ".repeat(1_000);
    let spool = line.gateway.spool_dir().join("spool.db");
    fs::write(&spool, &garbage).unwrap();
    // What SQLite keeps beside it would mend the file.
    fs::remove_file(spool.with_extension("db-wal")).unwrap();

    line.gateway.restart().await;
    line.gateway.ready().await;
    let said = line.gateway.wait_for_log(&["ERROR", "set aside"]).await;
    let kept = set_aside(&line.gateway);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(said.contains(&kept[0].display().to_string()), "{said}");
    assert_eq!(fs::read(&kept[0]).unwrap(), garbage);

    ask(&line, "after", 20, 1).await;
    line.nats.restart().await;
    let events = wait_for_count(&line.nats, 20).await;
    assert_eq!(events.len(), 20);
}
