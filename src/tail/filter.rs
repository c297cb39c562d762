use std::collections::BTreeSet;

use clap::{Args, builder::PossibleValuesParser};
use importguard_core::{Cause, UserId, VerdictKind};
use importguard_gateway::events::Pseudonyms;
use importguard_lists::ListChangedEvent;
use strum::IntoEnumIterator;

use crate::events::{Console, Event, printable, with_pseudonyms};

/// Which events are printed. Several values of one filter are alternatives; all filters must match.
#[derive(Args, Default)]
#[command(next_help_heading = "Filters (comma-separated alternatives; all filters must match)")]
pub(super) struct Filter {
    /// Only decisions with this verdict
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(VerdictKind::iter().map(VerdictKind::into_str)))]
    verdict: Vec<String>,

    /// Only decisions by a fallback for this cause, whatever the answer was
    #[arg(long, value_delimiter = ',', value_parser = PossibleValuesParser::new(recorded_causes()))]
    cause: Vec<String>,

    /// Only decisions in which this rule matched, failed or was skipped, enforced or in shadow mode
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    rule: Vec<String>,

    /// Only imports by this user: the ID, or its pseudonym where events carry pseudonyms and no pseudonym key is set here
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    owner: Vec<String>,

    /// Only events with this operationID, generated or as the caller sent it
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    operation_id: Vec<String>,

    /// Only events with this user among the requested friends: the ID or its pseudonym, as for --owner
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    friend: Vec<String>,

    /// Only events of this trace: its ID, or a whole traceparent
    #[arg(long, value_name = "TRACE_ID", value_delimiter = ',', value_parser = trace_id)]
    trace: Vec<String>,
}

/// The causes that events can have. A decision that cannot be recorded has no event.
fn recorded_causes() -> impl Iterator<Item = &'static str> {
    let causes = Cause::iter().filter(|cause| *cause != Cause::Unrecordable);
    causes.map(Cause::into_str)
}

impl Filter {
    /// The filters as flags in canonical form; empty if there are none. With a pseudonym key, users appear only as pseudonyms.
    pub(super) fn flags(&self, pseudonyms: &Pseudonyms) -> String {
        let users = |users: &[String]| -> Vec<String> {
            let users = users.iter().map(|user| match UserId::parse(user.as_str()) {
                Ok(id) => pseudonyms.of(&id).to_string(),
                Err(_) => user.clone(),
            });
            users.collect()
        };
        let (owner, friend) = (users(&self.owner), users(&self.friend));
        let flags = [
            ("--verdict", &self.verdict),
            ("--cause", &self.cause),
            ("--rule", &self.rule),
            ("--owner", &owner),
            ("--operation-id", &self.operation_id),
            ("--friend", &friend),
            ("--trace", &self.trace),
        ];
        let given = flags.into_iter().filter(|(_, values)| !values.is_empty());
        let given = given.map(|(flag, values)| {
            let values: BTreeSet<&str> = values.iter().map(String::as_str).collect();
            let values: Vec<&str> = values.into_iter().collect();
            format!("{flag} {}", values.join(","))
        });
        given.collect::<Vec<_>>().join(" ")
    }

    /// The matcher for these filters. With a pseudonym key, owners and friends also match by pseudonym.
    pub(super) fn matcher(self, pseudonyms: &Pseudonyms) -> Matcher {
        Matcher {
            filter: Self {
                owner: with_pseudonyms(self.owner, pseudonyms),
                friend: with_pseudonyms(self.friend, pseudonyms),
                ..self
            },
            seen: Seen::default(),
        }
    }
}

/// Matches events; an empty list matches all.
pub(super) struct Matcher {
    filter: Filter,
    seen: Seen,
}

/// What the events contained that were matched against the filters.
#[derive(Default)]
struct Seen {
    events: u64,
    matching: u64,
    rules: BTreeSet<String>,
    verdicts: BTreeSet<String>,
    causes: BTreeSet<String>,
    /// Events that have only the number of their friends.
    without_friends: u64,
}

impl Seen {
    /// Counts an event, and returns whether it matches.
    fn count(&mut self, is_match: bool) -> bool {
        self.events += 1;
        self.matching += u64::from(is_match);
        is_match
    }
}

impl Matcher {
    /// Whether there was no event to match.
    pub(super) const fn is_unused(&self) -> bool {
        self.seen.events == 0
    }

    /// Whether `event` matches all filters.
    pub(super) fn matches(&mut self, event: &Event) -> bool {
        self.see(event);
        let is_match = self.fits(event);
        self.seen.count(is_match)
    }

