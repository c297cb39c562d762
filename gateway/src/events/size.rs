//! Shortens events that are too large for NATS.

use bytes::Bytes;
use serde_json::{Map, Value};

/// Maximum size of a message's headers, which NATS counts towards `max_payload`. An operationID takes up to 256 bytes, and three times
/// that as baggage; a tracestate up to 512 bytes, and the other headers about 300.
pub(super) const HEADER_BYTES: usize = 2048;

/// Shortens an event that exceeds `max_payload` with its headers: replaces friends, as IDs and as indexes, by their number, and if
/// that is not enough leaves out what made rules act. Lists in `omitted` what is missing.
pub(crate) fn fit(payload: Bytes, max_payload: usize) -> Bytes {
    if payload.len() + HEADER_BYTES <= max_payload {
        return payload;
    }
    match shortened(&payload, max_payload) {
        Some(smaller) => Bytes::from(smaller),
        None => payload,
    }
}

fn shortened(payload: &[u8], max_payload: usize) -> Option<Vec<u8>> {
    let mut event: Value = serde_json::from_slice(payload).ok()?;
    let data = event.get_mut("data")?.as_object_mut()?;
    let mut omitted = Vec::new();
    keep_counts(data, &mut omitted);
    data.insert("omitted".to_owned(), Value::Array(omitted.clone()));
    let counts = serde_json::to_vec(&event).ok()?;
    if counts.len() + HEADER_BYTES <= max_payload {
        return Some(counts);
    }
    let data = event.get_mut("data")?.as_object_mut()?;
    let rules = data.get_mut("rules")?.as_array_mut()?;
    let mut counted = false;
    for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
        rule.remove("matched");
        counted |= rule.remove("unlisted").is_some();
    }
    omitted.retain(|field| field != MATCHED_FRIENDS);
    omitted.push(Value::from(MATCHED));
    if counted {
        omitted.push(Value::from(UNLISTED));
    }
    data.insert("omitted".to_owned(), Value::Array(omitted));
    serde_json::to_vec(&event).ok()
}

/// Names in `omitted`.
const MATCHED: &str = "rules.matched";
const MATCHED_FRIENDS: &str = "rules.matched.friends";
const UNLISTED: &str = "rules.unlisted";

fn keep_counts(data: &mut Map<String, Value>, omitted: &mut Vec<Value>) {
    if let Some(Value::Array(friends)) = data.remove("friendUserIDs") {
        data.insert("friendCount".to_owned(), friends.len().into());
        omitted.push(Value::from("friendUserIDs"));
    }
    if let Some(Value::Array(removals)) = data.get_mut("removed") {
        for removal in removals.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(Value::Array(friends)) = removal.remove("friends") {
                removal.insert("count".to_owned(), friends.len().into());
            }
        }
        omitted.push(Value::from("removed.friends"));
    }
    let rules = data.get_mut("rules").and_then(Value::as_array_mut);
    let matches = rules.into_iter().flatten().filter_map(|rule| {
        let matched = rule.get_mut("matched")?;
        matched.as_array_mut()
    });
    let mut left_out = false;
    for matched in matches.flatten().filter_map(Value::as_object_mut) {
        left_out |= matched.remove("friends").is_some();
    }
    if left_out {
        omitted.push(Value::from(MATCHED_FRIENDS));
    }
}
