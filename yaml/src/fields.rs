//! Typed readers of the YAML tree. Each returns `None` after reporting an error.

use crate::{
    diagnostic::{Report, Span, Spanned, closest, quoted},
    yaml::{Entry, Node, Scalar, Value},
};

/// A mapping that is being read. [`Fields::close`] reports every key that was not read, so the known keys are exactly those that
/// were read.
pub struct Fields {
    /// The kind of mapping with its article, for messages.
    what: &'static str,
    /// The position of the mapping.
    pub span: Span,
    entries: Vec<Option<Entry>>,
    known: Vec<&'static str>,
}

impl Fields {
    /// Starts reading a mapping. `example` shows the syntax.
    pub fn open(
        node: Node,
        what: &'static str,
        example: &str,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let span = node.span;
        let entries = mapping(node, what, example, report)?;
        Some(Self {
            what,
            span,
            entries: entries.into_iter().map(Some).collect(),
            known: Vec::new(),
        })
    }

    /// Takes the entry of a key, which then counts as read.
    pub fn take(&mut self, key: &'static str) -> Option<Entry> {
        self.known.push(key);
        self.entries
            .iter_mut()
            .find(|entry| entry.as_ref().is_some_and(|entry| entry.key == key))?
            .take()
    }

    /// Reads the value of an optional key.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        report: &mut Report<'_>,
        read: impl FnOnce(Node, &mut Report<'_>) -> Option<T>,
    ) -> Option<T> {
        self.take(key).and_then(|entry| read(entry.value, report))
    }

    /// Reads the value of a required key.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        remedy: &str,
        report: &mut Report<'_>,
        read: impl FnOnce(Node, &mut Report<'_>) -> Option<T>,
    ) -> Option<T> {
        let Some(entry) = self.take(key) else {
            report.error(self.span, format!("{} needs \"{key}\"", self.what), remedy);
            return None;
        };
        read(entry.value, report)
    }

    /// Whether a key that was not read is most likely a misspelling of one of `keys`. It is then the only error worth reporting.
    pub fn misspells(&self, keys: &[&str]) -> bool {
        let mut unread = self.entries.iter().flatten();
        unread.any(|entry| closest(&entry.key, keys.iter().copied()).is_some())
    }

    /// Whether every key was read.
    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(Option::is_none)
    }

    /// Reports the keys that were not read.
    pub fn close(self, report: &mut Report<'_>) {
        for entry in self.entries.into_iter().flatten() {
            let known = || self.known.iter().copied();
            let remedy = match closest(&entry.key, known()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => format!(
                    "remove it; {} may have {}",
                    self.what,
                    known().collect::<Vec<_>>().join(", ")
                ),
            };
            report.error(
                entry.key_span,
                format!("unknown key {} in {}", quoted(&entry.key), self.what),
                remedy,
            );
        }
    }
}

/// Reads the entries of a mapping.
pub fn mapping(
    node: Node,
    what: &str,
    example: &str,
    report: &mut Report<'_>,
) -> Option<Vec<Entry>> {
    match node.value {
        Value::Mapping(entries) => Some(entries),
        _ => mismatch(&node, what, &format!("write {example}"), report),
    }
}

/// Reads the items of a list.
pub fn sequence(
    node: Node,
    what: &str,
    example: &str,
    report: &mut Report<'_>,
) -> Option<Vec<Node>> {
    match node.value {
        Value::Sequence(items) => Some(items),
        _ => mismatch(&node, what, &format!("write {example}"), report),
    }
}

/// Reads a string that is not blank.
pub fn text(node: Node, report: &mut Report<'_>) -> Option<Spanned<String>> {
    let text = any_text(node, report)?;
    if text.value.trim().is_empty() {
        report.error(
            text.span,
            "this string is empty",
            "write at least one character, or remove the key",
        );
        return None;
    }
    Some(text)
}

/// Reads a string, which may be empty.
pub fn any_text(node: Node, report: &mut Report<'_>) -> Option<Spanned<String>> {
    match (node.value.scalar(), &node.value) {
        (Some(Scalar::Text(text)), _) => Some(Spanned {
            value: text.to_owned(),
            span: node.span,
        }),
        // YAML reads 007 as 7: only the author knows which of the two is meant.
        (
            Some(Scalar::Integer(_) | Scalar::OtherNumber | Scalar::Bool(_)),
            Value::Scalar { text, .. },
        ) => {
            let remedy = format!("put it in quotes: {}", quoted(text));
            mismatch(&node, "a string", &remedy, report)
        }
        _ => mismatch(&node, "a string", "write a string in quotes", report),
    }
}

