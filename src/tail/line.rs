//! Formats an event as one line of text.

use std::io::{self, IsTerminal};

use importguard_lists::{ChangeMade, ListChangedEvent};

use crate::{
    events::{Data, Event, Fired, list_change, printable, to_the_millisecond},
    output::is_coloured,
};

/// Initial widths of the columns for the owner and for the operation ID.
const OWNER_WIDTH: usize = 18;
const OPERATION_WIDTH: usize = 20;

/// Maximum width of a column on a terminal: wide enough for a pseudonym.
const WIDEST: usize = 40;

/// Maximum number of parts of a rule that are named.
const NAMED: usize = 3;

fn reason(data: &Data) -> String {
    let mut reasons = Vec::new();
    match &data.refusal {
        Some(refusal) => {
            let by = refusal.rule.as_ref().or(data.cause.as_ref());
            let by = by.map(|by| format!(" {by}")).unwrap_or_default();
            let why = enforced(data, refusal.rule.as_deref(), "refuse");
            reasons.push(format!("{}{by}: {}{why}", refusal.code, refusal.message));
        }
        None => reasons.extend(
            data.cause
                .as_ref()
                .map(|cause| format!("fallback: {cause}")),
        ),
    }
    reasons.extend(data.removed.iter().map(|removal| {
        let why = enforced(data, Some(&removal.rule), "remove");
        format!("removed {} by {}{why}", removal.count(), removal.rule)
    }));
    for rule in &data.rules {
        let shadow = if rule.mode == "shadow" { "shadow " } else { "" };
        if rule.outcome == "skipped" {
            reasons.push(format!("shadow {} skipped", rule.id));
        } else if rule.outcome == "error" {
            let why = rule.reason.as_ref().map(|why| format!(" ({why})"));
            let why = why.unwrap_or_default();
            reasons.push(format!("{shadow}{} failed{why}", rule.id));
        } else if rule.mode == "shadow" {
            let why = matched(rule);
            reasons.push(format!("shadow {} would {}{why}", rule.id, rule.outcome));
        }
    }
    reasons.join("; ")
}

/// The matches that made an enforced rule act.
fn enforced(data: &Data, id: Option<&str>, outcome: &str) -> String {
    let mut rules = data.rules.iter();
    let rule = rules.find(|rule| {
        Some(rule.id.as_str()) == id && rule.outcome == outcome && rule.mode == "enforce"
    });
    rule.map(matched).unwrap_or_default()
}

/// Formats the matches of a rule, such as ` (prefix "bot_" 2, list blocked 1)`; empty if there are none. Expressions are too long for a
/// line.
fn matched(rule: &Fired) -> String {
    let several = rule.matched.len() > 1 || rule.unlisted > 0;
    let parts = rule.matched.iter().filter_map(|matched| {
        let part = matched.part()?;
        Some(match several && matched.is_of_friends() {
            true => format!("{part} {}", matched.count),
            false => part,
        })
    });
    let mut parts: Vec<_> = parts.collect();
    if parts.is_empty() {
        return String::new();
    }
    if parts.len() > NAMED || rule.unlisted > 0 {
        parts.truncate(NAMED);
        parts.push("…".to_owned());
    }
    format!(" ({})", parts.join(", "))
}

/// Formats lines. For a terminal, columns keep the width of the widest value so far.
pub(crate) struct Lines {
    coloured: bool,
    grows: bool,
    owner: usize,
    operation: usize,
}

impl Lines {
    /// Aligned columns for a terminal; for anything else, lines that do not depend on each other.
    pub(crate) fn for_stdout() -> Self {
        Self {
            coloured: is_coloured(),
            ..Self::new(io::stdout().is_terminal())
        }
    }

    pub(crate) fn new(is_terminal: bool) -> Self {
        Self {
            coloured: false,
            grows: is_terminal,
            owner: OWNER_WIDTH,
            operation: OPERATION_WIDTH,
        }
    }

    /// The names of the columns, on a terminal.
    pub(crate) fn header(&self) -> Option<String> {
        self.grows.then(|| {
            format!(
                "{:24}  {:8}  {:owner$}  {:>7}  {:operation$}  REASON",
                "TIME",
                "VERDICT",
                "OWNER",
                "FRIENDS",
                "OPERATION ID",
                owner = self.owner,
                operation = self.operation
            )
        })
    }

