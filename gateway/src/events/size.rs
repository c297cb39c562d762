//! Shortens events that are too large for NATS.

use bytes::Bytes;
use serde_json::{Map, Value};

/// Maximum size of a message's headers, which NATS counts towards `max_payload`. An operationID takes up to 256 bytes, and three times
/// that as baggage; a tracestate up to 512 bytes, and the other headers about 300.
pub(super) const HEADER_BYTES: usize = 2048;

/// Shortens an event that exceeds `max_payload` with its headers: replaces friends, as IDs and as indexes, by their number, and if
/// that is not enough leaves out what made rules act. Lists in `omitted` what is missing, also if the event was shortened before.
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
    let mut omitted = match data.remove("omitted") {
        Some(Value::Array(names)) => names,
        _ => Vec::new(),
    };
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
    omit(&mut omitted, MATCHED);
    if counted {
        omit(&mut omitted, UNLISTED);
    }
    data.insert("omitted".to_owned(), Value::Array(omitted));
    serde_json::to_vec(&event).ok()
}

/// Names in `omitted`.
const MATCHED: &str = "rules.matched";
const MATCHED_FRIENDS: &str = "rules.matched.friends";
const UNLISTED: &str = "rules.unlisted";

fn omit(omitted: &mut Vec<Value>, name: &str) {
    if !omitted.iter().any(|known| known == name) {
        omitted.push(Value::from(name));
    }
}

fn keep_counts(data: &mut Map<String, Value>, omitted: &mut Vec<Value>) {
    if let Some(Value::Array(friends)) = data.remove("friendUserIDs") {
        data.insert("friendCount".to_owned(), friends.len().into());
        omit(omitted, "friendUserIDs");
    }
    if let Some(Value::Array(removals)) = data.get_mut("removed") {
        for removal in removals.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(Value::Array(friends)) = removal.remove("friends") {
                removal.insert("count".to_owned(), friends.len().into());
            }
        }
        omit(omitted, "removed.friends");
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
        omit(omitted, MATCHED_FRIENDS);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What `event` becomes if it is one byte too large.
    fn shortened(event: &[u8]) -> Bytes {
        let max_payload = event.len() - 1 + HEADER_BYTES;
        fit(Bytes::copy_from_slice(event), max_payload)
    }

    #[test]
    fn an_event_that_is_shortened_again_lists_all_that_it_omits_once() {
        let friends: Vec<_> = (0..1000).collect();
        let event = json!({"data": {
            "friendUserIDs": friends,
            "removed": [{"rule": "r", "friends": friends}],
            "rules": [{"id": "r", "matched": [{"list": "l".repeat(99), "friends": friends}], "unlisted": 1}],
        }});
        let once = shortened(&serde_json::to_vec(&event).unwrap());
        let twice = shortened(&once);
        for (event, omitted) in [
            (
                &once,
                json!(["friendUserIDs", "removed.friends", "rules.matched.friends"]),
            ),
            (
                &twice,
                json!([
                    "friendUserIDs",
                    "removed.friends",
                    "rules.matched",
                    "rules.unlisted"
                ]),
            ),
            (
                &shortened(&twice),
                json!([
                    "friendUserIDs",
                    "removed.friends",
                    "rules.matched",
                    "rules.unlisted"
                ]),
            ),
        ] {
            let event: Value = serde_json::from_slice(event).unwrap();
            assert_eq!(event["data"]["omitted"], omitted, "{event}");
            assert_eq!(event["data"]["friendCount"], 1000);
        }
    }
}
