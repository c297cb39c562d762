//! An event as the commands read it: only the fields that they use, so that events of later versions work too.

use std::{borrow::Cow, fmt::Write};

use importguard_core::{ListRevision, PolicyRevision, UserId};
use importguard_gateway::events::Pseudonyms;
use importguard_lists::ListChangedEvent;
use importguard_runtime::text::unseen;
use serde::Deserialize;

use super::{Matched, exact_rfc3339};
use crate::text::counted;

/// The fields of an event that are printed or filtered by.
#[derive(Deserialize)]
pub(crate) struct Event {
    /// The event's ID; empty if a foreign event has none.
    #[serde(default)]
    pub(crate) id: String,
    /// When the gateway decided; RFC 3339.
    pub(crate) time: String,
    /// W3C Trace Context of the callback.
    pub(crate) traceparent: Option<String>,
    /// Whether it has pseudonyms instead of user IDs.
    #[serde(default)]
    pub(crate) pseudonymised: bool,
    pub(crate) data: Data,
}

/// The callback and the decision on it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Data {
    #[serde(rename = "operationID")]
    pub(crate) operation_id: String,
    /// What the caller sent instead of a usable operationID, if the gateway generated one.
    #[serde(rename = "replacedOperationID")]
    pub(crate) replaced_operation_id: Option<String>,
    #[serde(rename = "ownerUserID")]
    pub(crate) owner_user_id: String,
    #[serde(rename = "friendUserIDs", default)]
    pub(crate) friend_user_ids: Vec<String>,
    /// Number of requested friends; set only if their IDs were left out.
    pub(crate) friend_count: Option<usize>,
    pub(crate) verdict: Option<String>,
    pub(crate) cause: Option<String>,
    pub(crate) refusal: Option<Refusal>,
    #[serde(default)]
    pub(crate) removed: Vec<Removal>,
    #[serde(default)]
    pub(crate) rules: Vec<Fired>,
    pub(crate) policy: Option<PolicyRevision>,
    #[serde(default)]
    pub(crate) lists: Vec<ListRevision>,
    pub(crate) gateway: Option<String>,
}

/// The refusal that OpenIM received.
#[derive(Deserialize)]
pub(crate) struct Refusal {
    pub(crate) rule: Option<String>,
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
}

/// The friends that a rule removed.
#[derive(Deserialize)]
pub(crate) struct Removal {
    pub(crate) rule: String,
    /// Indexes into the requested friends.
    #[serde(default)]
    pub(crate) friends: Vec<usize>,
    count: Option<usize>,
}

/// A rule that fired.
#[derive(Deserialize)]
pub(crate) struct Fired {
    pub(crate) id: String,
    pub(crate) mode: String,
    pub(crate) outcome: String,
    /// Why its expression failed.
    pub(crate) reason: Option<String>,
    /// The matches that made it act.
    #[serde(default)]
    pub(crate) matched: Vec<Matched>,
    /// How many more friends it acted on that no listed match counts.
    #[serde(default)]
    pub(crate) unlisted: u64,
}

impl Event {
    /// The trace ID of the callback.
    pub(crate) fn trace(&self) -> Option<&str> {
        self.traceparent.as_deref()?.split('-').nth(1)
    }
}

impl Data {
    /// The IDs of all rules that fired, possibly with duplicates.
    pub(crate) fn rules_that_fired(&self) -> impl Iterator<Item = &str> {
        let fired = self.rules.iter().map(|rule| rule.id.as_str());
        let removed = self.removed.iter().map(|removal| removal.rule.as_str());
        let refused = self.refusal.iter().filter_map(|r| r.rule.as_deref());
        fired.chain(removed).chain(refused)
    }

    /// Whether `id` is the operationID, or the one that a generated ID replaced, which is the one in OpenIM's log.
    pub(crate) fn has_operation_id(&self, id: &str) -> bool {
        self.operation_id == id || self.replaced_operation_id.as_deref() == Some(id)
    }

