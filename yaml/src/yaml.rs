//! The YAML subset of importguard's files: a tree of values with their positions.
//!
//! The tree is built from the parser's events without recursion, so that the stack depth does not depend on the file.

use std::collections::HashSet;

use importguard_runtime::text::unseen;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::diagnostic::{Report, Span, quoted};

/// The maximum size of a file, in bytes: that of a Kubernetes ConfigMap.
pub const MAX_SOURCE_BYTES: usize = 1 << 20;
/// The maximum nesting depth. A policy needs 6 levels (file, rules, rule, dropFriends, prefixes, string); the rest allows better messages
/// for invalid files. Readers and destructors can recurse to this depth.
const MAX_DEPTH: usize = 16;
/// The maximum number of values in a file. At about 100 bytes each, the tree stays near 10 MB; more IDs belong in a list
/// file.
const MAX_NODES: usize = 100_000;

/// A value and its position.
#[derive(Debug)]
pub struct Node {
    /// The position.
    pub span: Span,
    /// The value.
    pub value: Value,
}

/// A value.
#[derive(Debug)]
pub enum Value {
    /// A scalar.
    Scalar {
        /// Its text, without quotes.
        text: String,
        /// Whether it was in quotes or a block, and so is a string.
        quoted: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping, in file order.
    Mapping(Vec<Entry>),
    /// An invalid value that was already reported.
    Broken,
}

/// A key of a mapping with its value. Keys are unique within their mapping.
#[derive(Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The position of the key.
    pub key_span: Span,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// Returns the value of a key; `None` if this is not a mapping with that key.
    pub fn entry(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => {
                let entry = entries.iter().find(|entry| entry.key == key)?;
                Some(&entry.value)
            }
            _ => None,
        }
    }
}

/// The meaning of a scalar according to the core schema of YAML 1.2. A quoted scalar is always a string.
#[derive(Debug, PartialEq)]
pub enum Scalar<'a> {
    /// Null, or an empty value.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A decimal 64-bit integer.
    Integer(i64),
    /// A number other than a decimal 64-bit integer.
    OtherNumber,
    /// A string.
    Text(&'a str),
}

/// Parses the file of a report. Returns `None` if it is empty, or after reporting why it is invalid; errors may also be reported for a
/// tree that is returned.
pub fn parse(report: &mut Report<'_>) -> Option<Node> {
    let source = report.source();
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(source);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => builder.take(event, spanned(span), report).ok()?,
            Err(error) => {
                let place = point(*error.marker());
                if let Some((span, c)) = strange_indentation(source, place.line) {
                    report_strange_space(span, "the indentation contains", c, report);
                    return None;
                }
                report.error(
                    if is_about_tabs(error.info()) {
                        tab_of_indentation(source, place)
                    } else {
                        place
                    },
                    format!("invalid YAML: {}", error.info()),
                    syntax_remedy(error.info()),
                );
                return None;
            }
        }
    }
    builder.root
}

/// Returns the last character up to this line that only looks like indentation, and its position. The parser takes it for text, and fails
/// somewhere behind it.
fn strange_indentation(source: &str, line: u32) -> Option<(Span, char)> {
    let strange = |text: &str| {
        let indentation = text.chars().take_while(|&c| is_indentation(c));
        let mut numbered = (1..).zip(indentation);
        numbered.find(|&(_, c)| is_strange_space(c))
    };
    let lines = (1..=line).zip(source.lines());
    let found = lines.filter_map(|(line, text)| {
        let (column, c) = strange(text)?;
        let width = 1;
        Some((
            Span {
                line,
                column,
                width,
            },
            c,
        ))
    });
    found.last()
}

fn is_indentation(c: char) -> bool {
    c == ' ' || is_strange_space(c)
}

/// Whether a character looks like a space, or like nothing, but is text to YAML.
fn is_strange_space(c: char) -> bool {
    !c.is_ascii() && (c.is_whitespace() || unseen(c).is_some())
}

