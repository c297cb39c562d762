use std::{borrow::Cow, sync::Arc};

use importguard_runtime::text::{RawLine, TextError, TextLine, raw_lines};
use importguard_yaml::diagnostic::MAX_REPORTED;

use super::{IdSet, ListContent, digest, shape::misfit};

/// The maximum size of a list file, in bytes: sixty million IDs of 16 bytes, and a quarter of the limit of an [`IdSet`].
pub const MAX_LIST_BYTES: u64 = 1 << 30;

/// An error in a line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The beginning of the line, with U+FFFD in place of invalid UTF-8; empty if the file is encoded as UTF-16 or UTF-32.
    pub text: String,
    /// The error.
    pub message: Cow<'static, str>,
    /// How to correct it.
    pub remedy: &'static str,
}

/// The errors in a list, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineErrors {
    /// The first ones, at most [`MAX_REPORTED`].
    pub first: Vec<LineError>,
    /// The number of the others.
    pub more: usize,
}

/// Parses a list: one ID per line; surrounding white space and empty lines are ignored.
///
/// A line that starts with `#` is a comment. An ID may contain a `#` (`team#7`), so there are no comments after an ID. A line that
/// does not look like an ID, such as an ID followed by a comment or a line of a web page, is an error rather than an ID that never
/// matches.
///
/// # Errors
/// If lines are invalid.
pub fn parse(content: &[u8]) -> Result<ListContent, LineErrors> {
    let lines = raw_lines(content).map_err(|error| LineErrors {
        // Lines of UTF-16 or UTF-32 are unreadable as UTF-8.
        first: vec![LineError::of_text(error, b"")],
        more: 0,
    })?;
    let mut errors = lines.clone().filter_map(LineError::of_line);
    let first: Vec<_> = errors.by_ref().take(MAX_REPORTED).collect();
    if !first.is_empty() {
        let more = errors.count();
        return Err(LineErrors { first, more });
    }
    let ids = lines.filter_map(|line| id(line.text().ok()?.text));
    Ok(ListContent {
        digest: digest(content),
        ids: Arc::new(IdSet::from_ids(ids)),
        is_terminated: content.last().is_none_or(|&last| last == b'\n'),
    })
}

/// The maximum length of the excerpt of an invalid line: in bytes if the file's encoding or line ends are wrong, otherwise in
/// characters. A file without line feeds is a single line of up to [`MAX_LIST_BYTES`].
const MAX_EXCERPT_BYTES: usize = 4 << 10;

/// The ID on a line; `None` for an empty line or a comment. [`misfit`] checks it.
pub fn id(line: &str) -> Option<&str> {
    let id = line.trim();
    (!id.is_empty() && !id.starts_with('#')).then_some(id)
}

impl LineError {
    /// Returns the error in a line, or `None` if the line is valid.
    fn of_line(line: RawLine<'_>) -> Option<Self> {
        match line.text() {
            Ok(text) => Self::of_id(text, id(text.text)?),
            Err(error) => Some(Self::of_text(error, line.bytes)),
        }
    }

    /// An error in the encoding or the end of `line`.
    fn of_text(error: TextError, line: &[u8]) -> Self {
        let line = line.get(..MAX_EXCERPT_BYTES).unwrap_or(line);
        Self {
            line: error.line,
            column: error.column,
            text: String::from_utf8_lossy(line).trim_end().to_owned(),
            message: error.kind.message().into(),
            remedy: error.kind.remedy(),
        }
    }