    /// How many friends were requested.
    pub(crate) fn requested(&self) -> usize {
        self.friend_count.unwrap_or(self.friend_user_ids.len())
    }

    /// How many friends the verdict allows.
    pub(crate) fn imported(&self) -> usize {
        // Counts in foreign events may be arbitrary numbers.
        let removed = self.removed.iter().map(Removal::count);
        let removed = removed.fold(0, usize::saturating_add);
        match self.verdict.as_deref() {
            Some("refuse") => 0,
            Some("modify") => self.requested().saturating_sub(removed),
            _ => self.requested(),
        }
    }
}

impl Removal {
    /// How many friends were removed.
    pub(crate) fn count(&self) -> usize {
        self.count.unwrap_or(self.friends.len())
    }
}

/// Returns the time of a change, the user, and a text such as `by alice: #4711, until 2026-11-30T18:04:05Z`.
pub(crate) fn list_change(event: &ListChangedEvent) -> (String, String, String) {
    let data = &event.data;
    let mut rest = format!("by {}", printable(&data.by));
    if let Some(reason) = &data.reason {
        rest.push_str(": ");
        rest.push_str(&printable(reason));
    }
    if let Some(until) = data.until {
        rest.push_str(", until ");
        rest.push_str(&exact_rfc3339(until));
    }
    let time = to_the_millisecond(&exact_rfc3339(event.time));
    (time, printable(data.user_id.as_str()), rest)
}

/// Shortens `2026-11-23T18:04:05.123456789Z` to milliseconds.
pub(crate) fn to_the_millisecond(time: &str) -> String {
    let time = printable(time);
    let (seconds, fraction) = match time.trim_end_matches('Z').split_once('.') {
        Some((seconds, fraction)) => (seconds.to_owned(), fraction.to_owned()),
        None => (time.trim_end_matches('Z').to_owned(), String::new()),
    };
    let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
    format!("{seconds}.{millis}Z")
}

/// `users` as events may contain them: the IDs themselves, and their pseudonyms.
pub(crate) fn with_pseudonyms(mut users: Vec<String>, pseudonyms: &Pseudonyms) -> Vec<String> {
    let ids = users
        .iter()
        .filter_map(|user| UserId::parse(user.as_str()).ok());
    let known: Vec<_> = ids.map(|id| pseudonyms.of(&id).to_string()).collect();
    users.extend(known);
    users
}

/// A number of friends, in words.
pub(crate) fn friends(count: usize) -> String {
    counted(count, "friend", "friends")
}

/// Escapes control characters and invisible ones: IDs come from callers, and neither an escape sequence nor a change of direction may
/// make a line look like another.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if unseen(c).is_some() {
            // Writing to a String cannot fail.
            let _ = write!(clean, "{}", c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Writes these characters of a JSON text as its own escapes: JSON leaves most of them as they are, and a terminal obeys some. The text
/// means the same.
pub(crate) fn printable_json(text: &str) -> Cow<'_, str> {
    // Line breaks, and other characters of ASCII, are between the values, or escaped already.
    let is_hidden = |c: char| c > '~' && unseen(c).is_some();
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(clean, "\\u{unit:04x}");
            }
        } else {
            clean.push(c);
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_on_a_screen_is_escaped() {
        for (text, expected) in [
            ("user 1 用户 é", "user 1 用户 é"),
            ("a\u{1b}[2Kb\n", "a\\u{1b}[2Kb\\n"),
            (
                "a\u{202e}b\u{200b}\u{2028}",
                "a\\u{202e}b\\u{200b}\\u{2028}",
            ),
        ] {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn json_with_escapes_is_the_same_json() {
        let value = serde_json::json!({ "id": "a\u{202e}b\u{9b}\u{7f}\u{e0041}\n用户 é" });
        let plain = format!("{value:#}\n");
        let text = printable_json(&plain);
        assert_eq!(
            text,
            "{\n  \"id\": \"a\\u202eb\\u009b\\u007f\\udb40\\udc41\\n用户 é\"\n}\n"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
    }
}
