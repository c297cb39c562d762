//! Numbers and lists in texts.

use std::fmt::Display;

use crate::events::printable;

/// Formats a count with its noun: `1 event`, `2 events`.
pub(crate) fn counted<N>(count: N, one: &str, several: &str) -> String
where
    N: Display + PartialEq + From<u8>,
{
    let noun = if count == N::from(1) { one } else { several };
    format!("{count} {noun}")
}

/// Formats the first `most` IDs, and how many more there are: `a, b and 3 more`.
pub(crate) fn first_ids(ids: &[&str], most: usize) -> String {
    let first: Vec<_> = ids.iter().take(most).map(|id| printable(id)).collect();
    let first = first.join(", ");
    match ids.len().saturating_sub(most) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
