//! What is wrong in a file, where, and how to correct it.

use std::{fmt, sync::Arc};

pub use crate::quoting::{closest, quoted};
use crate::quoting::{printable, shortened};

/// A position in a file. Lines and columns start at 1; columns and width are in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The line.
    pub line: u32,
    /// The first column.
    pub column: u32,
    /// The number of characters on that line, at least 1.
    pub width: u32,
}

/// A value and its position in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// The position.
    pub span: Span,
}

/// One error in a file, or in one that it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as given by the operator.
    pub file: Arc<str>,
    /// The position; `None` for the file as a whole.
    pub span: Option<Span>,
    /// The offending text, shortened if it is long.
    pub text: String,
    /// The error.
    pub message: String,
    /// How to correct it.
    pub remedy: String,
    excerpt: Option<Excerpt>,
}

/// The part of a source line shown below a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    caret: usize,
    width: usize,
}

/// The widest excerpt: with the line number it fits a terminal of 120 columns.
const EXCERPT_CHARS: usize = 100;
/// How much of a long line is shown before the error.
const EXCERPT_LEAD: usize = 40;

impl Diagnostic {
    /// Creates an error in a file as a whole.
    pub fn of_file(file: Arc<str>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            text: String::new(),
            message: message.into(),
            remedy: remedy.into(),
            span: None,
            excerpt: None,
            file,
        }
    }

    /// Creates an error at `span`. `line` is that line of the file.
    pub fn at(
        file: Arc<str>,
        span: Span,
        line: &str,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let before = span.column.saturating_sub(1) as usize;
        let text = line.chars().skip(before).take(span.width as usize);
        let text: String = text.collect();
        // The YAML parser includes white space after a bracket or quote in the token.
        let text = text.trim_end();
        let width = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        Self {
            text: shortened(text.chars()),
            message: message.into(),
            remedy: remedy.into(),
            excerpt: Excerpt::of(line, before, width as usize),
            span: Some(Span {
                width: width.max(1),
                ..span
            }),
            file,
        }
    }

    /// Formats the error without the excerpt, for a log line.
    pub fn on_one_line(&self) -> String {
        let Self {
            file,
            message,
            remedy,
            ..
        } = self;
        match self.span {
            Some(Span { line, column, .. }) => {
                format!("{file}:{line}:{column}: {message}: {remedy}")
            }
            None => format!("{file}: {message}: {remedy}"),
        }
    }
}

impl fmt::Display for Diagnostic {
    /// Formats the position and the message (`policy.yaml:12:5: unknown key "refuseOwnr"`), the underlined line, and the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(span) = self.span {
            write!(f, ":{}:{}", span.line, span.column)?;
        }
        write!(f, ": {}", self.message)?;
        if let (Some(span), Some(excerpt)) = (self.span, &self.excerpt) {
            write!(f, "\n{:>5} | {}", span.line, excerpt.text)?;
            write!(f, "\n      | {:1$}", "", excerpt.caret)?;
            write!(f, "{:^<1$}", "", excerpt.width)?;
        }
        write!(f, "\n      = {}", self.remedy)
    }
}

impl Excerpt {
    fn of(line: &str, before: usize, width: usize) -> Option<Self> {
        let start = if before + width < EXCERPT_CHARS {
            0
        } else {
            before.saturating_sub(EXCERPT_LEAD)
        };
        let text: String = line
            .chars()
            .skip(start)
            .take(EXCERPT_CHARS)
            .map(printable)
            .collect();
        let caret = before - start;
        let shown = text.chars().count();
        (!text.trim().is_empty()).then(|| Self {
            width: width.clamp(1, shown.saturating_sub(caret).max(1)),
            text: text.trim_end().to_owned(),
            caret,
        })
    }
}

/// The errors in a file, at least one. Its `Display` is for terminals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    found: Vec<Diagnostic>,
    more: usize,
}

impl Diagnostics {
    /// Creates diagnostics with a single error.
    pub fn one(diagnostic: Diagnostic) -> Self {
        Self {
            found: vec![diagnostic],
            more: 0,
        }
    }

    /// Appends those of `others`.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.found.extend(others.found);
        self.more += others.more;
        self
    }

    /// The first errors, by file and position.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.found.iter()
    }

    /// The number of errors, including those that were not kept.
    pub fn count(&self) -> usize {
        self.found.len() + self.more
    }

    /// Writes each error as `show` does, and how many more there are, with `separator` between them.
    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        separator: &str,
        show: fn(&Diagnostic) -> String,
    ) -> fmt::Result {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        let lines: Vec<_> = self.found.iter().map(show).chain(more).collect();
        f.write_str(&lines.join(separator))
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "\n\n", Diagnostic::to_string)
    }
}

impl std::error::Error for Diagnostics {}

/// Errors without excerpts, for logs and `/readyz`: lines of lists contain IDs, which are personal data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BriefDiagnostics(pub Diagnostics);