/// Reads a decimal 64-bit integer.
pub fn integer(node: Node, report: &mut Report<'_>) -> Option<Spanned<i64>> {
    match node.value.scalar() {
        Some(Scalar::Integer(value)) => Some(Spanned {
            value,
            span: node.span,
        }),
        Some(Scalar::Text(text)) if text.parse::<i64>().is_ok() => {
            let remedy = format!("write {text} without quotes");
            mismatch(&node, "an integer", &remedy, report)
        }
        Some(Scalar::Text(text)) if let Some(number) = percentage(text) => {
            let remedy = format!("write {number} without the %");
            mismatch(&node, "an integer", &remedy, report)
        }
        _ => mismatch(&node, "an integer", "write decimal digits only", report),
    }
}

/// Returns the number in a string such as "10%".
fn percentage(text: &str) -> Option<i64> {
    text.strip_suffix('%')?.trim_end().parse().ok()
}

/// Reads `true` or `false`.
pub fn boolean(node: Node, report: &mut Report<'_>) -> Option<bool> {
    match node.value.scalar() {
        Some(Scalar::Bool(value)) => Some(value),
        _ => mismatch(&node, "true or false", "write true or false", report),
    }
}

/// Reads one of a set of keywords.
pub fn word<T: Copy>(
    node: Node,
    key: &str,
    words: &[(&'static str, T)],
    report: &mut Report<'_>,
) -> Option<T> {
    let word = text(node, report)?;
    let found = words.iter().find(|(name, _)| *name == word.value);
    if found.is_none() {
        let names = || words.iter().map(|(name, _)| *name);
        let remedy = match closest(&word.value, names()) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("write {}", names().collect::<Vec<_>>().join(" or ")),
        };
        report.error(
            word.span,
            format!("{key} cannot be {}", quoted(&word.value)),
            remedy,
        );
    }
    found.map(|(_, value)| *value)
}

/// Reads a list of IDs of up to `max_bytes`. Error messages do not contain the IDs: IDs are personal data, and the messages are logged.
pub fn ids(node: Node, max_bytes: usize, report: &mut Report<'_>) -> Option<Vec<String>> {
    let span = node.span;
    let items = sequence(node, "a list of IDs", "[\"user1\", \"user2\"]", report)?;
    let id = |item: Node, report: &mut Report<'_>| match item.value.scalar() {
        // YAML reads 007 as 7, and no as false: only the author knows which is the ID.
        Some(Scalar::Integer(_) | Scalar::OtherNumber | Scalar::Bool(_)) => {
            report.error(
                item.span,
                "an ID that YAML reads as a number or a boolean needs quotes",
                "put it in quotes, as in \"10001\"",
            );
            None
        }
        _ => {
            let id = text(item, report)?;
            let bytes = id.value.len();
            if bytes > max_bytes {
                report.error(
                    id.span,
                    format!("this ID has {bytes} bytes; the maximum is {max_bytes}"),
                    "correct it: no user has an ID this long",
                );
                return None;
            }
            Some(id.value)
        }
    };
    if items.is_empty() {
        report.error(
            span,
            "this list is empty, so it matches nothing",
            "write [\"user1\"], or remove the key; a list that may be empty has a file and allowEmpty: true",
        );
    }
    let ids = items.into_iter().filter_map(|item| id(item, report));
    Some(ids.collect())
}

/// Reads a list of strings that are not blank.
pub fn texts(node: Node, report: &mut Report<'_>) -> Option<Vec<Spanned<String>>> {
    let items = sequence(node, "a list of strings", "[\"one\", \"two\"]", report)?;
    Some(
        items
            .into_iter()
            .filter_map(|item| text(item, report))
            .collect(),
    )
}

/// Reports that `node` is not what was expected.
fn mismatch<T>(node: &Node, expected: &str, remedy: &str, report: &mut Report<'_>) -> Option<T> {
    let found = match (&node.value, node.value.scalar()) {
        (Value::Broken, _) => return None,
        (Value::Sequence(_), _) => "a list".to_owned(),
        (Value::Mapping(_), _) => "a mapping of keys to values".to_owned(),
        (Value::Scalar { text, .. }, scalar) => match scalar {
            None | Some(Scalar::Null) => "nothing".to_owned(),
            Some(Scalar::Bool(value)) => value.to_string(),
            Some(Scalar::Integer(_) | Scalar::OtherNumber) => {
                format!("the number {}", shown_number(text))
            }
            Some(Scalar::Text(text)) => format!("the string {}", quoted(text)),
        },
    };
    report.error(
        node.span,
        format!("expected {expected}, found {found}"),
        remedy,
    );
    None
}

fn shown_number(text: &str) -> String {
    quoted(text).trim_matches('"').to_owned()
}
