use std::sync::Arc;

use super::{IdSet, ListContent, digest};

/// The maximum size of a list file, in bytes: sixty million IDs of 16 bytes, and a quarter of the limit of an [`IdSet`].
pub const MAX_LIST_BYTES: u64 = 1 << 30;

/// An error in a line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The line, as far as it is printable.
    pub text: String,
    /// The error.
    pub message: &'static str,
    /// How to correct it.
    pub remedy: &'static str,
}

/// Parses a list: one ID per line; surrounding white space and empty lines are ignored.
///
/// A line that starts with `#` is a comment. An ID may contain a `#` (`team#7`), so there are no comments after an ID; a line
/// that seems to have one (`user1 # left in May`) is an error rather than an ID that never matches.
///
/// # Errors
/// The first invalid lines.
pub fn parse(content: &[u8]) -> Result<ListContent, Vec<LineError>> {
    let text = utf8(content).map_err(|error| vec![error])?;
    let errors: Vec<LineError> = (1..)
        .zip(text.lines())
        .filter_map(|(number, line)| trailing_comment(number, line))
        .take(MAX_LINE_ERRORS)
        .collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(ListContent {
        digest: digest(content),
        ids: Arc::new(IdSet::from_ids(ids(text))),
    })
}

/// The maximum number of lines reported.
const MAX_LINE_ERRORS: usize = 20;

fn ids(text: &str) -> impl Iterator<Item = &str> + Clone {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn utf8(content: &[u8]) -> Result<&str, LineError> {
    // Windows editors write a byte order mark, which would become part of the first ID.
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    std::str::from_utf8(content).map_err(|error| {
        let before = content.get(..error.valid_up_to()).unwrap_or_default();
        let line_start = before
            .iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |newline| newline + 1);
        let line = content
            .get(line_start..)
            .unwrap_or_default()
            .split(|&b| b == b'\n')
            .next()
            .unwrap_or_default();
        let newlines = before.iter().filter(|&&b| b == b'\n').count();
        let shown_before = before.get(line_start..).unwrap_or_default();
        LineError {
            line: u32::try_from(newlines + 1).unwrap_or(u32::MAX),
            column: u32::try_from(String::from_utf8_lossy(shown_before).chars().count() + 1)
                .unwrap_or(u32::MAX),
            text: String::from_utf8_lossy(line).trim().to_owned(),
            message: "this line is not UTF-8",
            remedy: "save the file as UTF-8",
        }
    })
}

fn trailing_comment(number: u32, line: &str) -> Option<LineError> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let hash = line
        .match_indices('#')
        .map(|(at, _)| at)
        .find(|&at| line[..at].ends_with(char::is_whitespace))?;
    Some(LineError {
        line: number,
        column: u32::try_from(line[..hash].chars().count() + 1).unwrap_or(u32::MAX),
        text: line.trim().to_owned(),
        message: "a comment after an ID would become part of the ID",
        remedy: "put the comment on its own line; an ID that contains \" #\" can be listed under values: in the policy",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(content: &[u8]) -> ListContent {
        parse(content).unwrap()
    }

    #[test]
    fn takes_one_id_a_line_without_the_white_space_around_it() {
        let list = set(
            b"\xef\xbb\xbfuser1\r\n\n  user two\t\n# a comment\n   # another\nteam#7\nuser1\nlast",
        );
        assert_eq!(list.ids.len(), 4);
        for id in ["user1", "user two", "team#7", "last"] {
            assert!(list.ids.contains(id), "{id}");
        }
    }

    #[test]
    fn the_digest_is_over_the_whole_content() {
        assert_eq!(set(b"a\n").digest, digest(b"a\n"));
        assert_ne!(set(b"a\n").digest, set(b"# why\na\n").digest);
    }

    #[test]
    fn values_have_the_digest_of_the_same_ids_in_a_file() {
        let values = ListContent::from_values(&["a", "b"]);
        assert_eq!(values.digest, set(b"a\nb\n").digest);
        assert_eq!(values.named("x").revision.size, 2);
    }

    #[test]
    fn names_the_line_that_is_not_utf8() {
        let errors = parse(b"user1\nus\xc3\xa9r\xff2\nuser3").unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!((errors[0].line, errors[0].column), (2, 5));
        assert_eq!(errors[0].text, "usér\u{fffd}2");
    }

    #[test]
    fn rejects_a_comment_after_an_id() {
        let errors = parse(b"user1 # left in May\nfine#1\n user2\t# x").unwrap_err();
        let places: Vec<_> = errors.iter().map(|e| (e.line, e.column)).collect();
        assert_eq!(places, [(1, 7), (3, 8)]);
    }

    #[test]
    fn reports_at_most_twenty_lines_of_a_file() {
        let content = "user # why\n".repeat(1000);
        assert_eq!(
            parse(content.as_bytes()).unwrap_err().len(),
            MAX_LINE_ERRORS
        );
    }
}
