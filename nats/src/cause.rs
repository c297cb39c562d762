//! Converts the NATS client's connection errors to messages that tell an operator the cause and the remedy.

use std::collections::HashMap;

use async_nats::Server;
use importguard_runtime::rfc3339;
use parking_lot::Mutex;

/// Describes failed connection attempts.
#[derive(Debug)]
pub(super) struct ConnectFailures {
    /// Whether TLS is required.
    pub(super) tls: bool,
    /// Whether there is a client certificate.
    pub(super) certificate: bool,
    /// The number of failed attempts to connect to each server, as of the last check.
    pub(super) seen: Mutex<HashMap<String, usize>>,
}

impl ConnectFailures {
    /// Describes the attempts that failed since the last call on one line; `None` if none failed. The errors come from the NATS client's
    /// server pool, which has the text of each server's last error; its events have only the kind of the last error.
    pub(super) fn new_ones(&self, pool: &[Server]) -> Option<String> {
        let mut seen = self.seen.lock();
        let mut lines: Vec<String> = Vec::new();
        for server in pool {
            let name = format!("{}:{}", server.addr.host(), server.addr.port());
            let before = seen.insert(name.clone(), server.failed_attempts);
            if server.failed_attempts > before.unwrap_or(0)
                && let Some(error) = &server.last_error
            {
                lines.push(self.describe(&name, error));
            }
        }
        (!lines.is_empty()).then(|| lines.join("; "))
    }

    /// Describes `error`, as reported by the NATS client for the server or servers `name`, on one line.
    pub(super) fn describe(&self, name: &str, error: &str) -> String {
        let (kind, cause) = error.split_once(": ").unwrap_or((error, ""));
        let lower = error.to_lowercase();
        if let Some(certificate) = cause.strip_prefix("invalid peer certificate: ") {
            return format!("the certificate of NATS at {name} {}", defect(certificate));
        }
        if let Some(alert) = cause.strip_prefix("received fatal alert: ") {
            return self.alert(name, alert);
        }
        if lower.contains("authorization violation") {
            return format!(
                "NATS at {name} rejected the credentials (authorization violation); check NATS_URL, NATS_USER, NATS_PASSWORD, NATS_TOKEN or NATS_CREDS, whichever is set"
            );
        }
        if cause.starts_with("received corrupt message") {
            return format!(
                "NATS at {name} offers no TLS, so it was sent no credentials: enable TLS there, or use nats:// without NATS_CA and NATS_CERT"
            );
        }
        // Omits the library's error, which may repeat lines of a file.
        if cause.starts_with("could not load platform certs") {
            return "the system's CA certificates cannot be read; check SSL_CERT_FILE and SSL_CERT_DIR"
                .to_owned();
        }
        if cause == "expected INFO, got nothing" {
            return format!(
                "NATS at {name} closed the connection before it greeted: it is a proxy without a server behind it, or has `handshake_first: true`, which importguard does not support; set `handshake_first: auto`"
            );
        }
        if lower.contains("connection refused") {
            return format!("NATS at {name} is unreachable (connection refused)");
        }
        match kind {
            "timed out" => format!("NATS at {name} does not respond (timed out)"),
            "DNS error" => format!("cannot resolve the host name of NATS at {name}"),
            _ if self.tls && is_cut(&lower) => format!(
                "NATS at {name} closed the connection during or after the TLS handshake ({cause}); {}",
                self.certificate_hint()
            ),
            "IO error" if !cause.is_empty() => format!("cannot connect to NATS at {name}: {cause}"),
            _ => format!("cannot connect to NATS at {name}: {error}"),
        }
    }

    fn alert(&self, name: &str, alert: &str) -> String {
        match alert {
            "CertificateRequired"
            | "BadCertificate"
            | "UnknownCA"
            | "CertificateUnknown"
            | "CertificateExpired"
            | "CertificateRevoked"
            | "UnsupportedCertificate"
            | "AccessDenied"
            | "HandshakeFailure" => {
                let what = if self.certificate {
                    "rejected the client certificate"
                } else {
                    "requires a client certificate"
                };
                format!(
                    "NATS at {name} {what} (TLS alert {alert}); {}",
                    self.certificate_hint()
                )
            }
            _ => format!("NATS at {name} ended the TLS handshake (TLS alert {alert})"),
        }
    }

    fn certificate_hint(&self) -> &'static str {
        if self.certificate {
            "check that NATS_CERT is valid and that the server trusts its CA"
        } else {
            "set NATS_CERT and NATS_KEY if it requires a client certificate"
        }
    }
}

fn is_cut(error: &str) -> bool {
    ["broken pipe", "connection reset", "unexpected end", "eof"]
        .iter()
        .any(|text| error.contains(text))
}