    fn fits(&self, event: &Event) -> bool {
        let (filter, data) = (&self.filter, &event.data);
        any(&filter.verdict, |it| data.verdict.as_deref() == Some(it))
            && any(&filter.cause, |it| data.cause.as_deref() == Some(it))
            && any(&filter.owner, |it| data.owner_user_id == it)
            && any(&filter.operation_id, |it| data.has_operation_id(it))
            && any(&filter.rule, |it| {
                data.rules_that_fired().any(|rule| rule == it)
            })
            && any(&filter.friend, |it| {
                data.friend_user_ids.iter().any(|friend| friend == it)
            })
            && any(&filter.trace, |it| event.trace() == Some(it))
    }

    /// Whether to print a change of a live list: only if no filter other than --owner is set, and the user matches it.
    pub(super) fn matches_change(&mut self, change: &ListChangedEvent) -> bool {
        let others = [
            &self.filter.verdict,
            &self.filter.cause,
            &self.filter.rule,
            &self.filter.operation_id,
            &self.filter.friend,
            &self.filter.trace,
        ];
        let user = change.data.user_id.as_str();
        let is_match =
            others.into_iter().all(Vec::is_empty) && any(&self.filter.owner, |it| it == user);
        self.seen.count(is_match)
    }

    fn see(&mut self, event: &Event) {
        let seen = &mut self.seen;
        if !self.filter.rule.is_empty() {
            for rule in event.data.rules_that_fired() {
                if !seen.rules.contains(rule) {
                    seen.rules.insert(rule.to_owned());
                }
            }
        }
        for (name, names) in [
            (&event.data.verdict, &mut seen.verdicts),
            (&event.data.cause, &mut seen.causes),
        ] {
            if let Some(name) = name
                && !names.contains(name)
            {
                names.insert(name.clone());
            }
        }
        if event.data.friend_count.is_some() {
            seen.without_friends += 1;
        }
    }

    /// Reports rules, verdicts and causes that no event had, which may be misspelt, events that --friend could not check, or that no event
    /// matched.
    pub(super) fn hint(&self, console: Console) {
        for hint in self.hints() {
            console.report(&hint);
        }
    }

    fn hints(&self) -> Vec<String> {
        let seen = &self.seen;
        if seen.events == 0 {
            return Vec::new();
        }
        let mut hints = Vec::new();
        for (what, wanted, seen) in [
            ("rule", &self.filter.rule, &seen.rules),
            ("verdict", &self.filter.verdict, &seen.verdicts),
            ("cause", &self.filter.cause, &seen.causes),
        ] {
            let list = seen.iter().map(|name| printable(name)).collect::<Vec<_>>();
            let list = if list.is_empty() {
                "none".to_owned()
            } else {
                list.join(", ")
            };
            let unseen = wanted.iter().filter(|name| !seen.contains(*name));
            hints.extend(
                unseen.map(|name| format!("no event had the {what} {name}; {what}s seen: {list}")),
            );
        }
        if !self.filter.friend.is_empty() && seen.without_friends > 0 {
            hints.push(format!(
                "--friend cannot find a friend in {} events that were too large to list friends",
                seen.without_friends
            ));
        }
        if hints.is_empty() && seen.matching == 0 {
            hints.push(format!("events read: {}; none matched", seen.events));
        }
        hints
    }
}

/// Whether a filter with these values lets through what `fits` one of them.
fn any(wanted: &[String], mut fits: impl FnMut(&str) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(|it| fits(it))
}

