//! Formats an event as one line of text. Reads only the fields that it prints, so that events of later versions work too.

use std::fmt::Write;

use serde::{Deserialize, de::IgnoredAny};

/// The fields of an event that are printed or filtered by.
#[derive(Deserialize)]
pub(super) struct TailEvent {
    time: String,
    pub(super) data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Data {
    #[serde(rename = "operationID")]
    pub(super) operation_id: String,
    #[serde(rename = "ownerUserID")]
    pub(super) owner_user_id: String,
    #[serde(rename = "friendUserIDs", default)]
    friend_user_ids: Vec<IgnoredAny>,
    friend_count: Option<usize>,
    pub(super) verdict: Option<String>,
    cause: Option<String>,
    refusal: Option<Refusal>,
    #[serde(default)]
    removed: Vec<Removal>,
    #[serde(default)]
    rules: Vec<Fired>,
}

#[derive(Deserialize)]
struct Refusal {
    rule: Option<String>,
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Removal {
    rule: String,
    #[serde(default)]
    friends: Vec<IgnoredAny>,
    count: Option<usize>,
}

#[derive(Deserialize)]
struct Fired {
    id: String,
    mode: String,
    outcome: String,
}

impl Data {
    /// The IDs of all rules that fired, possibly with duplicates.
    pub(super) fn rules_that_fired(&self) -> impl Iterator<Item = &str> {
        let fired = self.rules.iter().map(|rule| rule.id.as_str());
        let removed = self.removed.iter().map(|removal| removal.rule.as_str());
        let refused = self.refusal.iter().filter_map(|r| r.rule.as_deref());
        fired.chain(removed).chain(refused)
    }

    fn requested(&self) -> usize {
        self.friend_count.unwrap_or(self.friend_user_ids.len())
    }

    fn imported(&self) -> usize {
        // Counts in foreign events may be any numbers.
        let removed = self.removed.iter().map(Removal::count);
        let removed = removed.fold(0, usize::saturating_add);
        match self.verdict.as_deref() {
            Some("refuse") => 0,
            Some("modify") => self.requested().saturating_sub(removed),
            _ => self.requested(),
        }
    }

    fn reason(&self) -> String {
        let mut reasons = Vec::new();
        match &self.refusal {
            Some(Refusal {
                rule,
                code,
                message,
            }) => {
                let by = rule.as_ref().or(self.cause.as_ref());
                let by = by.map(|by| format!(" {by}")).unwrap_or_default();
                reasons.push(format!("{code}{by}: {message}"));
            }
            None => reasons.extend(
                self.cause
                    .as_ref()
                    .map(|cause| format!("fallback: {cause}")),
            ),
        }
        reasons.extend(
            self.removed
                .iter()
                .map(|removal| format!("removed {} by {}", removal.count(), removal.rule)),
        );
        for rule in &self.rules {
            if rule.outcome == "skipped" {
                reasons.push(format!("shadow {} skipped", rule.id));
            } else if rule.mode == "shadow" {
                reasons.push(format!("shadow {} would {}", rule.id, rule.outcome));
            } else if rule.outcome == "error" {
                reasons.push(format!("{} failed", rule.id));
            }
        }
        reasons.join("; ")
    }
}

impl Removal {
    fn count(&self) -> usize {
        self.count.unwrap_or(self.friends.len())
    }
}

/// Whether to use colours.
#[derive(Clone, Copy)]
pub(super) enum Paint {
    Plain,
    Coloured,
}

impl Paint {
    /// Colours on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
    pub(super) fn for_terminal(is_terminal: bool) -> Self {
        if is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) {
            Self::Coloured
        } else {
            Self::Plain
        }
    }

