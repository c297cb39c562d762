//! Reads the rules from the YAML tree. What a file may have is also in `policy/detector.schema.json`, for editors.

use std::time::Duration;

use importguard_lists::ListName;
use importguard_runtime::settings;
use importguard_yaml::{
    diagnostic::{Diagnostics, Report, Span, Spanned, quoted},
    document::{FileKind, api_version, name},
    fields::{Fields, boolean, integer, sequence, text, word},
    yaml::{self, Node, Scalar},
};

use super::{Filter, Kind, MAX_FOR, MAX_WITHIN, Rule};

/// The maximum number of rules: each is evaluated for every event, and is a metric label.
const MAX_RULES: usize = 64;

/// The maximum thresholds. A window holds up to twice as many items per owner.
const MAX_REFUSALS: i64 = 10_000;
const MAX_FRIENDS: i64 = 100_000;

/// The keys that define what is counted. A rule has exactly one of them.
const KINDS: [&str; 2] = ["refusals", "differentFriends"];

const EXAMPLE: &str = "\"apiVersion: importguard/v1\", then \"rules:\"";

pub(super) fn rules(file: &str, source: &str) -> Result<Vec<Rule>, Diagnostics> {
    let mut report = Report::new(file, source);
    let rules = yaml::parse(&mut report).and_then(|root| document(root, &mut report));
    report.conclude(rules, EXAMPLE)
}

fn document(root: Node, report: &mut Report<'_>) -> Option<Vec<Rule>> {
    FileKind::DetectorRules.check(&root, report)?;
    let mut fields = Fields::open(root, "a file of rules", EXAMPLE, report)?;
    let remedy = "add the line \"apiVersion: importguard/v1\"";
    fields.required("apiVersion", remedy, report, api_version);
    let remedy = "add \"rules:\" and under it the rules, each as \"- id: …\"";
    let rules = fields.required("rules", remedy, report, |node, report| {
        let span = node.span;
        let items = sequence(node, "a list of rules", "each rule as \"- id: …\"", report)?;
        if items.is_empty() {
            report.error(span, "there are no rules", "write at least one");
        } else if let Some(first) = items.get(MAX_RULES) {
            let message = format!("{} rules; the maximum is {MAX_RULES}", items.len());
            report.error(
                first.span,
                message,
                "run two detectors, with names of their own",
            );
        }
        Some(items)
    });
    fields.close(report);
    let mut seen: Vec<String> = Vec::new();
    let rules = rules?.into_iter().filter_map(|node| {
        let (id, rule) = rule(node, report)?;
        if seen.contains(&id.value) {
            let message = format!("duplicate rule {}", quoted(&id.value));
            report.error(id.span, message, "give each rule an ID of its own");
        }
        seen.push(id.value);
        rule
    });
    Some(rules.collect())
}

/// Reads a rule. Returns its ID, and the rule unless it has errors.
fn rule(node: Node, report: &mut Report<'_>) -> Option<(Spanned<String>, Option<Rule>)> {
    let mut fields = Fields::open(node, "a rule", "- id: hammering", report)?;
    let span = fields.span;
    let id = fields.required("id", "add \"id: hammering\"", report, name);
    fields.optional("description", report, text);
    let [refusals, friends] = KINDS.map(|key| fields.take(key));
    let kind = match (refusals, friends) {
        (Some(_), Some(friends)) => {
            let message = "a rule counts either refusals or differentFriends, not both";
            report.error(friends.key_span, message, "write two rules");
            None
        }
        (Some(entry), None) => threshold(entry.value, KINDS[0], MAX_REFUSALS, report)
            .map(|least| (Kind::Refusals, least)),
        (None, Some(entry)) => threshold(entry.value, KINDS[1], MAX_FRIENDS, report)
            .map(|least| (Kind::DifferentFriends, least)),
        (None, None) => {
            let message = "a rule needs \"refusals\" or \"differentFriends\"";
            report.error(span, message, "add for example \"refusals: 20\"");
            None
        }
    };
    let within = fields.required("within", "add \"within: 10m\"", report, |node, report| {
        duration(node, "within", MAX_WITHIN, report)
    });
    let only = fields.optional("only", report, |node, report| filter(node, "only", report));
    let except = fields.optional("except", report, |node, report| {
        filter(node, "except", report)
    });
    let remedy = "add \"list: suspects\", the live list that the owner is put on";
    let list = fields.required("list", remedy, report, list_name);
    let duration = fields.required("for", "add \"for: 1h\"", report, |node, report| {
        self::duration(node, "for", MAX_FOR, report)
    });
    let prolong = fields.optional("prolong", report, boolean);
    fields.close(report);
    let id = id?;
    let rule = || {
        let (kind, least) = kind?;
        let (mut only, except) = (only.unwrap_or_default(), except.unwrap_or_default());
        if kind == Kind::Refusals {
            if let Some(span) = only.verdicts_at.or(except.verdicts_at) {
                let message = "\"refusals\" counts decisions with the verdict refuse anyway";
                report.error(span, message, "remove verdicts");
            }
            only.filter.verdicts = vec!["refuse"];
        }
        Some(Rule {
            id: id.value.clone(),
            kind,
            least,
            within: within?,
            only: only.filter,
            except: except.filter,
            list: list?,
            duration: duration?,
            prolong: prolong.unwrap_or_default(),
        })
    };
    let rule = rule();
    Some((id, rule))
}

