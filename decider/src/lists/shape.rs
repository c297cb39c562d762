//! Detects lines of a list that are not IDs. An ID may be nearly any string, so only what is certainly not an ID is an error.

use std::borrow::Cow;

use importguard_core::UserId;
use importguard_runtime::text::{TextErrorKind, unseen};

/// Why a line is not accepted as an ID.
pub struct Misfit {
    /// The byte offset of the error in the line.
    pub(super) at: usize,
    /// The error.
    pub message: Cow<'static, str>,
    pub(super) remedy: &'static str,
}

/// Returns why `id` is not accepted as an ID, or `None` if it is. `id` must have no white space around it.
pub fn misfit(id: &str) -> Option<Misfit> {
    // Fast path: nearly every line, in a list that may have millions.
    let is_plain = id.bytes().all(|byte| IS_PLAIN[usize::from(byte)]);
    let found = match is_plain {
        true if id.is_ascii() => None,
        true => unseen_character(id),
        false => unseen_character(id)
            .or_else(|| trailing_comment(id))
            .or_else(|| markup(id))
            .or_else(|| json(id))
            .or_else(|| quotes(id))
            .or_else(|| columns(id))
            .or_else(|| dash(id)),
    };
    let (at, message, remedy) = found.or_else(|| too_long(id))?;
    Some(Misfit {
        at,
        message,
        remedy,
    })
}

/// The byte offset of the error, the message and the remedy.
type Found = Option<(usize, Cow<'static, str>, &'static str)>;

/// The bytes that need no further checks: a line of these is an ID if each of its non-ASCII characters is visible.
static IS_PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < table.len() {
        // Lossless: the table has 256 elements.
        let value = byte as u8;
        table[byte] = !value.is_ascii()
            || value.is_ascii_graphic()
                && !matches!(
                    value,
                    b'#' | b'<' | b'[' | b']' | b'{' | b'}' | b'"' | b'\'' | b',' | b';'
                );
        byte += 1;
    }
    table
};

fn unseen_character(id: &str) -> Found {
    let (at, c, kind) = id
        .char_indices()
        .find_map(|(at, c)| Some((at, c, unseen(c)?)))?;
    let remedy = match kind {
        TextErrorKind::Control => {
            "delete the character; write one ID per line and nothing else on it. An ID that really contains it can be listed under values: in the policy, in double quotes and with an escape such as \\t"
        }
        TextErrorKind::ByteOrderMark => kind.remedy(),
        _ => {
            "delete the character, or type the ID again. An ID that really contains it can be listed under values: in the policy, in double quotes and with an escape such as \\u200B"
        }
    };
    let message = format!("{} (U+{:04X})", kind.message(), u32::from(c));
    Some((at, message.into(), remedy))
}

fn too_long(id: &str) -> Found {
    let (bytes, max) = (id.len(), UserId::MAX_BYTES);
    (bytes > max).then(|| {
        (
            0,
            format!("this ID has {bytes} bytes; the maximum is {max}").into(),
            "write one ID per line: no user has an ID this long",
        )
    })
}

fn trailing_comment(id: &str) -> Found {
    let mut hashes = id.match_indices('#').map(|(at, _)| at);
    let at = hashes.find(|&at| id[..at].ends_with(char::is_whitespace))?;
    Some((
        at,
        "a comment after an ID would become part of the ID".into(),
        "put the comment on its own line; an ID that contains \" #\" can be listed under values: in the policy",
    ))
}

fn markup(id: &str) -> Found {
    let is_tag = id.starts_with('<') && id.ends_with('>');
    let begins = |tag: &str| {
        id.get(..tag.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(tag))
    };
    (is_tag || ["<!doctype", "<html", "<?xml"].into_iter().any(begins)).then_some((
        0,
        "this is HTML or XML, not an ID".into(),
        "check what wrote the file: a server may have answered with an error page. An ID like this can be listed under values: in the policy",
    ))
}

fn json(id: &str) -> Found {
    let inner = id.trim_end_matches(',');
    let is_bracket = matches!(inner, "[" | "]" | "{" | "}");
    let is_array = inner.starts_with('[') && (inner.ends_with(']') || id.ends_with(','));
    // {1f0c…} is a GUID.
    let is_object =
        inner.starts_with('{') && (inner == "{}" || inner.contains('"') || inner.contains(':'));
    (is_bracket || is_array || is_object).then_some((
        0,
        "this is JSON, not an ID".into(),
        "write one ID per line, without brackets, quotes and commas: jq -r '.[]' converts an array of strings. An ID like this can be listed under values: in the policy",
    ))
}

fn quotes(id: &str) -> Found {
    let quote = id.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    id[1..].contains(quote).then_some((
        0,
        "the quotes would become part of the ID".into(),
        "write the ID without quotes; an ID that begins with one can be listed under values: in the policy",
    ))
}

fn columns(id: &str) -> Found {
    let at = id.find([',', ';'])?;
    let separator = match id.as_bytes().get(at) {
        Some(b',') => "a comma and what follows it",
        _ => "a semicolon and what follows it",
    };
    Some((
        at,
        format!("{separator} would become part of the ID").into(),
        "write one ID per line and nothing else on it: cut -d, -f1 keeps the first column of a table. An ID that really contains it can be listed under values: in the policy",
    ))
}

fn dash(id: &str) -> Found {
    id.starts_with("- ").then_some((
        0,
        "the dash would become part of the ID".into(),
        "write the ID without it; an ID that begins with \"- \" can be listed under values: in the policy",
    ))
}