    /// `event` as a line, without a line break.
    pub(super) fn line(self, event: &TailEvent) -> String {
        let data = &event.data;
        let verdict = data.verdict.as_deref().unwrap_or("imported");
        let friends = match data.verdict {
            Some(_) => format!("{}/{}", data.imported(), data.requested()),
            None => data.requested().to_string(),
        };
        let (on, off) = match (self, verdict) {
            (Self::Plain, _) => ("", ""),
            (_, "allow") => ("\x1b[32m", "\x1b[0m"),
            (_, "refuse") => ("\x1b[31m", "\x1b[0m"),
            (_, "modify") => ("\x1b[33m", "\x1b[0m"),
            _ => ("\x1b[2m", "\x1b[0m"),
        };
        let line = format!(
            "{time}  {on}{verdict:8}{off}  {owner:18}  {friends:>7}  {operation:20}  {reason}",
            time = to_the_millisecond(&event.time),
            verdict = printable(verdict),
            owner = printable(&data.owner_user_id),
            operation = printable(&data.operation_id),
            reason = printable(&data.reason()),
        );
        line.trim_end().to_owned()
    }
}

/// Shortens `2026-11-23T18:04:05.123456789Z` to milliseconds.
fn to_the_millisecond(time: &str) -> String {
    let time = printable(time);
    let (seconds, fraction) = match time.trim_end_matches('Z').split_once('.') {
        Some((seconds, fraction)) => (seconds.to_owned(), fraction.to_owned()),
        None => (time.trim_end_matches('Z').to_owned(), String::new()),
    };
    let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
    format!("{seconds}.{millis}Z")
}

/// Escapes control characters: IDs come from callers, and an escape sequence must not reach a terminal.
fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(clean, "{}", c.escape_default());
        } else {
            clean.push(c);
        }
    }
    clean
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(data: Value) -> TailEvent {
        let mut event = json!({"time": "2026-11-23T18:04:05.1234Z", "data": {
            "operationID": "1646445464564", "ownerUserID": "user123", "friendUserIDs": ["a", "b", "a"],
        }});
        let fields = event["data"].as_object_mut().unwrap();
        fields.extend(data.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    pub(in crate::tail) fn allowed() -> TailEvent {
        event(json!({"verdict": "allow", "removed": [], "rules": []}))
    }

    pub(in crate::tail) fn modified() -> TailEvent {
        event(json!({
            "verdict": "modify",
            "removed": [{"rule": "duplicate", "friends": [2]}, {"rule": "bots", "friends": [1]}],
            "rules": [
                {"id": "bots", "mode": "enforce", "outcome": "remove"},
                {"id": "big-import", "mode": "shadow", "outcome": "refuse"},
            ],
        }))
    }

    pub(in crate::tail) fn refused() -> TailEvent {
        event(json!({
            "verdict": "refuse", "removed": [],
            "refusal": {"rule": "blocked-owner", "code": 5001, "message": "not allowed", "detail": "…"},
            "rules": [{"id": "blocked-owner", "mode": "enforce", "outcome": "refuse"}],
        }))
    }

    pub(in crate::tail) fn imported() -> TailEvent {
        event(json!({}))
    }

    #[track_caller]
    fn reads(event: &TailEvent, expected: &str) {
        assert_eq!(Paint::Plain.line(event), expected);
    }

    #[test]
    fn lines_are_aligned_and_have_the_reason() {
        reads(
            &allowed(),
            "2026-11-23T18:04:05.123Z  allow     user123                 3/3  1646445464564",
        );
        reads(
            &modified(),
            "2026-11-23T18:04:05.123Z  modify    user123                 1/3  1646445464564         removed 1 by duplicate; removed 1 by bots; shadow big-import would refuse",
        );
        reads(
            &refused(),
            "2026-11-23T18:04:05.123Z  refuse    user123                 0/3  1646445464564         5001 blocked-owner: not allowed",
        );
        reads(
            &imported(),
            "2026-11-23T18:04:05.123Z  imported  user123                   3  1646445464564",
        );
    }

    #[test]
    fn a_fallback_has_its_cause() {
        let allowed =
            event(json!({"verdict": "allow", "decidedBy": "fallback", "cause": "deciderTimeout"}));
        assert!(
            Paint::Plain
                .line(&allowed)
                .ends_with("  fallback: deciderTimeout")
        );
        let refusal = json!({"code": 5911, "message": "decider timed out", "detail": ""});
        let refused =
            event(json!({"verdict": "refuse", "cause": "deciderTimeout", "refusal": refusal}));
        assert!(
            Paint::Plain
                .line(&refused)
                .ends_with("  5911 deciderTimeout: decider timed out")
        );
    }

    #[test]
    fn a_shadow_rule_that_was_not_evaluated_is_skipped() {
        let skipped = event(json!({
            "verdict": "allow",
            "rules": [{"id": "costly", "mode": "shadow", "outcome": "skipped"}],
        }));
        let line = Paint::Plain.line(&skipped);
        assert!(line.ends_with("  shadow costly skipped"), "{line}");
    }

    #[test]
    fn an_event_that_was_too_large_is_described_by_its_counts() {
        let large = event(json!({
            "friendUserIDs": [], "friendCount": 10_000, "verdict": "modify",
            "removed": [{"rule": "bots", "count": 4_000}],
        }));
        assert!(Paint::Plain.line(&large).contains(" 6000/10000 "));
        let absurd = event(json!({
            "verdict": "modify",
            "removed": [{"rule": "a", "count": u64::MAX}, {"rule": "b", "count": 1}],
        }));
        assert!(Paint::Plain.line(&absurd).contains(" 0/3 "));
    }

    #[test]
    fn escape_sequences_in_events_are_escaped() {
        assert!(Paint::Coloured.line(&refused()).contains("\x1b[31mrefuse"));
        let hostile = event(json!({"ownerUserID": "\x1b]0;gotcha\x07", "verdict": "allow"}));
        let line = Paint::Plain.line(&hostile);
        assert!(line.contains("\\u{1b}]0;gotcha\\u{7}"), "{line}");
        assert!(!line.contains('\x1b'), "{line}");
    }
}
