//! What NATS's errors mean, and what to do.

use super::printable;

/// Describes a permission violation, such as `Permissions Violation for Publish to "$JS.API.STREAM.INFO.X"`, with its remedy; `None` for
/// other errors. `inbox` is an example of a prefix of responses.
pub(crate) fn forbidden(error: &str, inbox: &str) -> Option<String> {
    let (_, denied) = error.split_once("Permissions Violation for ")?;
    let subject = printable(denied.split('"').nth(1).unwrap_or(denied));
    Some(match denied.starts_with("Subscription") {
        true => format!(
            "NATS does not let this user subscribe to {subject}: set NATS_INBOX_PREFIX to the prefix that its permissions have, such as {inbox}"
        ),
        false => format!(
            "NATS does not let this user publish to {subject}, which this command needs (deploy/nats/nats-server.conf has a user who may)"
        ),
    })
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
        for (denied, expected) in [
            (
                "Subscription to \"_INBOX.x.*\"",
                "_INBOX.x.*: set NATS_INBOX_PREFIX",
            ),
            ("Publish to \"$JS.API.X\"", "publish to $JS.API.X, which"),
        ] {
            let error = format!("nats: permissions violation: Permissions Violation for {denied}");
            let text = forbidden(&error, "_INBOX_support").unwrap();
            assert!(text.contains(expected), "{text}");
        }
        assert_eq!(forbidden("other", "_INBOX_support"), None);
        let refused = "NATS at nats:1 is unreachable (connection refused)".to_owned();
        assert!(with_remedy(refused).contains("NATS_URL or --nats-url"));
        assert_eq!(with_remedy("other".to_owned()), "other");
    }
}
