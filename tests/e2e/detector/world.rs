//! A nats-server with the stream of events, decisions in it, and what a detector makes of them.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream};
use importguard_tests::{NatsServer, SOON, create_stream, eventually};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Three refusals within a minute.
pub(super) const THREE: &str = "[{ id: three, refusals: 3, within: 1m, list: suspects, for: 10m }]";

/// Has a stream for events, with the memory for IDs that a gateway gives it.
pub(super) async fn with_stream(client: async_nats::Client) -> jetstream::Context {
    let window = Duration::from_secs(600);
    create_stream(client, |config| config.duplicate_window = window).await
}

pub(super) async fn nats() -> (NatsServer, jetstream::Context) {
    let nats = NatsServer::start().await;
    let jetstream = with_stream(nats.client().await).await;
    (nats, jetstream)
}

/// The refusal with this number, so many milliseconds ago.
pub(super) fn refusal(number: u32, owner: &str, ago: i64) -> Value {
    let time = OffsetDateTime::now_utc() - time::Duration::milliseconds(ago);
    json!({
        "specversion": "1.0",
        "id": format!("019ad3f4-0000-7000-8000-{number:012x}"),
        "type": "importguard.decision.v1",
        "source": "importguard/gateway/test",
        "time": time.format(&Rfc3339).unwrap(),
        "subject": owner,
        "datacontenttype": "application/json",
        "data": {
            "operationID": format!("op-{number}"),
            "ownerUserID": owner,
            "friendUserIDs": ["a"],
            "verdict": "refuse",
            "decidedBy": "policy",
            "refusal": { "rule": "too-many", "code": 5003, "message": "m", "detail": "d" },
            "removed": [],
            "rules": [{ "id": "too-many", "mode": "enforce", "outcome": "refuse" }],
            "dialect": "server",
            "gateway": "test",
            "micros": { "decide": 1, "total": 2 },
        },
    })
}

/// Publishes an event, even one that the stream has already.
pub(super) async fn publish(jetstream: &jetstream::Context, event: &Value) {
    let subject = "importguard.v1.decision.refuse";
    let sent = jetstream.publish_with_headers(subject, HeaderMap::new(), event.to_string().into());
    sent.await.unwrap().await.unwrap();
}

/// Publishes refusals with these numbers, a millisecond apart, for one owner.
pub(super) async fn refuse(
    jetstream: &jetstream::Context,
    owner: &str,
    numbers: impl IntoIterator<Item = u32>,
) {
    for number in numbers {
        publish(jetstream, &refusal(number, owner, 0)).await;
    }
}

/// The entry of an owner on `suspects` and its revision, if there is one.
pub(super) async fn entry(jetstream: &jetstream::Context, owner: &str) -> Option<(u64, Value)> {
    let stream = jetstream.get_stream("KV_IMPORTGUARD_LISTS").await.ok()?;
    let subject = format!("$KV.IMPORTGUARD_LISTS.suspects.{owner}");
    let message = stream
        .get_last_raw_message_by_subject(&subject)
        .await
        .ok()?;
    let value = serde_json::from_slice(&message.payload).unwrap_or_default();
    Some((message.sequence, value))
}

/// Waits for that entry.
pub(super) async fn entered(jetstream: &jetstream::Context, owner: &str) -> (u64, Value) {
    eventually("the owner is on the list", SOON, async || {
        entry(jetstream, owner).await.ok_or("there is no entry")
    })
    .await
}

/// The events about changes of lists.
pub(super) async fn changes(jetstream: &jetstream::Context) -> Vec<Value> {
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let state = stream.cached_info().state.clone();
    let mut changes = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        if message.subject.as_str() == "importguard.v1.list.changed" {
            changes.push(serde_json::from_slice(&message.payload).unwrap());
        }
    }
    changes
}

/// Waits until so many changes of lists are published. An entry can be read before the event about it.
pub(super) async fn changed(jetstream: &jetstream::Context, count: usize) -> Vec<Value> {
    eventually("the changes of lists are published", SOON, async || {
        let changes = changes(jetstream).await;
        match changes.len() == count {
            true => Ok(changes),
            false => Err(format!("{changes:?}")),
        }
    })
    .await
}
