//! The detector is killed, and NATS is away: nothing is lost, and nothing is done twice.

use async_nats::{ConnectOptions, jetstream};
use importguard_tests::{Detector, FakeClock, NatsServer, SOON, Settings, eventually};
use serde_json::Value;
use tempfile::NamedTempFile;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    EVENTS,
    world::{THREE, changed, changes, entered, entry, nats, publish, refusal, refuse, with_stream},
};

/// The sequence up to which the detector has acknowledged every event.
async fn acknowledged(jetstream: &jetstream::Context) -> u64 {
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let consumer = stream
        .get_consumer::<jetstream::consumer::pull::Config>("detector")
        .await;
    let Ok(mut consumer) = consumer else { return 0 };
    consumer.info().await.unwrap().ack_floor.stream_sequence
}

async fn acknowledges(jetstream: &jetstream::Context, sequence: u64) {
    eventually(
        "the events are acknowledged",
        SOON,
        async || match acknowledged(jetstream).await {
            reached if reached >= sequence => Ok(()),
            reached => Err(reached),
        },
    )
    .await;
}

/// A nats-server whose user `cut` may do everything but publish to `denied`, and `full` everything; and its configuration file.
async fn nats_that_denies(denied: &str) -> (NatsServer, jetstream::Context, NamedTempFile) {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), denying(denied)).unwrap();
    let nats = NatsServer::configured(file.path().to_owned(), &[], "full:full").await;
    let client = ConnectOptions::with_user_and_password("full".into(), "full".into())
        .connect(nats.url())
        .await
        .unwrap();
    let jetstream = with_stream(client).await;
    (nats, jetstream, file)
}

fn denying(denied: &str) -> String {
    format!(
        "jetstream {{ store_dir: $STORE_DIR }}\n\
         accounts {{ A {{ jetstream: enabled, users: [\n\
           {{ user: full, password: full }}\n\
           {{ user: cut, password: cut, permissions: {{ publish: {{ deny: \"{denied}\" }} }} }}\n\
         ] }} }}\n"
    )
}

#[tokio::test]
async fn killed_after_the_entry_and_before_the_ack_it_makes_no_second_one() {
    let (nats, jetstream, _file) = nats_that_denies("$JS.ACK.>").await;
    let settings = Settings::new().set("NATS_URL", nats.url_for("cut:cut"));
    // Nobody is put on a list for what came before the detector, not even after a restart.
    refuse(&jetstream, "before", 11..=13).await;
    let mut detector = Detector::start(THREE, settings).await;
    refuse(&jetstream, "user1", 1..=3).await;
    let (revision, value) = entered(&jetstream, "user1").await;
    detector.counts(EVENTS, 3.0).await;
    changed(&jetstream, 1).await;
    assert_eq!(acknowledged(&jetstream).await, 0);
    detector.kill9();

    detector.restart(&[("NATS_URL", &nats.url_for("full:full"))]);
    detector.ready().await;
    // NATS delivers them again when it has waited for the ack.
    acknowledges(&jetstream, 6).await;
    let (again, _) = entered(&jetstream, "user1").await;
    assert_eq!(again, revision);
    let changes = changes(&jetstream).await;
    assert_eq!(changes.len(), 1, "{changes:?}");
    assert_eq!(changes[0]["id"], value["event"]);
}

#[tokio::test]
async fn killed_between_the_entry_and_its_event_it_publishes_that_once() {
    let (nats, jetstream, _file) = nats_that_denies("importguard.v1.list.changed").await;
    let settings = Settings::new().set("NATS_URL", nats.url_for("cut:cut"));
    let mut detector = Detector::start(THREE, settings).await;
    refuse(&jetstream, "user1", 1..=3).await;
    let (revision, value) = entered(&jetstream, "user1").await;
    detector.kill9();
    assert_eq!(changes(&jetstream).await.len(), 0);

    detector.restart(&[("NATS_URL", &nats.url_for("full:full"))]);
    detector.ready().await;
    let changes_now = changes(&jetstream).await;
    assert_eq!(changes_now.len(), 1, "{changes_now:?}");
    assert_eq!(changes_now[0]["id"], value["event"]);
    acknowledges(&jetstream, 3).await;
    let (again, _) = entered(&jetstream, "user1").await;
    assert_eq!(again, revision);
    assert_eq!(changes(&jetstream).await.len(), 1);
}

/// Has the stream take these subjects only.
async fn with_subjects(jetstream: &jetstream::Context, subjects: &str) {
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.subjects = vec![subjects.to_owned()];
    jetstream.update_stream(config).await.unwrap();
}

