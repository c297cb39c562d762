use clap::Args;
use importguard_core::{UserId, VerdictKind};
use importguard_gateway::events::Pseudonyms;

use super::line::TailEvent;

/// Which events are printed. Several values of one filter are alternatives; all filters must match.
#[derive(Args)]
#[command(next_help_heading = "Filters (comma-separated alternatives; all filters must match)")]
pub(super) struct Filter {
    /// Only decisions with this verdict
    #[arg(long, value_delimiter = ',', value_parser = VerdictKind::ALL.map(VerdictKind::as_str))]
    verdict: Vec<String>,

    /// Only decisions in which this rule matched, enforced or in shadow mode
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    rule: Vec<String>,

    /// Only imports by this user: the ID, or its pseudonym where events carry pseudonyms and no pseudonym key is set here
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    owner: Vec<String>,

    /// Only events with this operationID
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    operation_id: Vec<String>,
}

impl Filter {
    /// The matcher for these filters. With a pseudonym key, owners also match by pseudonym.
    pub(super) fn matcher(self, pseudonyms: &Pseudonyms) -> Matcher {
        let mut owners = self.owner;
        let also: Vec<_> = owners
            .iter()
            .filter_map(|owner| UserId::parse(owner.as_str()).ok())
            .map(|owner| pseudonyms.of(&owner).to_string())
            .collect();
        owners.extend(also);
        Matcher {
            verdicts: self.verdict,
            rules: self.rule,
            owners,
            operation_ids: self.operation_id,
        }
    }
}

/// Matches events; an empty list matches all.
#[derive(Default)]
pub(super) struct Matcher {
    verdicts: Vec<String>,
    rules: Vec<String>,
    owners: Vec<String>,
    operation_ids: Vec<String>,
}

impl Matcher {
    /// Whether `event` matches all filters.
    pub(super) fn matches(&self, event: &TailEvent) -> bool {
        let data = &event.data;
        let among = |wanted: &[String], value: &str| {
            wanted.is_empty() || wanted.iter().any(|wanted| wanted == value)
        };
        let verdict = data.verdict.as_deref();
        (self.verdicts.is_empty() || verdict.is_some_and(|verdict| among(&self.verdicts, verdict)))
            && among(&self.owners, &data.owner_user_id)
            && among(&self.operation_ids, &data.operation_id)
            && (self.rules.is_empty()
                || data
                    .rules_that_fired()
                    .any(|rule| self.rules.iter().any(|wanted| wanted == rule)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::line::tests::{allowed, imported, modified, refused};

    fn matched(matcher: &Matcher) -> Vec<bool> {
        let events = [allowed(), modified(), refused(), imported()];
        events.iter().map(|event| matcher.matches(event)).collect()
    }

    #[test]
    fn without_filters_every_event_matches() {
        assert_eq!(matched(&Matcher::default()), [true; 4]);
    }

    #[test]
    fn verdicts_match_decisions_only() {
        let verdicts = ["refuse", "modify"].map(str::to_owned).to_vec();
        let matcher = Matcher {
            verdicts,
            ..Matcher::default()
        };
        assert_eq!(matched(&matcher), [false, true, true, false]);
    }

    #[test]
    fn a_rule_matches_whether_it_refused_removed_or_was_in_shadow_mode() {
        for (rule, expected) in [
            ("bots", [false, true, false, false]),
            ("big-import", [false, true, false, false]),
            ("duplicate", [false, true, false, false]),
            ("blocked-owner", [false, false, true, false]),
        ] {
            let rules = vec![rule.to_owned()];
            let matcher = Matcher {
                rules,
                ..Matcher::default()
            };
            assert_eq!(matched(&matcher), expected, "{rule}");
        }
    }

    #[test]
    fn an_owner_matches_by_id_or_by_pseudonym() {
        let filter = |owner: &str| Filter {
            verdict: Vec::new(),
            rule: Vec::new(),
            owner: vec![owner.to_owned()],
            operation_id: Vec::new(),
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
}