    /// `event` as a line, without a line break.
    pub(crate) fn line(&mut self, event: &Event) -> String {
        let data = &event.data;
        let verdict = data.verdict.as_deref().unwrap_or("imported");
        let friends = match data.verdict {
            Some(_) => format!("{}/{}", data.imported(), data.requested()),
            None => data.requested().to_string(),
        };
        let (on, off) = match verdict {
            _ if !self.coloured => ("", ""),
            "allow" => ("\x1b[32m", "\x1b[0m"),
            "refuse" => ("\x1b[31m", "\x1b[0m"),
            "modify" => ("\x1b[33m", "\x1b[0m"),
            _ => ("\x1b[2m", "\x1b[0m"),
        };
        let owner = printable(&data.owner_user_id);
        let operation = printable(&data.operation_id);
        if self.grows {
            let grown = |width: usize, text: &str| width.max(text.chars().count().min(WIDEST));
            self.owner = grown(self.owner, &owner);
            self.operation = grown(self.operation, &operation);
        }
        let (owner_width, operation_width) = (self.owner, self.operation);
        let line = format!(
            "{time}  {on}{verdict:8}{off}  {owner:owner_width$}  {friends:>7}  {operation:operation_width$}  {reason}",
            time = to_the_millisecond(&event.time),
            verdict = printable(verdict),
            reason = printable(&reason(data)),
        );
        line.trim_end().to_owned()
    }

