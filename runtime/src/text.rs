//! Text files that operators write: lists of IDs, passwords, tokens.
//!
//! What an editor, a spreadsheet or a script may do to such a file without anybody seeing it (another encoding, other line ends,
//! invisible characters) is an error with its position here, because a line that differs from what it looks like matches nothing.
//! The errors never contain any of the content, so that they can be printed for files of secrets, too. For the same reason, the
//! types that hold it have no `Debug`.

use std::fmt;

use importguard_telemetry::is_invisible;

/// Why a text file cannot be used, and where. Its `Display` has the message and the remedy, but nothing of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextError {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// The error.
    pub kind: TextErrorKind,
}

/// What is wrong with a text file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextErrorKind {
    /// It is encoded as UTF-16 or UTF-32, with or without a byte order mark.
    WideEncoding,
    /// It contains a NUL byte.
    Nul,
    /// It is not UTF-8.
    NotUtf8,
    /// A carriage return is not followed by a line feed.
    CarriageReturn,
    /// There is a byte order mark after the beginning.
    ByteOrderMark,
    /// A character has no width, or no effect but on the direction of others.
    Invisible,
    /// A control character, such as a tab, is in the middle of a line.
    Control,
}

impl TextErrorKind {
    /// The error, as a clause.
    pub const fn message(self) -> &'static str {
        match self {
            Self::WideEncoding => "the file is encoded as UTF-16 or UTF-32, not as UTF-8",
            Self::Nul => "the file contains a NUL byte, so it is damaged or is not a text file",
            Self::NotUtf8 => "this line is not UTF-8",
            Self::CarriageReturn => "a carriage return without a line feed does not end a line",
            Self::ByteOrderMark => "this line contains a byte order mark, which is invisible",
            Self::Invisible => "this line contains an invisible character",
            Self::Control => "this line contains a control character",
        }
    }

    /// How to correct it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::WideEncoding | Self::NotUtf8 => "save the file as UTF-8",
            Self::Nul => "write the file again, as UTF-8 text",
            Self::CarriageReturn => "save the file with line feeds (LF) as line ends",
            Self::ByteOrderMark => {
                "delete the character; files that are joined with cat each bring a mark of their own"
            }
            Self::Invisible => "delete the character, or type the line again",
            Self::Control => {
                "delete the character; write one entry per line and nothing else on it"
            }
        }
    }
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, kind } = self;
        write!(
            f,
            "line {line}, column {column}: {}: {}",
            kind.message(),
            kind.remedy()
        )
    }
}

impl std::error::Error for TextError {}

/// A line of a text file, without its end. White space around its text is kept.
#[derive(Clone, Copy)]
pub struct TextLine<'a> {
    /// Its number, from 1.
    pub number: u32,
    /// Its text.
    pub text: &'a str,
}

impl TextLine<'_> {
    /// An error at the byte `offset` of this line.
    pub fn error_at(&self, offset: usize, kind: TextErrorKind) -> TextError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        TextError {
            line: self.number,
            column: number(before.chars().count() + 1),
            kind,
        }
    }

    /// Checks that the line is what it looks like. Control characters that are white space at its beginning or end are accepted.
    ///
    /// # Errors
    /// The first invisible or control character.
    pub fn check(&self) -> Result<(), TextError> {
        // Nearly every line of a list with millions of them.
        if self.text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return Ok(());
        }
        let inner = self.text.trim();
        let start = self.text.len() - self.text.trim_start().len();
        let found = inner
            .char_indices()
            .find_map(|(at, c)| Some((at, unseen(c)?)));
        match found {
            Some((at, kind)) => Err(self.error_at(start + at, kind)),
            None => Ok(()),
        }
    }
}

/// Decodes a file as UTF-8, without a byte order mark at its beginning.
///
/// # Errors
/// If it is encoded otherwise, or contains a NUL byte.
pub fn decode(content: &[u8]) -> Result<&str, TextError> {
    let content = narrow(content)?;
    let text = std::str::from_utf8(content)
        .map_err(|error| error_at(content, error.valid_up_to(), TextErrorKind::NotUtf8))?;
    match text.find('\0') {
        Some(nul) => Err(error_at(content, nul, TextErrorKind::Nul)),
        None => Ok(text),
    }
}

/// The lines of a file that are not checked yet: see [`TextLine::check`]. They end with LF or CR LF.
///
/// # Errors
/// Those of [`decode`], and a carriage return without a line feed: a file with the line ends of old Macs would be one line.
pub fn lines(content: &[u8]) -> Result<impl Iterator<Item = TextLine<'_>>, TextError> {
    let lines: Result<Vec<_>, _> = raw_lines(content)?.map(|line| line.text()).collect();
    Ok(lines?.into_iter())
}

