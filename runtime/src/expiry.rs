//! Whose certificates the settings name, and when they are valid: for log, metrics and `/readyz`, and to doubt new ones.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::CertificateError;

/// How many subjects of a file are named.
const MAX_NAMED: usize = 3;

/// The certificates in the file of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFile {
    pub(crate) setting: &'static str,
    /// The subjects, in file order; of a chain that of its first certificate only, which is the process's own.
    subjects: Vec<String>,
    /// In seconds since 1970. Of a chain, when the last of its certificates becomes valid; of CA certificates, when the first does.
    begins: i64,
    /// In seconds since 1970. Of a chain, when its first certificate to expire does: it is then rejected as a whole. Of CA
    /// certificates, when the last of them does: while a CA is replaced, the file has both.
    expires: i64,
}

impl CertificateFile {
    /// A certificate with its intermediates. None if the first cannot be parsed.
    pub(crate) fn chain(setting: &'static str, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let all = parse(chain);
        Some(Self {
            setting,
            begins: begins(&all).max()?,
            expires: expiries(&all).min()?,
            subjects: all.iter().map(subject).take(1).collect(),
        })
    }

    /// CA certificates. None if none can be parsed.
    pub(crate) fn authorities(setting: &'static str, all: &[CertificateDer<'_>]) -> Option<Self> {
        let all = parse(all);
        Some(Self {
            setting,
            begins: begins(&all).min()?,
            expires: expiries(&all).max()?,
            subjects: all.iter().map(subject).collect(),
        })
    }

    /// When it expires, in seconds since 1970.
    pub(crate) fn expires(&self) -> i64 {
        self.expires
    }

    /// When it expires, as in RFC 3339.
    pub(crate) fn expiry(&self) -> String {
        rfc3339(self.expires)
    }

    /// The subjects, of which the first ones are named.
    pub(crate) fn subject(&self) -> String {
        let named: Vec<_> = self.subjects.iter().take(MAX_NAMED).cloned().collect();
        let named = named.join("; ");
        match self.subjects.len().saturating_sub(MAX_NAMED) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }

    /// Whether peers accept it now.
    pub(crate) fn is_valid(&self) -> bool {
        (self.begins..=self.expires).contains(&now())
    }

    /// For `/readyz`.
    pub(crate) fn describe(&self) -> Value {
        json!({ "setting": self.setting, "subject": self.subject(), "expires": self.expiry() })
    }
}

impl fmt::Display for CertificateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (subject, now) = (self.subject(), now());
        if now < self.begins {
            return write!(f, "{subject}, not valid before {}", rfc3339(self.begins));
        }
        let verb = if now > self.expires {
            "expired"
        } else {
            "expires"
        };
        write!(f, "{subject}, {verb} {}", self.expiry())
    }
}

/// Why the certificates of `new` are doubtful as successors of those of `active`: peers would reject one of them, and they accept the
/// active one of its setting.
pub(crate) fn doubt(
    active: &[CertificateFile],
    new: &[CertificateFile],
) -> Option<CertificateError> {
    let was_valid = |new: &CertificateFile| {
        let mut active = active.iter();
        active.any(|active| active.setting == new.setting && active.is_valid())
    };
    let invalid = new.iter().find(|new| !new.is_valid() && was_valid(new))?;
    Some(CertificateError::NotCurrent {
        setting: invalid.setting,
        certificate: invalid.to_string(),
    })
}

/// In seconds since 1970.
fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

/// Formats a time in seconds since 1970 as in RFC 3339. One that it cannot express, before 1970 or after 9999, becomes 1970.
pub fn rfc3339(seconds: impl TryInto<u64>) -> String {
    let seconds = seconds.try_into().ok();
    let seconds = seconds.filter(|seconds| *seconds < 253_402_300_800);
    let time = UNIX_EPOCH + Duration::from_secs(seconds.unwrap_or(0));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Those that cannot be parsed are left out: what uses them reports that.
fn parse<'c>(certificates: &'c [CertificateDer<'_>]) -> Vec<X509Certificate<'c>> {
    let parsed = certificates
        .iter()
        .map(|certificate| X509Certificate::from_der(certificate.as_ref()));
    parsed
        .filter_map(|parsed| parsed.ok().map(|(_, certificate)| certificate))
        .collect()
}

fn begins(certificates: &[X509Certificate<'_>]) -> impl Iterator<Item = i64> {
    let validities = certificates
        .iter()
        .map(|certificate| certificate.validity());
    validities.map(|validity| validity.not_before.timestamp())
}

fn expiries(certificates: &[X509Certificate<'_>]) -> impl Iterator<Item = i64> {
    let validities = certificates
        .iter()
        .map(|certificate| certificate.validity());
    validities.map(|validity| validity.not_after.timestamp())
}

/// The subject, or the first name that the certificate is for where that is empty, as many issuers leave it.
fn subject(certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject().to_string();
    if !subject.is_empty() {
        return subject;
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    let name = names.and_then(|names| names.value.general_names.first());
    name.map_or_else(|| "no subject".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: &str = "IMPORTGUARD_TLS_CERT_FILE";

    fn file(setting: &'static str, begins: i64, expires: i64) -> CertificateFile {
        CertificateFile {
            setting,
            subjects: vec!["CN=a".to_owned()],
            begins,
            expires,
        }
    }

    #[test]
    fn a_certificate_that_peers_would_reject_is_no_successor_of_one_that_they_accept() {
        let (past, future) = (1_614_816_000, 3_786_912_000);
        let valid = || file(SETTING, past, future);
        let expired = || file(SETTING, 0, past);
        let early = || file(SETTING, future, i64::MAX);
        for (active, new, reason) in [
            (valid(), valid(), None),
            (
                valid(),
                expired(),
                Some("CN=a, expired 2021-03-04T00:00:00Z"),
            ),
            (
                valid(),
                early(),
                Some("CN=a, not valid before 2090-01-01T00:00:00Z"),
            ),
            (expired(), early(), None),
            (early(), expired(), None),
            (expired(), valid(), None),
            (file("OTHER", past, future), expired(), None),
        ] {
            let doubt = doubt(&[active], &[new]).map(|error| error.to_string());
            let named = |reason: &str| {
                doubt
                    .as_deref()
                    .is_some_and(|doubt| doubt.contains(reason) && doubt.contains(SETTING))
            };
            assert!(
                reason.map_or(doubt.is_none(), named),
                "{reason:?}: {doubt:?}"
            );
        }
    }
}
