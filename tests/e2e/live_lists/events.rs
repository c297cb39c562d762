//! Each change of a list is an event, also if its event could not be published at once.

use async_nats::jetstream;
use importguard_tests::{NatsServer, Settings, create_stream};
use serde_json::Value;
use tempfile::TempDir;

use super::{STREAM, list, listed, nats};
use crate::asserts::printed;

#[tokio::test]
async fn a_change_without_an_event_yet_is_in_the_history_when_its_entry_is_changed_again() {
    let nats = NatsServer::start().await;
    for id in ["u1", "u2"] {
        let added = list(&nats, &["add", "bad", id, "--because", "first"]).await;
        assert_eq!(added.code, Some(0), "{}", added.stderr);
        assert!(added.stderr.contains("not published yet"));
    }
    create_stream(nats.client().await, |_| ()).await;
    listed(&nats, &["remove", "bad", "u1"]).await;
    let file = TempDir::new().unwrap();
    let path = file.path().join("ids.txt");
    std::fs::write(&path, "u2\n").unwrap();
    let path = path.display().to_string();
    listed(&nats, &["import", "bad", &path, "--because", "second"]).await;
    for (id, expected) in [("u1", ["added", "removed"]), ("u2", ["added", "added"])] {
        let history = listed(&nats, &["history", "bad", id]).await;
        let lines: Vec<_> = history.lines().collect();
        assert_eq!(lines.len(), 2, "{history}");
        for (line, change) in lines.iter().zip(expected) {
            assert!(line.contains(change), "{history}");
        }
        assert!(lines[0].ends_with("by alice: first"), "{history}");
    }
}

#[tokio::test]
async fn an_entry_can_be_changed_without_a_stream_and_the_lost_event_is_told() {
    let nats = NatsServer::start().await;
    listed(&nats, &["add", "bad", "u1"]).await;
    let removed = list(&nats, &["remove", "bad", "u1"]).await;
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    assert_eq!(removed.stdout, "bad: removed u1\n");
    assert!(
        removed
            .stderr
            .contains("the event about the entry's previous change is lost"),
        "{}",
        removed.stderr
    );
}

/// An entry that expired long ago, and whose event nobody has published.
const EXPIRED: &str = r#"{"by":"alice","at":"2019-12-31T00:00:00Z","until":"2020-01-01T00:00:00Z","event":"019ad3f4-0000-7000-8000-000000000001"}"#;

#[tokio::test]
async fn an_expired_entry_is_not_cleared_away_before_its_event_is_published() {
    let nats = nats().await;
    listed(&nats, &["create"]).await;
    let jetstream = jetstream::new(nats.client().await);
    let put = async |key: &str, value: &str| {
        let subject = format!("$KV.IMPORTGUARD_LISTS.{key}");
        let sent = jetstream.publish(subject, value.to_owned().into()).await;
        sent.unwrap().await.unwrap().sequence
    };
    let keys = async || {
        let stream = jetstream.get_stream(STREAM).await.unwrap();
        let subjects = stream.info_with_subjects("$KV.IMPORTGUARD_LISTS.bad.>");
        futures_util::StreamExt::count(subjects.await.unwrap()).await
    };
    let last = put("bad.u1", EXPIRED).await;
    // Another program's, which has no event.
    put("bad.u2", r#"{"until":"2020-01-01T00:00:00Z"}"#).await;
    let told = list(&nats, &["clear"]).await.stderr;
    assert!(told.contains("cleared 1 "), "{told}");
    assert!(told.contains("1 is left"), "{told}");
    assert_eq!(keys().await, 1);
    put("_events", &format!("{{\"through\":{last}}}")).await;
    let told = list(&nats, &["clear"]).await.stderr;
    assert!(told.contains("cleared 1 "), "{told}");
    assert_eq!(keys().await, 0);
}

#[tokio::test]
async fn a_reason_may_name_users_and_is_not_in_events_with_pseudonyms() {
    let nats = nats().await;
    let settings = Settings::new()
        .nats(&nats)
        .set("IMPORTGUARD_PSEUDONYM_KEY", "0123456789abcdef")
        .set("IMPORTGUARD_LIST_BY", "alice");
    let reason = "spams user456";
    let add = ["list", "add", "bad", "user123", "--because", reason];
    printed(&settings.run(add).await, 0);
    let jetstream = jetstream::new(nats.client().await);
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let event = stream.get_raw_message(1).await.unwrap();
    let event: Value = serde_json::from_slice(&event.payload).unwrap();
    assert_eq!(event["data"]["by"], "alice");
    assert_eq!(event["pseudonymised"], true, "{event}");
    for id in ["user123", "user456"] {
        assert!(!event.to_string().contains(id), "{event}");
    }
    // Who may read the bucket sees it.
    let shown = listed(&nats, &["show", "bad", "user123"]).await;
    assert!(shown.contains(reason), "{shown}");
}
