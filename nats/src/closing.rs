use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::Event;

/// Whether the server has reported why it closes the current connection, or the last one if there is none.
#[derive(Debug, Default)]
pub struct ClosingError(AtomicBool);

impl ClosingError {
    /// Notes an event of the client. Must be called for each, in order.
    pub fn note(&self, event: &Event) {
        match event {
            Event::Connected => self.0.store(false, Ordering::Relaxed),
            // nats-server closes the connection after every error but a denied publication or subscription.
            Event::ServerError(error) if !error.to_string().contains("Permissions Violation") => {
                self.0.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// Returns whether it is known: the loss of the connection is no news then.
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use async_nats::ServerError;

    use super::*;

    fn error(text: &str) -> Event {
        Event::ServerError(ServerError::Other(text.to_owned()))
    }

    #[test]
    fn it_is_that_of_the_last_connection_and_no_denial() {
        let closing = ClosingError::default();
        closing.note(&error("Permissions Violation for Publish to \"x\""));
        assert!(!closing.is_known());
        closing.note(&error("User Authentication Expired"));
        closing.note(&Event::Disconnected);
        assert!(closing.is_known());
        closing.note(&Event::Connected);
        assert!(!closing.is_known());
    }
}
