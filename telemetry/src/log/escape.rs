//! Escapes what a reader of a line would not see: neither an escape sequence of a terminal nor a change of direction in a caller's text
//! may make a line look like another.

use std::{
    fmt::{self, Write},
    io,
};

use serde_json::ser::Formatter;

/// Writes text in which control and invisible characters are replaced by their escapes.
pub(super) struct OneLine<W>(pub(super) W);

impl<W: Write> Write for OneLine<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        split(text, |seen, unseen| {
            self.0.write_str(seen)?;
            match unseen {
                Some(c) => write!(self.0, "{}", c.escape_default()),
                None => Ok(()),
            }
        })
    }
}

/// Compact JSON with escapes for all control and invisible characters. JSON itself requires them only for those below U+0020.
pub(super) struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        split(fragment, |seen, unseen| {
            writer.write_all(seen.as_bytes())?;
            let Some(c) = unseen else { return Ok(()) };
            c.encode_utf16(&mut [0; 2])
                .iter()
                .try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
        })
    }
}

/// Whether a character takes no space on a screen: Unicode's `Default_Ignorable_Code_Point` and the line and paragraph separators.
pub fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Calls `write` with the parts of a text, each with the control or invisible character that follows it.
fn split<E>(
    text: &str,
    mut write: impl FnMut(&str, Option<char>) -> Result<(), E>,
) -> Result<(), E> {
    // Nearly all text is printable ASCII, and checking bytes is faster than checking characters.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return write(text, None);
    }
    let is_unseen = |c: char| c.is_control() || is_invisible(c);
    text.split_inclusive(is_unseen).try_for_each(|part| {
        let last = part.chars().next_back().filter(|c| is_unseen(*c));
        write(&part[..part.len() - last.map_or(0, char::len_utf8)], last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_on_one_line_and_in_its_direction() {
        for (text, expected) in [
            ("plain a\nb\u{1b}[0m", "plain a\\nb\\u{1b}[0m"),
            (
                "a\u{202e}b\u{2066}\u{200f}é用",
                "a\\u{202e}b\\u{2066}\\u{200f}é用",
            ),
        ] {
            let mut line = String::new();
            OneLine(&mut line).write_str(text).unwrap();
            assert_eq!(line, expected);
        }
    }
}
