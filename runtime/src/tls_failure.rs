//! Why a TLS handshake failed, in an operator's words.

use std::{error::Error, io};

use heck::ToSnakeCase;
use rustls::{AlertDescription, CertificateError, Error as TlsError};

use crate::rfc3339;

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFailure {
    /// The peer does not accept our certificate, or requires one. With its alert in the specification's words: `unknown ca`.
    Rejected(String),
    /// The peer's certificate is not accepted; a predicate such as `has expired (on 2026-11-28T00:00:00Z)`.
    Invalid(String),
    /// A CA that is not in our file issued the peer's certificate.
    UnknownIssuer,
    /// The peer has no certificate.
    NoCertificate,
    /// The peer does not speak TLS.
    NoTls,
    /// Another alert of the peer, or another error.
    Other(String),
}

impl TlsFailure {
    /// What `error` says about TLS; `None` if it is about something else, such as a connection that was refused.
    pub fn find(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<TlsError>() {
                return Some(Self::of(error));
            }
            // An I/O error names its cause's source as its source, not the cause. It may hold another one.
            let inner = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref);
            next = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }

    fn of(error: &TlsError) -> Self {
        match error {
            TlsError::AlertReceived(alert) if is_about_certificate(*alert) => {
                Self::Rejected(words(*alert))
            }
            TlsError::AlertReceived(alert) => {
                Self::Other(format!("the peer reports: {}", words(*alert)))
            }
            // The latter: a CA of the same name, but with another key, did.
            TlsError::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            ) => Self::UnknownIssuer,
            TlsError::InvalidCertificate(defect) => Self::Invalid(predicate(defect)),
            TlsError::NoCertificatesPresented => Self::NoCertificate,
            TlsError::InvalidMessage(_) => Self::NoTls,
            other => Self::Other(other.to_string()),
        }
    }
}

/// Whether the peer says with it that it does not like our certificate, or the lack of one.
fn is_about_certificate(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::NoCertificate
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
            // What rustls and others send where a CA of the same name, but with another key, issued it.
            | AlertDescription::DecryptError
    )
}

/// An alert in the words of the specification, such as `unknown ca` and `bad certificate`.
fn words(alert: AlertDescription) -> String {
    format!("{alert:?}").to_snake_case().replace('_', " ")
}

/// What is wrong with a certificate, without what changes at each attempt.
fn predicate(defect: &CertificateError) -> String {
    match defect {
        CertificateError::Expired => "has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("has expired (on {})", rfc3339(not_after.as_secs()))
        }
        CertificateError::NotValidYet => "is not valid yet".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("is not valid before {}", rfc3339(not_before.as_secs()))
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "is for {}, not for {}",
            match presented.as_slice() {
                [] => "no name".to_owned(),
                names => {
                    let names: Vec<_> = names.iter().map(|name| plain(name)).collect();
                    names.join(", ")
                }
            },
            expected.to_str()
        ),
        CertificateError::Revoked => "was revoked".to_owned(),
        other => format!("is not accepted: {other}"),
    }
}

/// The name in rustls's `DnsName("other")` and `IpAddress(127.0.0.1)`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').map(|(_, inner)| inner);
    let inner = inner.and_then(|inner| inner.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::{ContentType, pki_types::UnixTime};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Outer(#[source] io::Error);

    fn found(error: TlsError) -> Option<TlsFailure> {
        TlsFailure::find(&Outer(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    #[test]
    fn it_is_found_in_an_io_error_in_another_one() {
        let inner = io::Error::new(
            io::ErrorKind::InvalidData,
            TlsError::NoCertificatesPresented,
        );
        let outer = Outer(io::Error::other(inner));
        assert_eq!(TlsFailure::find(&outer), Some(TlsFailure::NoCertificate));
    }

    #[test]
    fn an_alert_about_our_certificate_is_named_in_the_specifications_words() {
        for (alert, expected) in [
            (AlertDescription::UnknownCA, "unknown ca"),
            (AlertDescription::CertificateExpired, "certificate expired"),
            (AlertDescription::BadCertificate, "bad certificate"),
            (
                AlertDescription::CertificateRequired,
                "certificate required",
            ),
        ] {
            let rejected = TlsFailure::Rejected(expected.to_owned());
            assert_eq!(found(TlsError::AlertReceived(alert)), Some(rejected));
        }
        let other = found(TlsError::AlertReceived(AlertDescription::ProtocolVersion));
        let expected = TlsFailure::Other("the peer reports: protocol version".to_owned());
        assert_eq!(other, Some(expected));
    }

    #[test]
    fn a_defect_of_the_peers_certificate_is_a_predicate_with_its_date_or_names() {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_001));
        let expired = CertificateError::ExpiredContext {
            time: now,
            not_after: at,
        };
        let named = CertificateError::NotValidForNameContext {
            expected: "decider".try_into().unwrap(),
            presented: ["DnsName(\"other\")", "IpAddress(127.0.0.1)"]
                .map(str::to_owned)
                .to_vec(),
        };
        for (defect, expected) in [
            (expired, "has expired (on 2023-11-14T22:13:20Z)"),
            (named, "is for other, 127.0.0.1, not for decider"),
        ] {
            let invalid = TlsFailure::Invalid(expected.to_owned());
            assert_eq!(found(TlsError::InvalidCertificate(defect)), Some(invalid));
        }
        // It speaks TLS, as the message could be read.
        let unexpected = found(TlsError::InappropriateMessage {
            expect_types: vec![ContentType::Handshake],
            got_type: ContentType::ApplicationData,
        });
        assert!(matches!(unexpected, Some(TlsFailure::Other(_))));
        let unknown = found(TlsError::InvalidCertificate(
            CertificateError::UnknownIssuer,
        ));
        assert_eq!(unknown, Some(TlsFailure::UnknownIssuer));
    }

    #[test]
    fn an_error_about_something_else_says_nothing_about_tls() {
        let refused = Outer(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(TlsFailure::find(&refused), None);
    }
}