impl fmt::Display for BriefDiagnostics {
    /// Formats one line per error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, "\n", Diagnostic::on_one_line)
    }
}

impl std::error::Error for BriefDiagnostics {}

/// The maximum number of errors kept. A hostile file of the maximum size may have a million.
pub const MAX_REPORTED: usize = 100;

/// Collects the errors of one file while it is read and compiled.
pub struct Report<'s> {
    file: Arc<str>,
    source: &'s str,
    lines: Vec<&'s str>,
    found: Vec<Diagnostic>,
    more: usize,
}

impl<'s> Report<'s> {
    /// Creates an empty report. `file` is the name in messages, `source` the content.
    pub fn new(file: &str, source: &'s str) -> Self {
        // Windows editors write a byte order mark.
        let source = source.strip_prefix('\u{feff}').unwrap_or(source);
        Self {
            file: Arc::from(file),
            source,
            lines: lines(source),
            found: Vec::new(),
            more: 0,
        }
    }

    /// The file's name in messages.
    pub fn file(&self) -> &Arc<str> {
        &self.file
    }

    /// The file's content, without a byte order mark.
    pub(crate) const fn source(&self) -> &'s str {
        self.source
    }

    /// Whether no error was reported.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Reports an error in the file itself.
    pub fn error(&mut self, span: Span, message: impl Into<String>, remedy: impl Into<String>) {
        let (span, line) = self.locate(span);
        self.add(Diagnostic::at(
            Arc::clone(&self.file),
            span,
            line,
            message,
            remedy,
        ));
    }

    /// Reports an error in the part of a string at `place` (first character and length). If the string has escapes, the error is in the
    /// string as a whole.
    pub fn error_inside(
        &mut self,
        text: &Spanned<String>,
        place: Option<(usize, usize)>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        match place.and_then(|place| self.part(text, place)) {
            Some(part) => self.error(part, message, remedy),
            // Several lines, of which the first one need not have the error.
            None if text.span.width == 1 => {
                let file = Arc::clone(&self.file);
                self.add(Diagnostic::at(file, text.span, "", message, remedy));
            }
            None => self.error(text.span, message, remedy),
        }
    }

    /// Returns the position of a part of a string whose characters are in the file as they are in the string, apart from white space, which
    /// YAML folds and indents.
    fn part(&self, text: &Spanned<String>, (start, count): (usize, usize)) -> Option<Span> {
        let first = (text.span.line as usize).checked_sub(1)?;
        let column = text.span.column.saturating_sub(1) as usize;
        let source: Vec<_> = (first..)
            .zip(self.lines.get(first..)?)
            .flat_map(|(line, text)| text.chars().enumerate().map(move |at| (line, at)))
            .skip(column)
            .filter(|(_, (_, c))| !c.is_whitespace())
            .take(text.value.chars().count() + 1)
            .collect();
        let value = || text.value.chars().filter(|c| !c.is_whitespace());
        // The string may be in quotes.
        let source = [source.get(..)?, source.get(1..).unwrap_or_default()]
            .into_iter()
            .find(|source| {
                let found = source.iter().map(|&(_, (_, c))| c);
                found.take(value().count()).eq(value())
            })?;
        let before = text.value.chars().take(start);
        let before = before.filter(|c| !c.is_whitespace()).count();
        let (line, column) = match source.get(before) {
            Some(&(line, (column, _))) if before < value().count() => (line, column),
            // What is missing at the end.
            _ => {
                let &(line, (column, _)) = source.get(before.checked_sub(1)?)?;
                (line, column + 1)
            }
        };
        Some(Span {
            line: u32::try_from(line + 1).unwrap_or(u32::MAX),
            column: u32::try_from(column + 1).unwrap_or(u32::MAX),
            width: u32::try_from(count.max(1)).unwrap_or(u32::MAX),
        })
    }

    /// Returns a position and its line. A position after the end of the file, where the YAML parser reports missing tokens, becomes the
    /// end of the last line that is not blank.
    fn locate(&self, span: Span) -> (Span, &'s str) {
        let index = (span.line as usize).saturating_sub(1);
        if let Some(line) = self.lines.get(index) {
            return (span, line);
        }
        let written = self.lines.iter().rposition(|line| !line.trim().is_empty());
        let last = written.unwrap_or_default();
        let line = self.lines.get(last).copied().unwrap_or_default();
        let end = Span {
            line: u32::try_from(last + 1).unwrap_or(u32::MAX),
            column: u32::try_from(line.chars().count() + 1).unwrap_or(u32::MAX),
            width: 1,
        };
        (end, line)
    }

    /// Reports an error in any file.
    pub fn add(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < MAX_REPORTED {
            self.found.push(diagnostic);
        } else {
            self.more += 1;
        }
    }

    /// Counts `more` errors that are not kept.
    pub fn count_more(&mut self, more: usize) {
        self.more += more;
    }

    /// Returns the collected errors, or `None` if there are none. Errors in the file itself come first; each file is sorted by position.
    pub fn finish(self) -> Option<Diagnostics> {
        let Self {
            file,
            mut found,
            more,
            ..
        } = self;
        found.sort_by(|a, b| {
            (a.file != file, &a.file, a.span).cmp(&(b.file != file, &b.file, b.span))
        });
        (!found.is_empty()).then_some(Diagnostics { found, more })
    }

    /// Returns what was read from the file if no error was reported. If nothing was, the file is empty; it should start with `example`.
    ///
    /// # Errors
    /// Every collected error, as [`finish`](Self::finish) returns them.
    pub fn conclude<T>(self, read: Option<T>, example: &str) -> Result<T, Diagnostics> {
        let file = Arc::clone(&self.file);
        match (self.finish(), read) {
            (None, Some(read)) => Ok(read),
            (Some(diagnostics), _) => Err(diagnostics),
            (None, None) => Err(Diagnostics::one(Diagnostic::of_file(
                file,
                "the file is empty",
                format!("start it with {example}"),
            ))),
        }
    }
}