/// Parses a trace ID, or extracts it from a traceparent.
fn trace_id(text: &str) -> Result<String, String> {
    let id = match text.split('-').collect::<Vec<_>>()[..] {
        [id] | [_, id, _, _] => id,
        _ => "",
    };
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(id.to_ascii_lowercase())
    } else {
        Err("must be a trace ID of 32 hexadecimal digits, or a traceparent".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::line::tests::{allowed, imported, modified, refused};

    fn matcher(filter: Filter) -> Matcher {
        filter.matcher(&Pseudonyms::Off)
    }

    fn matched(mut matcher: Matcher) -> Vec<bool> {
        let events = [allowed(), modified(), refused(), imported()];
        events.iter().map(|event| matcher.matches(event)).collect()
    }

    #[test]
    fn without_filters_every_event_matches() {
        assert_eq!(matched(matcher(Filter::default())), [true; 4]);
    }

    #[test]
    fn verdicts_match_decisions_only() {
        let verdict = ["refuse", "modify"].map(str::to_owned).to_vec();
        let matcher = matcher(Filter {
            verdict,
            ..Filter::default()
        });
        assert_eq!(matched(matcher), [false, true, true, false]);
    }

    #[test]
    fn a_rule_matches_whether_it_refused_removed_or_was_in_shadow_mode() {
        for (rule, expected) in [
            ("bots", [false, true, false, false]),
            ("big-import", [false, true, false, false]),
            ("duplicate", [false, true, false, false]),
            ("blocked-owner", [false, false, true, false]),
        ] {
            let matcher = matcher(Filter {
                rule: vec![rule.to_owned()],
                ..Filter::default()
            });
            assert_eq!(matched(matcher), expected, "{rule}");
        }
    }

    #[test]
    fn an_owner_matches_by_id_or_by_pseudonym() {
        let filter = |owner: &str| Filter {
            owner: vec![owner.to_owned()],
            ..Filter::default()
        };
        let keyed = Pseudonyms::keyed(&"0123456789abcdef".parse().unwrap());
        let mut event = allowed();
        let id = UserId::parse(event.data.owner_user_id.as_str()).unwrap();
        assert!(filter(id.as_str()).matcher(&keyed).matches(&event));
        event.data.owner_user_id = keyed.of(&id).to_string();
        assert!(filter(id.as_str()).matcher(&keyed).matches(&event));
        assert!(
            !filter(id.as_str())
                .matcher(&Pseudonyms::Off)
                .matches(&event)
        );
        assert!(!filter("somebody").matcher(&keyed).matches(&event));
    }

    #[test]
    fn a_friend_matches_by_id_and_a_trace_by_its_id() {
        let friends = |id: &str| {
            matcher(Filter {
                friend: vec![id.to_owned()],
                ..Filter::default()
            })
        };
        assert_eq!(matched(friends("a")), [true; 4]);
        assert_eq!(matched(friends("z")), [false; 4]);
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let traces = |id: &str| {
            matcher(Filter {
                trace: vec![trace_id(id).unwrap()],
                ..Filter::default()
            })
        };
        assert_eq!(matched(traces(id)), [true, false, false, false]);
        assert_eq!(
            matched(traces(&id.to_uppercase())),
            [true, false, false, false]
        );
        let whole = format!("00-{id}-00f067aa0ba902b7-01");
        assert_eq!(matched(traces(&whole)), [true, false, false, false]);
        for bad in ["", "4bf92f", "00-4bf92f-00-01", &format!("{id}0")] {
            assert!(trace_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_generated_operation_id_is_found_by_what_it_replaced_too() {
        let generated = "importguard-019ab1f0";
        for (wanted, expected) in [
            (generated, true),
            ("has space", true),
            ("1646445464564", false),
        ] {
            let mut event = allowed();
            event.data.operation_id = generated.to_owned();
            event.data.replaced_operation_id = Some("has space".to_owned());
            let mut matcher = matcher(Filter {
                operation_id: vec![wanted.to_owned()],
                ..Filter::default()
            });
            assert_eq!(matcher.matches(&event), expected, "{wanted}");
        }
    }

    #[test]
    fn names_that_no_event_had_are_reported_with_those_seen() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let mut matcher = matcher(Filter {
            rule: names(&["bost", "bots"]),
            verdict: names(&["refuse"]),
            ..Filter::default()
        });
        assert_eq!(matcher.hints(), Vec::<String>::new(), "nothing was read");
        matcher.matches(&allowed());
        matcher.matches(&modified());
        assert_eq!(
            matcher.hints(),
            [
                "no event had the rule bost; rules seen: big-import, bots, duplicate",
                "no event had the verdict refuse; verdicts seen: allow, modify",
            ]
        );
    }

    #[test]
    fn it_is_reported_if_no_event_matched() {
        let mut matcher = matcher(Filter {
            owner: vec!["nobody".to_owned()],
            ..Filter::default()
        });
        matcher.matches(&allowed());
        assert_eq!(matcher.hints(), ["events read: 1; none matched"]);
        matcher.filter.owner.clear();
        matcher.matches(&allowed());
        assert_eq!(matcher.hints(), Vec::<String>::new());
    }

    #[test]
    fn the_filters_of_a_durable_consumer_have_one_form_and_no_ids_under_a_key() {
        let filter = Filter {
            verdict: vec!["refuse".to_owned(), "modify".to_owned()],
            owner: vec!["user123".to_owned()],
            ..Filter::default()
        };
        let keyed = Pseudonyms::keyed(&"0123456789abcdef".parse().unwrap());
        assert_eq!(
            filter.flags(&keyed),
            "--verdict modify,refuse --owner pn_15765ed1c7aef2755d0076c69c2cd411"
        );
        assert_eq!(
            filter.flags(&Pseudonyms::Off),
            "--verdict modify,refuse --owner user123"
        );
    }
}
