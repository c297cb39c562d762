//! Words of a file in messages.

use importguard_runtime::text::unseen;

/// The longest quotation in a message: longer than every key, code and reasonable ID.
const QUOTE_CHARS: usize = 60;

/// Returns `text` in quotes, shortened and without control or invisible characters.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text.chars()))
}

/// Returns the candidate of which `word` is most likely a misspelling; `None` if none is similar enough.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    // A third of the letters may differ: enough for typing errors, too few to confuse words.
    let limit = (length / 3).max(1);
    let word = word.to_lowercase();
    let negates = |word: &str| word.starts_with("not");
    candidates
        .into_iter()
        // A word and its negation are similar, but have opposite meanings.
        .filter(|candidate| negates(candidate) == negates(&word))
        // Also avoids the quadratic comparison for very long words.
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= limit)
        .map(|candidate| {
            (
                strsim::osa_distance(&word, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

pub(crate) fn shortened(text: impl Iterator<Item = char>) -> String {
    let mut text = text.map(printable);
    let mut short: String = text.by_ref().take(QUOTE_CHARS).collect();
    if text.next().is_some() {
        short.push('…');
    }
    short
}

/// Replaces control characters, which would affect the terminal, and invisible characters.
pub(crate) fn printable(c: char) -> char {
    if c == '\t' {
        ' '
    } else if unseen(c).is_some() {
        '\u{fffd}'
    } else {
        c
    }
}