#[tokio::test]
async fn an_entry_whose_event_is_published_late_counts_as_added() {
    let (nats, jetstream) = nats().await;
    let detector = Detector::start(THREE, Settings::new().nats(&nats)).await;
    with_subjects(&jetstream, "importguard.v1.decision.>").await;
    refuse(&jetstream, "user1", 1..=3).await;
    let (revision, value) = entered(&jetstream, "user1").await;
    detector
        .counts("importguard_detector_write_failures_total", 1.0)
        .await;
    with_subjects(&jetstream, "importguard.v1.>").await;
    let changes = changed(&jetstream, 1).await;
    assert_eq!(changes[0]["id"], value["event"]);
    let added = "importguard_detector_detections_total{rule=\"three\",outcome=\"added\"}";
    detector.counts(added, 1.0).await;
    detector
        .wait_for_log(&["put an owner on a list", "three: 3 refusals within 1m"])
        .await;
    recorded_as_published(&jetstream, revision).await;
}

/// Waits until the bucket says that every event up to `revision` is published.
async fn recorded_as_published(jetstream: &jetstream::Context, revision: u64) {
    let bucket = jetstream.get_stream("KV_IMPORTGUARD_LISTS").await.unwrap();
    eventually("its event is recorded as published", SOON, async || {
        let subject = "$KV.IMPORTGUARD_LISTS._events";
        let message = bucket.get_last_raw_message_by_subject(subject).await?;
        let published: Value = serde_json::from_slice(&message.payload)?;
        let through = published["through"].as_u64();
        anyhow::ensure!(through >= Some(revision), "{published}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn what_it_has_published_is_recorded_after_an_interruption_too() {
    let (nats, jetstream, _file) = nats_that_denies("$KV.IMPORTGUARD_LISTS._events").await;
    let settings = Settings::new().set("NATS_URL", nats.url_for("cut:cut"));
    let detector = Detector::start(THREE, settings).await;
    refuse(&jetstream, "user1", 1..=3).await;
    let (revision, _) = entered(&jetstream, "user1").await;
    changed(&jetstream, 1).await;
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    stream.delete_consumer("detector").await.unwrap();
    detector.wait_for_log(&["not detecting"]).await;
    nats.reconfigure(&denying("nothing")).await;
    recorded_as_published(&jetstream, revision).await;
}

#[tokio::test]
async fn decisions_in_a_stream_that_replaced_another_count() {
    let (nats, jetstream) = nats().await;
    let detector = Detector::start(THREE, Settings::new().nats(&nats)).await;
    refuse(&jetstream, "user1", 1..=2).await;
    acknowledges(&jetstream, 2).await;
    detector.freeze().await;
    jetstream.delete_stream("IMPORTGUARD").await.unwrap();
    let jetstream = with_stream(nats.client().await).await;
    refuse(&jetstream, "user2", 11..=13).await;
    detector.thaw();
    entered(&jetstream, "user2").await;
    assert_eq!(entry(&jetstream, "user1").await, None);
}

#[tokio::test]
async fn a_clock_that_is_ahead_of_nats_is_reported() {
    let Some(clock) = FakeClock::start("a detector's clock that is ahead") else {
        return;
    };
    let (nats, jetstream) = nats().await;
    let rules = "[{ id: two, refusals: 2, within: 1h, list: suspects, for: 10m }]";
    let settings = clock.settings(Settings::new().nats(&nats));
    let detector = Detector::start(rules, settings).await;
    let twice = async |owner: &str, number: u32, ago: i64| {
        for number in [number, number + 1] {
            publish(&jetstream, &refusal(number, owner, ago)).await;
            acknowledges(&jetstream, u64::from(number)).await;
        }
    };
    // From the spool of a gateway: the entry had ended before NATS stored the decision.
    twice("user1", 1, 20 * 60 * 1000).await;
    let expired = "importguard_detector_detections_total{rule=\"two\",outcome=\"expired\"}";
    detector.counts(expired, 1.0).await;
    clock.set("+20m");
    twice("user2", 3, 0).await;
    twice("user3", 5, 0).await;
    detector.counts(expired, 3.0).await;
    let warning = "the clock of this host is probably ahead";
    detector.wait_for_log(&[warning]).await;
    assert_eq!(detector.output().matches(warning).count(), 1);
}

#[tokio::test]
async fn windows_survive_a_restart() {
    let (nats, jetstream) = nats().await;
    let mut detector = Detector::start(THREE, Settings::new().nats(&nats)).await;
    refuse(&jetstream, "user1", 1..=2).await;
    acknowledges(&jetstream, 2).await;
    detector.kill9();
    // One that comes while it is away counts, too.
    refuse(&jetstream, "user2", 11..=13).await;
    detector.restart(&[]);
    detector.ready().await;
    entered(&jetstream, "user2").await;
    assert_eq!(entry(&jetstream, "user1").await, None);
    refuse(&jetstream, "user1", [3]).await;
    entered(&jetstream, "user1").await;
    changed(&jetstream, 2).await;
}

#[tokio::test]
async fn a_window_that_began_anew_is_not_taken_for_a_full_one_after_a_restart() {
    let (nats, jetstream) = nats().await;
    let rules = "[{ id: three, refusals: 3, within: 1m, list: suspects, for: 10s, only: { codes: [5003] } }, \
                  { id: more, refusals: 3, within: 1m, list: suspects, for: 10s, prolong: true, only: { codes: [5004] } }]";
    let mut detector = Detector::start(rules, Settings::new().nats(&nats)).await;
    let more = |number| {
        let mut event = refusal(number, "user2", 0);
        event["data"]["refusal"]["code"] = 5004.into();
        event["data"]["rules"] = serde_json::json!([]);
        event
    };
    for number in 1..=3 {
        publish(&jetstream, &refusal(number, "user1", 300)).await;
        publish(&jetstream, &more(100 + number)).await;
    }
    let mut end = OffsetDateTime::UNIX_EPOCH;
    for owner in ["user1", "user2"] {
        let (_, value) = entered(&jetstream, owner).await;
        let until = OffsetDateTime::parse(value["until"].as_str().unwrap(), &Rfc3339).unwrap();
        end = end.max(until);
    }
    changed(&jetstream, 2).await;
    // The entries must have ended before more counts.
    let left = end - OffsetDateTime::now_utc() + time::Duration::milliseconds(500);
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    publish(&jetstream, &refusal(4, "user1", 0)).await;
    publish(&jetstream, &more(104)).await;
    acknowledges(&jetstream, 10).await;
    let before = changes(&jetstream).await.len();
    assert_eq!(before, 2);
    detector.kill9();
    detector.restart(&[]);
    detector.ready().await;
    // The second since then. Windows that still had the first three would be full, and act on it.
    publish(&jetstream, &refusal(5, "user1", 0)).await;
    publish(&jetstream, &more(105)).await;
    acknowledges(&jetstream, 12).await;
    assert_eq!(changes(&jetstream).await.len(), before);
    publish(&jetstream, &refusal(6, "user1", 0)).await;
    publish(&jetstream, &more(106)).await;
    changed(&jetstream, before + 2).await;
}

#[tokio::test]
async fn nats_may_be_away_at_the_start_and_in_between() {
    let mut nats = NatsServer::not_started();
    let detector = Detector::spawn(THREE, Settings::new().nats(&nats));
    detector
        .wait_for_log(&["not detecting: NATS at", "retrying"])
        .await;
    eventually("it says why", SOON, async || {
        let error = detector.admin("/readyz").await.unwrap_err().to_string();
        match error.contains("\"ready\":false") && error.contains("\"error\":\"NATS at") {
            true => Ok(()),
            false => Err(error),
        }
    })
    .await;
    nats.restart().await;
    detector
        .wait_for_log(&["there is no stream IMPORTGUARD yet"])
        .await;
    let jetstream = with_stream(nats.client().await).await;
    detector.ready().await;
    refuse(&jetstream, "user1", 1..=2).await;
    detector.counts(EVENTS, 2.0).await;

    nats.kill9();
    detector
        .wait_for_metric("importguard_detector_reading", |reading| reading == 0.0)
        .await;
    nats.restart().await;
    detector.ready().await;
    // A client of its own: the old one may not have found out yet.
    let jetstream = jetstream::new(nats.client().await);
    refuse(&jetstream, "user1", [3]).await;
    entered(&jetstream, "user1").await;
    changed(&jetstream, 1).await;
}

#[tokio::test]
async fn a_bucket_that_was_deleted_is_made_again() {
    let (nats, jetstream) = nats().await;
    let detector = Detector::start(THREE, Settings::new().nats(&nats)).await;
    jetstream
        .delete_stream("KV_IMPORTGUARD_LISTS")
        .await
        .unwrap();
    refuse(&jetstream, "user1", 1..=3).await;
    entered(&jetstream, "user1").await;
    detector.ready().await;
    changed(&jetstream, 1).await;
}

#[tokio::test]
async fn sigterm_ends_it_while_it_cannot_write() {
    let (nats, jetstream, _file) = nats_that_denies("$KV.>").await;
    let settings = Settings::new().set("NATS_URL", nats.url_for("cut:cut"));
    let mut detector = Detector::start(THREE, settings).await;
    refuse(&jetstream, "user1", 1..=3).await;
    detector
        .counts("importguard_detector_write_failures_total", 1.0)
        .await;
    eventually("it says that it cannot", SOON, async || {
        match detector.admin("/readyz").await {
            Err(error) if error.to_string().contains("\"error\"") => {
                assert!(!error.to_string().contains("user1"), "{error}");
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(
        !detector.output().contains("user1"),
        "{}",
        detector.output()
    );
    assert_eq!(detector.terminate(SOON).await.code(), Some(0));
    assert_eq!(entry(&jetstream, "user1").await, None);

    detector.restart(&[("NATS_URL", &nats.url_for("full:full"))]);
    entered(&jetstream, "user1").await;
}
