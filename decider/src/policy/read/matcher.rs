use super::super::{
    diagnostic::{Report, Spanned},
    document::MatcherDefinition,
    fields::{Fields, sequence, text},
    yaml::{Entry, Node, Value},
};
use super::cap;

/// The maximum number of prefixes, and of suffixes, of a rule. They are compared one by one, in 1 to 2 ns each: 64 cost no
/// more than ten lists.
const MAX_AFFIXES: usize = 64;
/// The maximum number of regular expressions of a rule. They are matched by one automaton, which grows with each.
const MAX_PATTERNS: usize = 64;

const EXAMPLE: &str = "{ in: some_list }";
const PREFIXES: &str = "[\"bot_\", \"test-\"]";
const SUFFIXES: &str = "[\"_bot\", \"-test\"]";
const PATTERNS: &str = "[\"^tmp[_-]\"]";
const KEYS: [&str; 8] = [
    "in",
    "notIn",
    "prefixes",
    "suffixes",
    "matches",
    "notPrefixes",
    "notSuffixes",
    "notMatches",
];

pub(super) fn matcher(node: Node, report: &mut Report<'_>) -> Option<MatcherDefinition> {
    let mut fields = Fields::open(node, "a matcher", EXAMPLE, report)?;
    let all = KEYS.map(|key| fields.take(key));
    // An unknown key is a separate error, and probably one of these misspelt.
    if all.iter().all(|entry| entry.is_none()) && fields.is_empty() {
        report.error(
            fields.span,
            "this matcher has no criteria",
            format!("write at least one of {}: {EXAMPLE}", KEYS.join(", ")),
        );
    }
    fields.close(report);
    let [
        in_list,
        not_in,
        prefixes,
        suffixes,
        matches,
        not_prefixes,
        not_suffixes,
        not_matches,
    ] = all;
    let affixes = |entry, example, report: &mut Report<'_>| {
        let texts = strings(entry, example, MAX_AFFIXES, report);
        texts.into_iter().map(|text| text.value).collect()
    };
    Some(MatcherDefinition {
        in_list: in_list.and_then(|entry| list_name(entry, report)),
        not_in: not_in.and_then(|entry| list_name(entry, report)),
        prefixes: affixes(prefixes, PREFIXES, report),
        suffixes: affixes(suffixes, SUFFIXES, report),
        matches: strings(matches, PATTERNS, MAX_PATTERNS, report),
        not_prefixes: affixes(not_prefixes, PREFIXES, report),
        not_suffixes: affixes(not_suffixes, SUFFIXES, report),
        not_matches: strings(not_matches, PATTERNS, MAX_PATTERNS, report),
    })
}

/// The name of a list. Other keys have several values in brackets, so that is a likely error.
fn list_name(Entry { key, value, .. }: Entry, report: &mut Report<'_>) -> Option<Spanned<String>> {
    if matches!(value.value, Value::Sequence(_)) {
        report.error(
            value.span,
            format!("{key} takes one list, without brackets"),
            match key.as_str() {
                "notIn" => {
                    "write notIn: some_list; for several lists, write an expression such as \"!(friend in staff || friend in partners)\""
                }
                _ => "write in: some_list; for several lists, write a rule for each",
            },
        );
        return None;
    }
    text(value, report)
}

/// An optional list of strings, which must not be empty.
fn strings(
    entry: Option<Entry>,
    example: &str,
    max: usize,
    report: &mut Report<'_>,
) -> Vec<Spanned<String>> {
    let Some(Entry { key, value, .. }) = entry else {
        return Vec::new();
    };
    let span = value.span;
    let Some(items) = sequence(value, "a list of strings", example, report) else {
        return Vec::new();
    };
    if items.is_empty() {
        report.error(
            span,
            if key.starts_with("not") {
                "this list is empty, so it matches everything"
            } else {
                "this list is empty, so it matches nothing"
            },
            format!("write {example}, or remove the key"),
        );
    }
    cap(&items, max, &key, |item| item.span, report);
    items
        .into_iter()
        .filter_map(|item| text(item, report))
        .collect()
}