fn threshold(node: Node, key: &str, most: i64, report: &mut Report<'_>) -> Option<usize> {
    let number = integer(node, report)?;
    if !(1..=most).contains(&number.value) {
        let message = format!("{key} is {}; it must be 1 to {most}", number.value);
        report.error(number.span, message, "write how many are too many");
        return None;
    }
    usize::try_from(number.value).ok()
}

fn duration(node: Node, key: &str, most: Duration, report: &mut Report<'_>) -> Option<Duration> {
    if let Some(Scalar::Integer(number)) = node.value.scalar() {
        let message = format!("{key} has no unit");
        report.error(
            node.span,
            message,
            format!("write for example {number}s or {number}m"),
        );
        return None;
    }
    let limits = format!("1s to {}", in_days(most));
    let text = text(node, report)?;
    let duration = match settings::any_duration(&text.value) {
        Ok(duration) => duration,
        Err(_) => {
            let message = format!("{key} cannot be {}", quoted(&text.value));
            report.error(
                text.span,
                message,
                format!("write a duration from {limits}, such as 90s, 10m or 12h"),
            );
            return None;
        }
    };
    if duration < Duration::from_secs(1) || duration > most || duration.subsec_nanos() > 0 {
        let message = format!("{key} is {}; it must be {limits}", text.value);
        let remedy = if duration > most {
            format!("write at most {}", in_days(most))
        } else {
            "write whole seconds, such as 90s or 10m".to_owned()
        };
        report.error(text.span, message, remedy);
        return None;
    }
    Some(duration)
}

/// Formats a number of days. Larger units have no whole number of days.
fn in_days(duration: Duration) -> String {
    format!("{}d", duration.as_secs() / (24 * 60 * 60))
}

fn list_name(node: Node, report: &mut Report<'_>) -> Option<ListName> {
    let name = text(node, report)?;
    match ListName::parse(&name.value) {
        Ok(name) => Some(name),
        Err(error) => {
            let message = format!("{} is not a valid name of a live list", quoted(&name.value));
            report.error(name.span, message, error.to_string());
            None
        }
    }
}

#[derive(Default)]
struct ReadFilter {
    filter: Filter,
    /// The position of the key `verdicts`.
    verdicts_at: Option<Span>,
}

fn filter(node: Node, key: &'static str, report: &mut Report<'_>) -> Option<ReadFilter> {
    let example = "{ rules: [too-many], codes: [5003] }";
    let mut fields = Fields::open(node, key, example, report)?;
    let verdicts = ["allow", "modify", "refuse"].map(|verdict| (verdict, verdict));
    let mut verdicts_at = None;
    let verdicts = fields.take("verdicts").and_then(|entry| {
        verdicts_at = Some(entry.key_span);
        words(entry.value, "verdicts", &verdicts, report)
    });
    let rules = fields.optional("rules", report, |node, report| {
        let rules = items(node, "rules", "[too-many]", report)?;
        let rules = rules.into_iter().filter_map(|rule| text(rule, report));
        Some(rules.map(|rule| rule.value).collect::<Vec<_>>())
    });
    let codes = fields.optional("codes", report, codes);
    let causes = match key {
        "only" => fields.optional("causes", report, |node, report| {
            let causes = [
                "deciderUnavailable",
                "deciderTimeout",
                "deciderFailed",
                "overloaded",
            ];
            words(node, "causes", &causes.map(|cause| (cause, cause)), report)
        }),
        _ => None,
    };
    fields.close(report);
    Some(ReadFilter {
        filter: Filter {
            verdicts: verdicts.unwrap_or_default(),
            rules: rules.unwrap_or_default(),
            codes: codes.unwrap_or_default(),
            causes: causes.unwrap_or_default(),
        },
        verdicts_at,
    })
}

fn words(
    node: Node,
    key: &str,
    words: &[(&'static str, &'static str)],
    report: &mut Report<'_>,
) -> Option<Vec<&'static str>> {
    let example = format!("[{}]", words[0].0);
    let items = items(node, key, &example, report)?.into_iter();
    let words = items.filter_map(|item| word(item, key, words, report));
    Some(words.collect())
}

fn codes(node: Node, report: &mut Report<'_>) -> Option<Vec<i64>> {
    let items = items(node, "codes", "[5003]", report)?.into_iter();
    let codes = items.filter_map(|item| integer(item, report));
    Some(codes.map(|code| code.value).collect())
}

/// Reads the items of a list. An empty list is an error: no decision could match it.
fn items(node: Node, what: &str, example: &str, report: &mut Report<'_>) -> Option<Vec<Node>> {
    let span = node.span;
    let items = sequence(node, &format!("a list of {what}"), example, report)?;
    if items.is_empty() {
        report.error(
            span,
            "this list is empty",
            "write at least one, or remove the key",
        );
    }
    Some(items)
}