fn report_strange_space(span: Span, where_it_is: &str, c: char, report: &mut Report<'_>) {
    let name = match c {
        '\u{a0}' => "a no-break space",
        _ if c.is_whitespace() => "a character that only looks like a space",
        _ => "an invisible character",
    };
    report.error(
        span,
        format!("{where_it_is} {name} (U+{:04X})", u32::from(c)),
        "delete it, and type a space instead; text copied from web pages may have such characters",
    );
}

fn is_about_tabs(info: &str) -> bool {
    info.contains("tab") && !info.contains("table")
}

/// Returns the first tab in the indentation of a line, searching from `place`: the parser may report the tab at the end of the line
/// before.
fn tab_of_indentation(source: &str, place: Span) -> Span {
    let tab = |line: &str| {
        line.bytes()
            .take_while(|byte| b" \t".contains(byte))
            .position(|byte| byte == b'\t')
    };
    let mut lines = (1..)
        .zip(source.lines())
        .skip_while(|(number, _)| *number < place.line);
    let found = lines.find_map(|(line, text)| {
        let column = u32::try_from(tab(text)? + 1).ok()?;
        let width = 1;
        Some(Span {
            line,
            column,
            width,
        })
    });
    found.unwrap_or(place)
}

/// Returns the remedy for an error of the parser.
fn syntax_remedy(info: &str) -> &'static str {
    if info.contains("escape") {
        "in double quotes, \\ starts an escape sequence: use single quotes, as in '^\\d+$', or write \\\\ for each \\"
    } else if is_about_tabs(info) {
        "YAML does not allow tabs here: use spaces"
    } else {
        "check the indentation, brackets and quotes here or on the line above"
    }
}

impl Value {
    /// Returns the meaning of a scalar; `None` for any other value.
    pub fn scalar(&self) -> Option<Scalar<'_>> {
        match self {
            Self::Scalar { text, quoted: true } => Some(Scalar::Text(text)),
            Self::Scalar {
                text,
                quoted: false,
            } => Some(resolve(text)),
            _ => None,
        }
    }
}

fn resolve(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Scalar::Null,
        "true" | "True" | "TRUE" => Scalar::Bool(true),
        "false" | "False" | "FALSE" => Scalar::Bool(false),
        _ if is_number(text) => text.parse().map_or(Scalar::OtherNumber, Scalar::Integer),
        _ => Scalar::Text(text),
    }
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| matches!(b, b'0'..=b'7'));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    match digits.as_bytes() {
        [b'0'..=b'9', ..] | [b'.', b'0'..=b'9', ..] => digits.parse::<f64>().is_ok(),
        _ => matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN"),
    }
}

/// Parsing cannot continue. The error was already reported.
struct ParseError;

#[derive(Default)]
struct Builder {
    /// The open collections, innermost last.
    open: Vec<Open>,
    root: Option<Node>,
    nodes: usize,
}

struct Open {
    span: Span,
    content: Content,
}

enum Content {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<Entry>,
        seen: HashSet<String>,
        key: Key,
    },
}

/// The state of a mapping's next entry.
enum Key {
    Awaited,
    Read(String, Span),
    /// Its value is discarded.
    Broken,
}