/// A line of a file, without its end, that need not be text.
#[derive(Clone, Copy)]
pub struct RawLine<'a> {
    /// Its number, from 1.
    pub number: u32,
    /// Its content.
    pub bytes: &'a [u8],
}

impl<'a> RawLine<'a> {
    /// Decodes it as UTF-8.
    ///
    /// # Errors
    /// If it is encoded otherwise, or contains a NUL byte or a carriage return.
    pub fn text(&self) -> Result<TextLine<'a>, TextError> {
        let Self { number, bytes } = *self;
        let error = |at, kind| TextError {
            line: number,
            ..error_at(bytes, at, kind)
        };
        let text = std::str::from_utf8(bytes)
            .map_err(|why| error(why.valid_up_to(), TextErrorKind::NotUtf8))?;
        let damage = bytes.iter().enumerate().find_map(|(at, byte)| match byte {
            0 => Some((at, TextErrorKind::Nul)),
            b'\r' => Some((at, TextErrorKind::CarriageReturn)),
            _ => None,
        });
        match damage {
            Some((at, kind)) => Err(error(at, kind)),
            None => Ok(TextLine { number, text }),
        }
    }
}

/// The lines of a file, each of which may be invalid. They end with LF or CR LF.
///
/// # Errors
/// If the file is encoded as UTF-16 or UTF-32.
pub fn raw_lines(content: &[u8]) -> Result<impl Iterator<Item = RawLine<'_>> + Clone, TextError> {
    let lines = narrow(content)?.split_inclusive(|&byte| byte == b'\n');
    Ok((1..).zip(lines).map(|(number, line)| {
        let end = line.strip_suffix(b"\r\n");
        let bytes = end.or(line.strip_suffix(b"\n")).unwrap_or(line);
        RawLine { number, bytes }
    }))
}

/// A file that is not encoded as UTF-16 or UTF-32, without a byte order mark at its beginning.
fn narrow(content: &[u8]) -> Result<&[u8], TextError> {
    if is_wide(content) {
        return Err(TextError {
            line: 1,
            column: 1,
            kind: TextErrorKind::WideEncoding,
        });
    }
    Ok(content.strip_prefix(UTF8_MARK).unwrap_or(content))
}

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// How many bytes at the beginning show an encoding that has no byte order mark.
const SAMPLE_BYTES: usize = 64;

/// Whether the content is UTF-16 or UTF-32: the marks of UTF-32 begin or end with those of UTF-16, and Latin letters, digits and
/// line ends have a NUL byte in every pair.
fn is_wide(content: &[u8]) -> bool {
    if [&b"\xff\xfe"[..], b"\xfe\xff", b"\0\0\xfe\xff"]
        .iter()
        .any(|mark| content.starts_with(mark))
    {
        return true;
    }
    let sample = content.get(..SAMPLE_BYTES).unwrap_or(content);
    let pairs = sample.chunks_exact(2);
    let count = pairs.len();
    let with_nul = pairs.filter(|pair| pair.contains(&0) && pair != b"\0\0");
    // Not each of them, as there may be letters of other scripts. Text in UTF-8 has none; a damaged file has NUL bytes in a row.
    4 * with_nul.count() >= count.max(1)
}

fn error_at(content: &[u8], offset: usize, kind: TextErrorKind) -> TextError {
    let before = content.get(..offset).unwrap_or(content);
    let newlines = before.iter().filter(|&&byte| byte == b'\n').count();
    let line = before.rsplit(|&byte| byte == b'\n').next();
    let characters = String::from_utf8_lossy(line.unwrap_or_default())
        .chars()
        .count();
    TextError {
        line: number(newlines + 1),
        column: number(characters + 1),
        kind,
    }
}