/// Splits a source into lines as the YAML parser counts them: each of `\n`, `\r\n` and `\r` ends a line.
fn lines(source: &str) -> Vec<&str> {
    source
        .split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(line: u32, column: u32, width: u32) -> Span {
        Span {
            line,
            column,
            width,
        }
    }

    fn only(report: Report<'_>) -> Diagnostic {
        let diagnostics = report.finish().unwrap();
        assert_eq!(diagnostics.count(), 1);
        diagnostics.found[0].clone()
    }

    #[test]
    fn shows_the_position_the_line_and_the_remedy() {
        let mut report = Report::new("policy.yaml", "a: 1\r\n\tbé: wrong\r\n");
        report.error(span(2, 6, 5), "no good", "write right");
        let diagnostic = only(report);
        assert_eq!(diagnostic.text, "wrong");
        assert_eq!(
            diagnostic.to_string(),
            "policy.yaml:2:6: no good\n    2 |  bé: wrong\n      |      ^^^^^\n      = write right"
        );
    }

    #[test]
    fn shows_a_file_without_a_position() {
        let diagnostic = Diagnostic::of_file("p.yaml".into(), "not found", "create it");
        assert_eq!(
            diagnostic.to_string(),
            "p.yaml: not found\n      = create it"
        );
    }

    #[test]
    fn shows_a_window_of_a_long_line_and_no_control_characters() {
        let source = format!("{}\u{1b}[31mBAD{}", "x".repeat(5000), "y".repeat(5000));
        let mut report = Report::new("p", &source);
        report.error(span(1, 5001, 9000), "m", "r");
        let shown = only(report).to_string();
        assert!(shown.len() < 500, "{} bytes", shown.len());
        assert!(shown.contains("\u{fffd}[31mBAD"));
        assert!(!shown.contains('\u{1b}'));
    }

    #[test]
    fn survives_a_position_that_is_not_in_the_file() {
        let mut report = Report::new("p", "a");
        for (line, column, width) in [(0, 0, 0), (1, 9, 9), (9, 1, 1), (u32::MAX, 1, u32::MAX)] {
            report.error(span(line, column, width), "m", "r");
        }
        assert!(report.finish().unwrap().to_string().contains("p:1:9: m"));
    }

    #[test]
    fn keeps_a_hundred_errors_in_order_and_counts_the_rest() {
        let source = "\n".repeat(150);
        let mut report = Report::new("p", &source);
        report.add(Diagnostic::of_file("a-list".into(), "m", "r"));
        for line in (1..=150).rev() {
            report.error(span(line, 1, 1), "m", "r");
        }
        let diagnostics = report.finish().unwrap();
        assert_eq!(diagnostics.count(), 151);
        assert_eq!(diagnostics.iter().len(), MAX_REPORTED);
        assert_eq!(&*diagnostics.found[0].file, "p");
        assert!(diagnostics.found[0].span < diagnostics.found[1].span);
        assert_eq!(&*diagnostics.found[99].file, "a-list");
        assert!(diagnostics.to_string().ends_with("and 51 more"));
    }

    #[test]
    fn suggests_no_opposite() {
        let words = ["matches", "suffixes", "notIn"];
        assert_eq!(closest("notMatches", words), None);
        assert_eq!(closest("notSuffixes", words), None);
        assert_eq!(closest("notIns", words), Some("notIn"));
    }

    #[test]
    fn suggests_a_near_word_and_no_far_one() {
        let words = ["refuseOwner", "dropFriends", "id", "in"];
        assert_eq!(closest("refuseOwnr", words), Some("refuseOwner"));
        assert_eq!(closest("refuseowner", words), Some("refuseOwner"));
        assert_eq!(closest("dropFreinds", words), Some("dropFriends"));
        assert_eq!(closest("if", words), Some("id"));
        assert_eq!(closest("banana", words), None);
        assert_eq!(closest(&"x".repeat(1_000_000), words), None);
    }
}