    /// Returns the error in a line with `id`.
    fn of_id(line: TextLine<'_>, id: &str) -> Option<Self> {
        let misfit = misfit(id)?;
        let start = line.text.len() - line.text.trim_start().len();
        let before = line.text.get(..start + misfit.at).unwrap_or(line.text);
        let shown = line.text.char_indices().nth(MAX_EXCERPT_BYTES);
        let shown = shown.map_or(line.text, |(end, _)| &line.text[..end]);
        Some(Self {
            line: line.number,
            column: u32::try_from(before.chars().count() + 1).unwrap_or(u32::MAX),
            text: shown.trim_end().to_owned(),
            message: misfit.message,
            remedy: misfit.remedy,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::lists::{Fold, Ids};

    fn set(content: &[u8]) -> ListContent {
        parse(content).unwrap()
    }

    /// Asserts the only error in a list: its position and the beginning of its message.
    #[track_caller]
    fn says(content: &[u8], line: u32, column: u32, message: &str) {
        let errors = parse(content).expect_err("this list should be invalid");
        let [error] = errors.first.as_slice() else {
            panic!("{errors:#?}");
        };
        assert!(error.message.starts_with(message), "{errors:#?}");
        assert_eq!((error.line, error.column), (line, column), "{errors:#?}");
        assert_eq!(errors.more, 0);
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
    fn takes_ids_of_any_kind() {
        for id in [
            "用户1",
            "O'Brien",
            "user@example.com",
            "+49 170/1234567",
            "{0f8fad5b-d9cb-469f-a165-70867728950e}",
            "a=b&c|d\\e`f~g^h*(i)?!%$",
            "-1",
            "github-actions[bot]",
            "a<b>c",
            "x\"y",
            "[x",
            "x:y",
            "//x",
            "é😀",
        ] {
            let list = set(id.as_bytes());
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
        assert_eq!(
            values
                .named("x", Ids::new(values.ids.clone(), Fold::default()), None)
                .revision
                .size,
            2
        );
    }

    #[test]
    fn a_line_that_is_not_utf8_is_an_error() {
        let errors = parse(b"user1\nus\xc3\xa9r\xff2\nuser3").unwrap_err();
        let errors = errors.first;
        assert_eq!(errors.len(), 1);
        assert_eq!((errors[0].line, errors[0].column), (2, 5));
        assert_eq!(errors[0].text, "usér\u{fffd}2");
    }

    #[test]
    fn a_damaged_line_hides_no_error_of_another() {
        let errors = parse(b"fine\nu\xff\nb\0d\na\rb\nuser1 # why\n\xff").unwrap_err();
        let places: Vec<_> = errors.first.iter().map(|e| (e.line, e.column)).collect();
        assert_eq!(places, [(2, 2), (3, 2), (4, 2), (5, 7), (6, 1)]);
    }

    #[test]
    fn line_ends_of_old_macs_are_an_error() {
        let message = "a carriage return without a line feed";
        says(b"user1\ruser2\r", 1, 6, message);
        says(b"# blocked\ruser1\ruser2\r", 1, 10, message);
    }

    #[test]
    fn utf16_is_an_error_with_and_without_a_mark() {
        let utf16: Vec<u8> = "user1\nuser2\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let message = "the file is encoded as UTF-16 or UTF-32";
        says(&utf16, 1, 1, message);
        says(&[b"\xff\xfe", &utf16[..]].concat(), 1, 1, message);
        says(
            b"user1\n\0\0\0\0\0\0\0\0",
            2,
            1,
            "the file contains a NUL byte",
        );
    }

    #[test]
    fn what_nobody_sees_in_an_id_is_an_error() {
        for (list, column, message) in [
            (
                "a\nuser\u{feff}1",
                5,
                "this line contains a byte order mark, which is invisible (U+FEFF)",
            ),
            (
                "a\n\u{feff}# a comment",
                1,
                "this line contains a byte order mark",
            ),
            (
                "a\n  user\u{200b}1",
                7,
                "this line contains an invisible character (U+200B)",
            ),
            (
                "a\nuser1\u{200d}",
                6,
                "this line contains an invisible character (U+200D)",
            ),
            (
                "a\nuser\u{7}1",
                5,
                "this line contains a control character (U+0007)",
            ),
            (
                "a\nuser1\tleft in May",
                6,
                "this line contains a control character (U+0009)",
            ),
        ] {
            says(list.as_bytes(), 2, column, message);
        }
    }

    #[test]
    fn a_comment_after_an_id_is_an_error() {
        let errors = parse(b"user1 # left in May\nfine#1\n user2\t# x").unwrap_err();
        let places: Vec<_> = errors.first.iter().map(|e| (e.line, e.column)).collect();
        assert_eq!(places, [(1, 7), (3, 7)]);
        says(b"user2  # x", 1, 8, "a comment after an ID");
    }

    #[test]
    fn an_error_page_is_an_error() {
        let page = b"<!DOCTYPE html>\r\n<html>\n<body>Bad Gateway</body></html>\n";
        let errors = parse(page).unwrap_err().first;
        assert_eq!(errors.len(), 3, "{errors:#?}");
        assert!(errors[0].remedy.contains("error page"));
        for page in [
            "<!doctype html PUBLIC",
            "<?xml version=\"1.0\"?>",
            "<Error><Code>AccessDenied</Code></Error>",
        ] {
            says(page.as_bytes(), 1, 1, "this is HTML or XML");
        }
    }

    #[test]
    fn json_is_an_error() {
        for list in [
            "[\"user1\", \"user2\"]",
            "[10001, 10002]",
            "[]",
            "{}",
            "{\"error\": \"not found\"}",
            "  [",
            "],",
        ] {
            let column = 1 + u32::from(list.starts_with(' ')) * 2;
            says(list.as_bytes(), 1, column, "this is JSON");
        }
        let errors = parse(b"[\n  \"user1\",\n  \"user2\"\n]\n")
            .unwrap_err()
            .first;
        assert_eq!(errors.len(), 4, "{errors:#?}");
    }

    #[test]
    fn columns_and_quotes_are_errors() {
        for (list, column, message) in [
            ("\"user1\",", 1, "the quotes would become"),
            ("\"user1\"", 1, "the quotes would become"),
            ("'user1'", 1, "the quotes would become"),
            ("\"user1\",\"left in May\"", 1, "the quotes would become"),
            ("user1,", 6, "a comma and what follows it"),
            ("user1,left in May", 6, "a comma and what follows it"),
            ("user1;left in May", 6, "a semicolon and what follows it"),
            ("- user1", 1, "the dash would become"),
            (
                &"x".repeat(257),
                1,
                "this ID has 257 bytes; the maximum is 256",
            ),
        ] {
            says(list.as_bytes(), 1, column, message);
        }
    }

    #[test]
    fn each_error_says_what_to_do_with_an_id_that_is_meant() {
        for list in [
            "a # b",
            "<a>",
            "[a]",
            "\"a\"",
            "a,b",
            "a;b",
            "- a",
            "a\u{200b}b",
            "a\tb",
        ] {
            let errors = parse(list.as_bytes()).unwrap_err();
            assert!(errors.first[0].remedy.contains("values:"), "{errors:#?}");
        }
    }

    #[test]
    fn it_knows_whether_the_last_line_has_an_end() {
        for (list, expected) in [("", true), ("a\n", true), ("a\r\n", true), ("a\nb", false)] {
            assert_eq!(set(list.as_bytes()).is_terminated, expected, "{list:?}");
        }
    }

    #[test]
    fn keeps_a_hundred_errors_with_the_beginning_of_each_line_and_counts_the_rest() {
        let errors = parse("user # why\n".repeat(1000).as_bytes()).unwrap_err();
        assert_eq!((errors.first.len(), errors.more), (MAX_REPORTED, 900));
        for long in ["a,".repeat(100_000), "user\r".repeat(100_000)] {
            let errors = parse(long.as_bytes()).unwrap_err().first;
            assert!(
                errors[0].text.len() <= MAX_EXCERPT_BYTES,
                "{}",
                errors[0].message
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

        #[test]
        fn any_file_is_a_list_of_visible_ids_or_has_an_error_in_it(
            file in prop_oneof![
                vec(any::<u8>(), 0..200),
                "[a#<>\\[\\]{}\"',;: \t\r\n\u{200b}\u{feff}é用-]{0,60}".prop_map(String::into_bytes),
            ]
        ) {
            match parse(&file) {
                Ok(list) => for id in list.ids.iter() {
                    prop_assert!(!id.is_empty() && id.trim() == id && misfit(id).is_none());
                    prop_assert!(!id.contains(char::is_control));
                },
                Err(errors) => {
                    let lines = 1 + file.iter().filter(|&&byte| byte == b'\n').count();
                    prop_assert!(!errors.first.is_empty());
                    for error in errors.first {
                        prop_assert!((1..=lines).contains(&(error.line as usize)), "{error:?}");
                        prop_assert!(error.column as usize <= file.len() + 1, "{error:?}");
                    }
                }
            }
        }
    }
}
