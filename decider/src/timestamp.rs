//! Times in responses of `/readyz` and in explanations.

use std::time::SystemTime;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub(crate) fn rfc3339(at: SystemTime) -> String {
    // Fails only for years beyond 9999.
    OffsetDateTime::from(at)
        .format(&Rfc3339)
        .unwrap_or_default()
}