/// Describes what is wrong with a certificate according to rustls, without details that differ between attempts.
fn defect(error: &str) -> String {
    if error.starts_with("UnknownIssuer") {
        "is not trusted: unknown issuer; set NATS_CA to the CA that issued it".to_owned()
    } else if error.starts_with("certificate expired") || error.starts_with("Expired") {
        format!("has expired{}", since("on", "not valid after ", error))
    } else if error.starts_with("certificate not valid yet") || error.starts_with("NotValidYet") {
        format!(
            "is not valid yet{}",
            since("before", "not valid before ", error)
        )
    } else if error.starts_with("certificate not valid for name") {
        format!(
            "is for another name: {error}; use that name in NATS_URL, or issue one for this name"
        )
    } else if error.starts_with("BadSignature") {
        "is not trusted: a CA of the same name as in NATS_CA, but with another key, issued it; set NATS_CA to that CA".to_owned()
    } else if error.contains("CaUsedAsEndEntity") {
        "is not trusted: it is a CA certificate; issue one for the server with that CA".to_owned()
    } else {
        format!("is not trusted: {error}")
    }
}

/// Formats the Unix time that follows `mark` in `error`, preceded by `word`. Empty if there is none.
fn since(word: &str, mark: &str, error: &str) -> String {
    let digits = error.split_once(mark).map(|(_, rest)| rest);
    let seconds = digits.and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
    seconds.map_or_else(String::new, |seconds| {
        format!(" ({word} {})", rfc3339(seconds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(tls: bool, certificate: bool) -> ConnectFailures {
        ConnectFailures {
            tls,
            certificate,
            seen: Mutex::default(),
        }
    }

    #[test]
    fn each_cause_is_told_with_its_remedy() {
        for (error, parts) in [
            (
                "IO error: invalid peer certificate: UnknownIssuer",
                ["nats:1 is not trusted: unknown issuer", "NATS_CA"],
            ),
            (
                "IO error: invalid peer certificate: certificate expired: verification time 1764000000 (UNIX), but certificate is not valid after 1700000000 (64000000 seconds ago)",
                ["has expired", "2023-11-14T22:13:20Z"],
            ),
            (
                "IO error: invalid peer certificate: certificate not valid yet: verification time 1 (UNIX), but certificate is not valid before 1700000000 (1 seconds in future)",
                ["is not valid yet", "2023-11-14T22:13:20Z"],
            ),
            (
                "IO error: received fatal alert: CertificateRequired",
                ["requires a client certificate", "NATS_CERT"],
            ),
            (
                "IO error: received corrupt message of type InvalidContentType",
                ["offers no TLS", "no credentials"],
            ),
            (
                "IO error: Connection refused (os error 111)",
                ["is unreachable", "connection refused"],
            ),
            ("timed out", ["does not respond", "timed out"]),
            (
                "authorization violation: nats: authorization violation",
                ["rejected the credentials", "NATS_PASSWORD"],
            ),
            (
                "DNS error: failed to lookup address information",
                ["cannot resolve the host name", "nats:1"],
            ),
            (
                "TLS error: could not load platform certs: 77, 73, 71",
                ["SSL_CERT_FILE", "CA certificates"],
            ),
            (
                "IO error: Connection reset by peer (os error 104)",
                ["after the TLS handshake", "NATS_CERT and NATS_KEY"],
            ),
            (
                "IO error: expected INFO, got nothing",
                ["nats:1 closed the connection", "handshake_first: auto"],
            ),
            (
                "IO error: No route to host (os error 113)",
                ["cannot connect to NATS at nats:1", "No route"],
            ),
        ] {
            let line = failures(true, false).describe("nats:1", error);
            assert!(parts.iter().all(|part| line.contains(part)), "{line}");
            assert!(!line.contains("77"), "{line}");
        }
        let rejected = "IO error: received fatal alert: BadCertificate";
        let line = failures(true, true).describe("nats:1", rejected);
        assert!(line.contains("rejected the client certificate"), "{line}");
    }

    #[test]
    fn each_failed_attempt_is_told_once_for_each_server() {
        let server = |port: u16, failed_attempts, error: Option<&str>| Server {
            addr: format!("nats://nats:{port}").parse().unwrap(),
            failed_attempts,
            did_connect: false,
            is_discovered: false,
            last_error: error.map(str::to_owned),
        };
        let failures = failures(false, false);
        assert_eq!(failures.new_ones(&[server(1, 0, None)]), None);
        let pool = [
            server(1, 1, Some("timed out")),
            server(2, 1, Some("IO error: Connection refused (os error 111)")),
        ];
        let line = failures.new_ones(&pool).unwrap();
        assert_eq!(
            line,
            "NATS at nats:1 does not respond (timed out); NATS at nats:2 is unreachable (connection refused)"
        );
        assert_eq!(failures.new_ones(&pool), None);
        let again = [pool[0].clone(), server(2, 2, Some("timed out"))];
        let line = failures.new_ones(&again).unwrap();
        assert_eq!(line, "NATS at nats:2 does not respond (timed out)");
        // The client was connected in between.
        assert_eq!(failures.new_ones(&[server(2, 0, None)]), None);
        assert!(failures.new_ones(&pool[1..]).is_some());
    }

    #[test]
    fn an_expired_certificate_is_told_in_the_same_words_at_each_attempt() {
        let at = |time: u64| {
            let error = format!(
                "certificate expired: verification time {time} (UNIX), but certificate is not valid after 1700000000 ({} seconds ago)",
                time - 1_700_000_000
            );
            defect(&error)
        };
        assert_eq!(at(1_764_000_000), at(1_764_000_001));
    }
}