    /// Formats a change of a live list: `2026-11-23T18:04:05.123Z  list      user123 …  added to blocked by alice: #4711`.
    pub(super) fn change(&mut self, change: &ListChangedEvent) -> String {
        let (time, user, rest) = list_change(change);
        let done = match change.data.change {
            ChangeMade::Added => "added to",
            ChangeMade::Removed => "removed from",
        };
        let list = printable(&change.data.list);
        let (owner, operation) = (self.owner, self.operation);
        format!(
            "{time}  list      {user:owner$}  {:>7}  {:operation$}  {done} {list} {rest}",
            "", ""
        )
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(data: Value) -> Event {
        let mut event = json!({"time": "2026-11-23T18:04:05.1234Z", "data": {
            "operationID": "1646445464564", "ownerUserID": "user123", "friendUserIDs": ["a", "b", "a"],
        }});
        let fields = event["data"].as_object_mut().unwrap();
        fields.extend(data.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    pub(in crate::tail) fn allowed() -> Event {
        let mut allowed = event(json!({"verdict": "allow", "removed": [], "rules": []}));
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        allowed.traceparent = Some(traceparent.to_owned());
        allowed
    }

    pub(in crate::tail) fn modified() -> Event {
        event(json!({
            "verdict": "modify",
            "removed": [{"rule": "duplicate", "friends": [2]}, {"rule": "bots", "friends": [1]}],
            "rules": [
                {"id": "bots", "mode": "enforce", "outcome": "remove",
                    "matched": [{"prefix": "bot_", "friends": [1], "count": 1}]},
                {"id": "big-import", "mode": "shadow", "outcome": "refuse",
                    "matched": [{"limit": 2, "count": 3}]},
            ],
        }))
    }

    pub(in crate::tail) fn refused() -> Event {
        event(json!({
            "verdict": "refuse", "removed": [],
            "refusal": {"rule": "blocked-owner", "code": 5001, "message": "not allowed", "detail": "…"},
            "rules": [{"id": "blocked-owner", "mode": "enforce", "outcome": "refuse",
                "matched": [{"list": "blocked", "reason": "#4711", "until": "2026-12-04T00:00:00Z"}]}],
        }))
    }

    pub(in crate::tail) fn imported() -> Event {
        event(json!({}))
    }

    #[track_caller]
    fn reads(event: &Event, expected: &str) {
        assert_eq!(Lines::new(false).line(event), expected);
    }

    #[test]
    fn lines_are_aligned_and_have_the_reason() {
        reads(
            &allowed(),
            "2026-11-23T18:04:05.123Z  allow     user123                 3/3  1646445464564",
        );
        reads(
            &modified(),
            "2026-11-23T18:04:05.123Z  modify    user123                 1/3  1646445464564         removed 1 by duplicate; removed 1 by bots (prefix \"bot_\"); shadow big-import would refuse (3 friends, at most 2)",
        );
        reads(
            &refused(),
            "2026-11-23T18:04:05.123Z  refuse    user123                 0/3  1646445464564         5001 blocked-owner: not allowed (list blocked [#4711; until 2026-12-04T00:00:00Z])",
        );
        reads(
            &imported(),
            "2026-11-23T18:04:05.123Z  imported  user123                   3  1646445464564",
        );
    }

    #[test]
    fn a_terminal_has_a_header_and_columns_that_stay_aligned() {
        let pseudonym = "pn_15765ed1c7aef2755d0076c69c2cd411";
        let long = event(json!({"verdict": "allow", "ownerUserID": pseudonym}));
        let mut terminal = Lines::new(true);
        let header = terminal.header().unwrap();
        let first = terminal.line(&refused());
        for (name, value) in [
            ("OWNER", "user123"),
            ("OPERATION ID", "1646"),
            ("REASON", "5001"),
        ] {
            assert_eq!(header.find(name), first.find(value), "{header}\n{first}");
        }
        let wide = terminal.line(&long);
        let after = terminal.line(&allowed());
        assert_eq!(wide.find("1646"), after.find("1646"), "{wide}\n{after}");

        let mut piped = Lines::new(false);
        assert_eq!(piped.header(), None);
        piped.line(&long);
        assert_eq!(piped.line(&refused()), first);
    }

    #[test]
    fn a_fallback_has_its_cause() {
        let allowed =
            event(json!({"verdict": "allow", "decidedBy": "fallback", "cause": "deciderTimeout"}));
        assert!(
            Lines::new(false)
                .line(&allowed)
                .ends_with("  fallback: deciderTimeout")
        );
        let refusal = json!({"code": 5911, "message": "decider timed out", "detail": ""});
        let refused =
            event(json!({"verdict": "refuse", "cause": "deciderTimeout", "refusal": refusal}));
        assert!(
            Lines::new(false)
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
        let line = Lines::new(false).line(&skipped);
        assert!(line.ends_with("  shadow costly skipped"), "{line}");
    }

    #[test]
    fn a_rule_that_failed_has_the_reason_enforced_or_in_shadow() {
        let failed = event(json!({
            "verdict": "refuse",
            "refusal": {"rule": "numeric", "code": 5105, "message": "no"},
            "rules": [
                {"id": "numeric", "mode": "enforce", "outcome": "error", "reason": "division by zero"},
                {"id": "odd", "mode": "shadow", "outcome": "error", "reason": "no such element"},
            ],
        }));
        let line = Lines::new(false).line(&failed);
        let expected = "  5105 numeric: no; numeric failed (division by zero); shadow odd failed (no such element)";
        assert!(line.ends_with(expected), "{line}");
    }

    #[test]
    fn an_event_that_was_too_large_is_described_by_its_counts() {
        let large = event(json!({
            "friendUserIDs": [], "friendCount": 10_000, "verdict": "modify",
            "removed": [{"rule": "bots", "count": 4_000}],
        }));
        assert!(Lines::new(false).line(&large).contains(" 6000/10000 "));
        let absurd = event(json!({
            "verdict": "modify",
            "removed": [{"rule": "a", "count": u64::MAX}, {"rule": "b", "count": 1}],
        }));
        assert!(Lines::new(false).line(&absurd).contains(" 0/3 "));
    }

    #[test]
    fn escape_sequences_in_events_are_escaped() {
        let mut coloured = Lines {
            coloured: true,
            ..Lines::new(false)
        };
        assert!(coloured.line(&refused()).contains("\x1b[31mrefuse"));
        let hostile = event(json!({"ownerUserID": "\x1b]0;gotcha\x07", "verdict": "allow"}));
        let line = Lines::new(false).line(&hostile);
        assert!(line.contains("\\u{1b}]0;gotcha\\u{7}"), "{line}");
        assert!(!line.contains('\x1b'), "{line}");
    }
}
