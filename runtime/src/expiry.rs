//! Whose certificates the settings name, and when they expire: for log, metrics and `/readyz`.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How many subjects of a file are named.
const MAX_NAMED: usize = 3;

/// The certificates in the file of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFile {
    pub(crate) setting: &'static str,
    /// The subjects, in file order; of a chain that of its first certificate only, which is the process's own.
    subjects: Vec<String>,
    /// In seconds since 1970. Of a chain, when its first certificate to expire does: it is then rejected as a whole. Of CA
    /// certificates, when the last of them does: while a CA is replaced, the file has both.
    expires: i64,
}

impl CertificateFile {
    /// A certificate with its intermediates. None if the first cannot be parsed.
    pub(crate) fn chain(setting: &'static str, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let (subjects, expiries) = parse(chain);
        Some(Self {
            setting,
            expires: expiries.min()?,
            subjects: subjects.into_iter().take(1).collect(),
        })
    }

    /// CA certificates. None if none can be parsed.
    pub(crate) fn authorities(setting: &'static str, all: &[CertificateDer<'_>]) -> Option<Self> {
        let (subjects, expiries) = parse(all);
        Some(Self {
            setting,
            expires: expiries.max()?,
            subjects,
        })
    }

    /// When it expires, in seconds since 1970.
    pub(crate) fn expires(&self) -> i64 {
        self.expires
    }

    /// When it expires, as in RFC 3339.
    pub(crate) fn expiry(&self) -> String {
        // A certificate may expire in 9999, the last year of RFC 3339; one that did before 1970 has expired anyway.
        let seconds = u64::try_from(self.expires).unwrap_or(0);
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        humantime::format_rfc3339_seconds(time.unwrap_or(UNIX_EPOCH)).to_string()
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

    /// Whether it is no longer accepted.
    pub(crate) fn has_expired(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = i64::try_from(now.unwrap_or_default().as_secs());
        now.is_ok_and(|now| now > self.expires)
    }

    /// For `/readyz`.
    pub(crate) fn describe(&self) -> Value {
        json!({ "setting": self.setting, "subject": self.subject(), "expires": self.expiry() })
    }
}

impl fmt::Display for CertificateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.has_expired() {
            "expired"
        } else {
            "expires"
        };
        write!(f, "{}, {verb} {}", self.subject(), self.expiry())
    }
}

/// The subjects, and when they expire. Those that cannot be parsed are left out: what uses them reports that.
fn parse<'c>(
    certificates: &'c [CertificateDer<'_>],
) -> (Vec<String>, impl Iterator<Item = i64> + 'c) {
    let parsed = || {
        let parsed = certificates
            .iter()
            .map(|certificate| X509Certificate::from_der(certificate.as_ref()));
        parsed.filter_map(|parsed| parsed.ok().map(|(_, certificate)| certificate))
    };
    let subjects = parsed().map(|certificate| subject(&certificate)).collect();
    let expiries = parsed().map(|certificate| certificate.validity().not_after.timestamp());
    (subjects, expiries)
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
