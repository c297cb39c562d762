//! What NATS's errors mean, and what to do.

use super::printable;

/// That this user may not subscribe to `subject`, with the remedy; `example` is a prefix of responses.
pub(crate) fn inbox_denied(subject: &str, example: &str) -> String {
    format!(
        "NATS does not let this user subscribe to {}: set NATS_INBOX_PREFIX to the prefix that its permissions have, such as {example}",
        printable(subject)
    )
}

/// Describes an error that the server sends. The subject is that of responses if NATS denies a subscription.
pub(super) fn denied(error: &str) -> String {
    let subject = error
        .split_once("Permissions Violation for Subscription to \"")
        .map(|(_, subject)| subject.split('"').next().unwrap_or_default());
    match subject {
        Some(subject) => inbox_denied(subject, "_INBOX_support"),
        None => format!("NATS error: {error}"),
    }
}

/// Adds what to do to the cause of a failed connection, if it does not say that itself.
pub(crate) fn with_remedy(cause: String) -> String {
    match cause.ends_with("(connection refused)") {
        true => format!("{cause}: is it running? NATS_URL or --nats-url names another"),
        false => cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_remedy() {
        let text = denied(
            "nats: permissions violation: Permissions Violation for Subscription to \"_INBOX.x.*\"",
        );
        assert!(text.contains("_INBOX.x.*: set NATS_INBOX_PREFIX"), "{text}");
        assert_eq!(denied("other"), "NATS error: other");
        let refused = "NATS at nats:1 is unreachable (connection refused)".to_owned();
        assert!(with_remedy(refused).contains("NATS_URL or --nats-url"));
        assert_eq!(with_remedy("other".to_owned()), "other");
    }
}
