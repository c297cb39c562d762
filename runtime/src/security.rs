//! The log line on a process's security, as its settings make it.

use std::fmt;

use tracing::info;

/// What protects a process, and what it lets pass. A line says all of it at the start, so that a setting that is missing or misspelt
/// in another place shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    name: &'static str,
    value: String,
}

impl Security {
    /// Adds a part, such as the listener's TLS.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        self.parts.push(Part { name, value });
        self
    }

    /// Leaves out the part `name`, which this process does not have.
    #[must_use]
    pub fn without(mut self, name: &'static str) -> Self {
        self.parts.retain(|part| part.name != name);
        self
    }

    /// Logs the line of the process `name`.
    pub fn log(&self, name: &str) {
        let value = |name: &str| {
            let part = self.parts.iter().find(|part| part.name == name);
            part.map(|part| part.value.as_str())
        };
        info!(
            callback_tls = value(CALLBACK_TLS),
            authentication = value(AUTHENTICATION),
            decider_link = value(DECIDER_LINK),
            nats = value(NATS),
            pseudonyms = value(PSEUDONYMS),
            allowing_fallbacks = value(ALLOWING_FALLBACKS),
            decider_tls = value(DECIDER_TLS),
            client_certificates = value(CLIENT_CERTIFICATES),
            "security of {name}: {self}"
        );
    }
}

/// TLS on the listener for callbacks.
pub const CALLBACK_TLS: &str = "TLS for callbacks";
/// How callers authenticate.
pub const AUTHENTICATION: &str = "authentication of callers";
/// How deciders are called.
pub const DECIDER_LINK: &str = "connection to deciders";
/// How NATS is connected to.
pub const NATS: &str = "connection to NATS";
/// Whether events have pseudonyms.
pub const PSEUDONYMS: &str = "pseudonyms in events";
/// The causes for which a fallback allows imports.
pub const ALLOWING_FALLBACKS: &str = "fallbacks that allow";
/// TLS on the decider's listener.
pub const DECIDER_TLS: &str = "TLS for gateways";
/// Whether gateways need a certificate.
pub const CLIENT_CERTIFICATES: &str = "client certificates of gateways";

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Part { name, value }) in self.parts.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{name}: {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_told_in_order() {
        let gateway = Security::default()
            .with(CALLBACK_TLS, "off")
            .with(DECIDER_LINK, "mutual TLS")
            .with(PSEUDONYMS, "on");
        assert_eq!(
            gateway.without(DECIDER_LINK).to_string(),
            "TLS for callbacks: off; pseudonyms in events: on"
        );
    }
}