/// A line or column. Files have fewer.
fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Why a reader of the file does not see the character; `None` if it is visible or a space.
pub fn unseen(c: char) -> Option<TextErrorKind> {
    match c {
        // ASCII, and East Asian letters: for speed only.
        ' '..='~' | '\u{3400}'..='\u{d7ff}' => None,
        '\u{feff}' => Some(TextErrorKind::ByteOrderMark),
        _ if c.is_control() => Some(TextErrorKind::Control),
        _ if is_invisible(c) => Some(TextErrorKind::Invisible),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(content: &[u8]) -> Vec<&str> {
        let lines = lines(content).unwrap_or_else(|error| panic!("{error}"));
        lines
            .map(|line| {
                line.check().unwrap_or_else(|error| panic!("{error}"));
                line.text
            })
            .collect()
    }

    /// The first error of a file and its place.
    #[track_caller]
    fn error(content: &[u8]) -> (TextErrorKind, u32, u32) {
        let error = match lines(content) {
            Ok(mut lines) => lines.find_map(|line| line.check().err()),
            Err(error) => Some(error),
        };
        let error = error.expect("this file should be invalid");
        (error.kind, error.line, error.column)
    }

    fn wide(text: &str, mut encode: impl FnMut(char) -> Vec<u8>) -> Vec<u8> {
        text.chars().flat_map(&mut encode).collect()
    }

    fn utf16le(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn lines_end_with_lf_or_cr_lf_and_a_mark_at_the_beginning_is_no_part_of_the_first() {
        assert_eq!(
            texts(b"\xef\xbb\xbfone\r\n\r\n two words\t\nthree"),
            ["one", "", " two words\t", "three"]
        );
        assert!(texts(b"").is_empty());
        assert_eq!(texts("用户1\nµ é 😀\n".as_bytes()), ["用户1", "µ é 😀"]);
    }

    #[test]
    fn utf16_and_utf32_are_recognised_with_or_without_a_mark() {
        let text = "user1\nuser2\n";
        let with_mark = format!("\u{feff}{text}");
        for file in [
            utf16le(text),
            utf16le(&with_mark),
            with_mark
                .encode_utf16()
                .flat_map(u16::to_be_bytes)
                .collect(),
            text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            wide(text, |c| u32::from(c).to_le_bytes().to_vec()),
            wide(text, |c| u32::from(c).to_be_bytes().to_vec()),
            wide(&with_mark, |c| u32::from(c).to_le_bytes().to_vec()),
            wide(&with_mark, |c| u32::from(c).to_be_bytes().to_vec()),
        ] {
            assert_eq!(
                error(&file),
                (TextErrorKind::WideEncoding, 1, 1),
                "{file:?}"
            );
        }
    }

    #[test]
    fn a_nul_byte_is_an_error_where_it_is() {
        assert_eq!(error(b"user1\nus\0r2\n"), (TextErrorKind::Nul, 2, 3));
        // What a file system may leave at the end of a file after a power cut.
        assert_eq!(
            error(&[&b"user1\n"[..], &[0; 4096]].concat()),
            (TextErrorKind::Nul, 2, 1)
        );
    }

    #[test]
    fn a_line_that_is_not_utf8_is_an_error_where_it_is() {
        assert_eq!(
            error(b"user1\nus\xc3\xa9r\xff2\nuser3"),
            (TextErrorKind::NotUtf8, 2, 5)
        );
    }

    #[test]
    fn a_carriage_return_that_ends_no_line_is_an_error_also_after_a_comment() {
        let kind = TextErrorKind::CarriageReturn;
        assert_eq!(error(b"user1\ruser2\r"), (kind, 1, 6));
        assert_eq!(error(b"# blocked\ruser1\ruser2\r"), (kind, 1, 10));
        assert_eq!(error(b"user1\r\nuser2\r\r\n"), (kind, 2, 6));
    }

    #[test]
    fn characters_that_nobody_sees_are_errors_and_white_space_around_a_line_is_not() {
        for (file, expected) in [
            ("a\nuser\u{feff}1\n", (TextErrorKind::ByteOrderMark, 2, 5)),
            ("a\n\u{feff}user1\n", (TextErrorKind::ByteOrderMark, 2, 1)),
            ("user1\u{200b}\n", (TextErrorKind::Invisible, 1, 6)),
            ("us\u{ad}er1\n", (TextErrorKind::Invisible, 1, 3)),
            ("\u{202e}user1\n", (TextErrorKind::Invisible, 1, 1)),
            ("user1\u{2028}user2\n", (TextErrorKind::Invisible, 1, 6)),
            ("  user1\tbanned\n", (TextErrorKind::Control, 1, 8)),
            ("us\u{1b}[31mer1\n", (TextErrorKind::Control, 1, 3)),
            ("user\u{9b}1\n", (TextErrorKind::Control, 1, 5)),
            ("user1\u{7f}\n", (TextErrorKind::Control, 1, 6)),
        ] {
            assert_eq!(error(file.as_bytes()), expected, "{file:?}");
        }
        assert_eq!(texts(b"\tuser1 \t\n"), ["\tuser1 \t"]);
    }

    #[test]
    fn an_error_says_where_it_is_and_what_to_do_and_nothing_of_the_content() {
        for file in [
            &b"quxzyx\0\n"[..],
            b"quxzyx\xff\n",
            b"quxzyx\rzyxqux\r",
            b"qux\x07zyx\n",
            "qux\u{200b}zyx\n".as_bytes(),
            "qux\u{feff}zyx\n".as_bytes(),
            &utf16le("quxzyx\n"),
        ] {
            let error = match lines(file) {
                Ok(mut lines) => lines.find_map(|line| line.check().err()).unwrap(),
                Err(error) => error,
            };
            let text = format!("{error} {error:?}");
            assert!(text.starts_with("line 1, column "), "{text}");
            for part in ["qux", "zyx", "113", "U+"] {
                assert!(!text.contains(part), "{text}");
            }
        }
    }
}
