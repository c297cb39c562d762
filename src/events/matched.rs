//! What made a rule act, in words.

use serde::Deserialize;

use super::printable;

/// The placeholder for a string that may contain user IDs, in events with pseudonyms.
const REDACTED: &str = "redacted";

/// A part of a rule that made it act. In place of the fields up to `expression`, later versions may have others.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Matched {
    list: Option<String>,
    entry: Option<String>,
    reason: Option<String>,
    until: Option<String>,
    not_in_list: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    pattern: Option<String>,
    none_of: Option<String>,
    limit: Option<u64>,
    expression: Option<String>,
    /// Indexes of the first of these friends in the requested ones.
    pub(crate) friends: Vec<usize>,
    /// How many friends it applied to; for a limit, how many were left.
    pub(crate) count: u64,
}

impl Matched {
    /// The part, such as `list blocked`, with the details of the list entry; `None` for an expression, and if this version does not know
    /// the part.
    pub(crate) fn part(&self) -> Option<String> {
        if let Some(list) = &self.list {
            return Some(format!("list {}{}", printable(list), self.details()));
        }
        if let Some(list) = &self.not_in_list {
            return Some(format!("not on list {}", printable(list)));
        }
        if let Some(limit) = self.limit {
            return Some(format!("{} friends, at most {limit}", self.count));
        }
        let texts = [
            ("prefix", &self.prefix),
            ("suffix", &self.suffix),
            ("pattern", &self.pattern),
        ];
        let named = texts.into_iter().find_map(|(kind, text)| {
            let text = text.as_ref()?;
            Some(match text.as_str() {
                REDACTED => format!("{kind} that is withheld"),
                text => format!("{kind} {}", quoted(text)),
            })
        });
        named.or_else(|| {
            let alternatives = self.none_of.as_ref()?;
            Some(format!("none of its {}", printable(alternatives)))
        })
    }

    /// The part, or the expression.
    pub(crate) fn part_or_expression(&self) -> Option<String> {
        self.part().or_else(|| self.truth())
    }

    /// Why a rule acted on the import as a whole or on its owner, such as `u9 is on list blocked`.
    pub(crate) fn of_import(&self, owner: &str) -> Option<String> {
        let texts = [
            ("starts with", &self.prefix),
            ("ends with", &self.suffix),
            ("matches", &self.pattern),
        ];
        let text = texts.into_iter().find_map(|(verb, text)| {
            let text = text.as_ref()?;
            Some(format!("{owner} {verb} {}", quoted(text)))
        });
        text.or_else(|| match (&self.list, &self.none_of) {
            (Some(_), _) => Some(format!("{owner} is on {}", self.part()?)),
            (_, Some(alternatives)) => {
                let alternatives = printable(alternatives);
                Some(format!("{owner} fits none of its {alternatives}"))
            }
            _ if self.not_in_list.is_some() => Some(format!("{owner} is {}", self.part()?)),
            _ => self.part_or_expression(),
        })
    }

    /// Whether it applied to friends one by one, and not to the owner or to the import as a whole.
    pub(crate) fn is_of_friends(&self) -> bool {
        self.limit.is_none() && self.count > 0
    }

    fn truth(&self) -> Option<String> {
        let source = self.expression.as_ref()?;
        Some(match source.as_str() {
            REDACTED => "its expression, which is withheld, is true".to_owned(),
            source => format!("{} is true", printable(source)),
        })
    }

    /// Formats the details of a list entry, such as ` [as U9; spam; until 2026-12-01T00:00:00Z]`; empty if there are none.
    fn details(&self) -> String {
        let details = [
            ("as ", &self.entry),
            ("", &self.reason),
            ("until ", &self.until),
        ];
        let details = details.into_iter().filter_map(|(before, text)| {
            let text = text.as_ref()?;
            Some(format!("{before}{}", printable(text)))
        });
        let details: Vec<_> = details.collect();
        match details.is_empty() {
            true => String::new(),
            false => format!(" [{}]", details.join("; ")),
        }
    }
}

/// The text in quotes, unless it is withheld.
fn quoted(text: &str) -> String {
    match text {
        REDACTED => "a text that is withheld".to_owned(),
        text => format!("\"{}\"", printable(text)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_redacted_is_not_taken_for_the_text() {
        for (part, of_friends, of_import) in [
            (
                json!({ "prefix": "redacted" }),
                "prefix that is withheld",
                "u7 starts with a text that is withheld",
            ),
            (
                json!({ "expression": "redacted" }),
                "its expression, which is withheld, is true",
                "its expression, which is withheld, is true",
            ),
            (
                json!({ "prefix": "bot_" }),
                "prefix \"bot_\"",
                "u7 starts with \"bot_\"",
            ),
        ] {
            let matched: Matched = serde_json::from_value(part).unwrap();
            assert_eq!(matched.part_or_expression().as_deref(), Some(of_friends));
            assert_eq!(matched.of_import("u7").as_deref(), Some(of_import));
        }
    }
}