impl Builder {
    fn take(
        &mut self,
        event: Event<'_>,
        span: Span,
        report: &mut Report<'_>,
    ) -> Result<(), ParseError> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                report.error(
                    span,
                    "a second document starts here",
                    "a file may contain only one document: remove the \"---\" and everything after it",
                );
                Err(ParseError)
            }
            Event::Alias(_) => {
                report.error(
                    span,
                    "aliases (*name) are not supported",
                    "write the value out here; a string that starts with * needs quotes",
                );
                self.attach(broken(span), report)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = match tag {
                    // The rest of a string that starts with ! is not worth a second error.
                    Some(_) => Value::Broken,
                    None => Value::Scalar {
                        text: text.into_owned(),
                        quoted: style != ScalarStyle::Plain,
                    },
                };
                self.plain(span, anchor, tag.is_some(), report);
                self.attach(Node { span, value }, report)
            }
            Event::SequenceStart(anchor, tag) => {
                self.plain(span, anchor, tag.is_some(), report);
                self.open(span, Content::Sequence(Vec::new()), report)
            }
            Event::MappingStart(anchor, tag) => {
                self.plain(span, anchor, tag.is_some(), report);
                let content = Content::Mapping {
                    entries: Vec::new(),
                    seen: HashSet::new(),
                    key: Key::Awaited,
                };
                self.open(span, content, report)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { span, content }) => {
                    let value = match content {
                        Content::Sequence(items) => Value::Sequence(items),
                        Content::Mapping { entries, .. } => Value::Mapping(entries),
                    };
                    self.attach(Node { span, value }, report)
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Reports anchors and tags.
    fn plain(&self, span: Span, anchor: usize, tagged: bool, report: &mut Report<'_>) {
        if anchor > 0 {
            report.error(
                span,
                "anchors (&name) are not supported",
                "remove the anchor; a string that starts with & needs quotes",
            );
        }
        if tagged {
            report.error(
                span,
                "tags (!name) are not supported",
                "remove the tag; a string that starts with ! needs quotes",
            );
        }
    }

    fn open(
        &mut self,
        span: Span,
        content: Content,
        report: &mut Report<'_>,
    ) -> Result<(), ParseError> {
        if self.open.len() == MAX_DEPTH {
            report.error(
                span,
                format!("this is nested more than {MAX_DEPTH} levels deep"),
                "no file needs this many levels: check the brackets and the indentation",
            );
            return Err(ParseError);
        }
        self.open.push(Open { span, content });
        Ok(())
    }

    fn attach(&mut self, node: Node, report: &mut Report<'_>) -> Result<(), ParseError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            report.error(
                node.span,
                format!("the file contains more than {MAX_NODES} values"),
                "move long lists to separate files: { file: lists/name.txt }",
            );
            return Err(ParseError);
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::Sequence(items)) => items.push(node),
            Some(Content::Mapping { entries, seen, key }) => {
                match std::mem::replace(key, Key::Awaited) {
                    Key::Awaited => *key = read_key(node, seen, report),
                    Key::Read(key, key_span) => entries.push(Entry {
                        key,
                        key_span,
                        value: node,
                    }),
                    Key::Broken => {}
                }
            }
        }
        Ok(())
    }
}

fn read_key(node: Node, seen: &mut HashSet<String>, report: &mut Report<'_>) -> Key {
    match node.value {
        Value::Scalar { text, .. } if seen.contains(&text) => {
            report.error(
                node.span,
                format!("duplicate key {}", quoted(&text)),
                "merge the two or remove one",
            );
            Key::Broken
        }
        Value::Scalar {
            text,
            quoted: false,
        } if let Some(c) = text.chars().next().filter(|&c| is_strange_space(c)) => {
            report_strange_space(node.span, "this key starts with", c, report);
            Key::Broken
        }
        Value::Scalar { text, .. } => {
            seen.insert(text.clone());
            Key::Read(text, node.span)
        }
        Value::Broken => Key::Broken,
        Value::Sequence(_) | Value::Mapping(_) => {
            report.error(
                node.span,
                "a key must be a string",
                "write key: value, with the brackets after the colon",
            );
            Key::Broken
        }
    }
}

fn broken(span: Span) -> Node {
    Node {
        span,
        value: Value::Broken,
    }
}

fn point(marker: Marker) -> Span {
    Span {
        line: u32::try_from(marker.line()).unwrap_or(u32::MAX).max(1),
        column: u32::try_from(marker.col() + 1).unwrap_or(u32::MAX),
        width: 1,
    }
}

fn spanned(span: saphyr_parser::Span) -> Span {
    let width = if span.end.line() == span.start.line() {
        span.end.col().saturating_sub(span.start.col())
    } else {
        1
    };
    Span {
        width: u32::try_from(width).unwrap_or(u32::MAX).max(1),
        ..point(span.start)
    }
}
