//! Changes of live lists, as the commands print them.

use importguard_lists::ListChangedEvent;

use super::{exact_rfc3339, printable, to_the_millisecond};

/// Returns the time of a change, the user, and a text such as `by alice: #4711, until 2026-11-30T18:04:05Z`.
pub(crate) fn list_change(event: &ListChangedEvent) -> (String, String, String) {
    let data = &event.data;
    let mut rest = format!("by {}", printable(&data.by));
    if let Some(reason) = &data.reason {
        rest.push_str(": ");
        rest.push_str(&printable(reason));
    }
    if let Some(until) = data.until {
        rest.push_str(", until ");
        rest.push_str(&exact_rfc3339(until));
    }
    let time = to_the_millisecond(&exact_rfc3339(event.time));
    (time, printable(data.user_id.as_str()), rest)
}
