//! The log line on a process's security, as its settings make it.

use tracing::info;

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

/// Logs what protects the process `name`, and what it lets pass: pairs of one of the names above and its value. All of it on one line at
/// the start, so that a setting that is missing or misspelt in another place shows.
pub fn log(name: &str, parts: &[(&str, String)]) {
    let value = |name| {
        let part = parts.iter().find(|(part, _)| *part == name);
        part.map(|(_, value)| value.as_str())
    };
    let line = parts.iter().map(|(name, value)| format!("{name}: {value}"));
    let line: Vec<_> = line.collect();
    info!(
        callback_tls = value(CALLBACK_TLS),
        authentication = value(AUTHENTICATION),
        decider_link = value(DECIDER_LINK),
        nats = value(NATS),
        pseudonyms = value(PSEUDONYMS),
        allowing_fallbacks = value(ALLOWING_FALLBACKS),
        decider_tls = value(DECIDER_TLS),
        client_certificates = value(CLIENT_CERTIFICATES),
        "security of {name}: {}",
        line.join("; ")
    );
}
