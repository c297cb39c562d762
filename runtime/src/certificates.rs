use std::path::{Path, PathBuf};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};

use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::{NamedFile, SecretError, SecretFile, expiry::CertificateFile};

/// Certificates, or a private key, that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read as PEM.
    #[error("{}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: PemError,
    },
    /// A file contains no certificate.
    #[error("{} contains no certificate", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
    /// A certificate in a file of authorities is not one of an authority.
    #[error("{} contains a certificate that is not a valid CA certificate: {source}", file.display())]
    NotAuthority {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The private key belongs to another certificate.
    #[error("{} does not have the private key of the certificate in {}", key.display(), cert.display())]
    KeyMismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The certificate is of X.509 version 1, which `openssl x509 -req` issues without extensions.
    #[error(
        "{} has an X.509 version 1 certificate, which TLS clients reject: issue one of version 3, with the names that it is for as subjectAltName", .0.display()
    )]
    Version1(PathBuf),
    /// The private key or the certificate is damaged, or rustls does not support their algorithm.
    // Without rustls's error, which is about the content of a file with a private key.
    #[error(
        "{} and {} cannot be used: the key or the certificate is damaged or has an unsupported algorithm; use ECDSA (P-256, P-384), Ed25519 or RSA from 2048 bits", cert.display(), key.display()
    )]
    Unsupported {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// A new certificate is not valid now, and the active one is.
    #[error(
        "{setting} has a new certificate that is not valid now ({certificate}), and the active one is: replace it, check this machine's clock, or use it all the same with SIGHUP"
    )]
    NotCurrent {
        /// The setting of its file.
        setting: &'static str,
        /// Subject and date.
        certificate: String,
    },
    /// The system trusts no certificate authorities, or their files cannot be read.
    #[error(
        "the system has no usable CA certificates: install them, or name a file in SSL_CERT_FILE"
    )]
    NoSystemRoots,
    /// rustls refuses the configuration.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a file cannot be read as PEM. The library's own error repeats lines of the file, which may be of a private key.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// It cannot be read at all.
    #[error(transparent)]
    Unreadable(#[from] SecretError),
    /// A section has no end.
    #[error(
        "a section does not end: its line -----END …----- is missing or differs from its beginning"
    )]
    MissingEnd,
    /// A section has no beginning.
    #[error("a line -----BEGIN …----- is malformed; it has to be a line of its own")]
    MalformedBegin,
    /// What is between them is no base64.
    #[error("a section is not base64")]
    Base64,
    /// It has no private key.
    #[error("it has no private key")]
    NoPrivateKey,
    /// It is in binary format.
    #[error(
        "it is in DER format, not PEM; convert it with `openssl {command} -inform der -in DER -out PEM`"
    )]
    Der {
        /// The command of openssl for its content.
        command: &'static str,
    },
    /// A section is larger than what is read.
    #[error("a section is too large")]
    TooLarge,
    /// It is a private key with a passphrase.
    #[error(
        "the private key is encrypted, which is not supported; decrypt it with `openssl pkey -in ENCRYPTED -out DECRYPTED`"
    )]
    Encrypted,
}

impl From<pem::Error> for PemError {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::MissingSectionEnd { .. } => Self::MissingEnd,
            pem::Error::IllegalSectionStart { .. } => Self::MalformedBegin,
            pem::Error::Base64Decode(_) => Self::Base64,
            pem::Error::SectionTooLarge => Self::TooLarge,
            _ => Self::NoPrivateKey,
        }
    }
}

/// The certificate chain in the PEM file `cert`, with the private key in the PEM file `key`.
pub(crate) fn certified_key(
    cert: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CertificateError> {
    let chain = certificates(cert)?;
    let private = read(key, "pkey", PrivateKeyDer::from_pem_slice)?;
    if chain.first().is_some_and(is_version_1) {
        return Err(CertificateError::Version1(cert.to_owned()));
    }
    CertifiedKey::from_der(chain, private, provider).map_err(|error| {
        let (cert, key) = (cert.to_owned(), key.to_owned());
        match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::KeyMismatch { cert, key },
            _ => CertificateError::Unsupported { cert, key },
        }
    })
}

/// The certificate authorities in the PEM file `ca`, and what there is to know of them.
pub(crate) fn authorities(
    ca: &NamedFile,
) -> Result<(RootCertStore, Option<CertificateFile>), CertificateError> {
    let mut roots = RootCertStore::empty();
    let certificates = certificates(&ca.path)?;
    let file = CertificateFile::authorities(ca.setting, &certificates);
    for certificate in certificates {
        roots
            .add(certificate)
            .map_err(|source| CertificateError::NotAuthority {
                file: ca.path.clone(),
                source,
            })?;
    }
    Ok((roots, file))
}

/// The certificate authorities that the system trusts, or `SSL_CERT_FILE` and `SSL_CERT_DIR` name.
///
/// # Errors
/// If none can be used.
pub fn system_roots() -> Result<RootCertStore, CertificateError> {
    let system = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(system.certs);
    if usable == 0 {
        // The library's errors may repeat lines of a file.
        return Err(CertificateError::NoSystemRoots);
    }
    Ok(roots)
}

fn is_version_1(certificate: &CertificateDer<'_>) -> bool {
    let parsed = X509Certificate::from_der(certificate);
    parsed.is_ok_and(|(_, certificate)| certificate.version() == X509Version::V1)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain: Vec<_> = read(file, "x509", |pem| {
        CertificateDer::pem_slice_iter(pem).collect()
    })?;
    if chain.is_empty() {
        return Err(CertificateError::Empty {
            file: file.to_owned(),
        });
    }
    Ok(chain)
}

/// Reads a file, whose content openssl's `command` is for.
fn read<T>(
    file: &Path,
    command: &'static str,
    parse: impl FnOnce(&[u8]) -> Result<T, pem::Error>,
) -> Result<T, CertificateError> {
    let content = SecretFile::read(file).map_err(PemError::from);
    content
        .and_then(|content| {
            let content = content.expose();
            if is_der(content) {
                return Err(PemError::Der { command });
            }
            parse(content).map_err(|error| match is_encrypted(content) {
                true => PemError::Encrypted,
                false => error.into(),
            })
        })
        .map_err(|source| CertificateError::Unreadable {
            file: file.to_owned(),
            source,
        })
}

/// Whether it is one ASN.1 sequence whose length has two bytes, as certificates and most keys are, or one byte, as small keys are.
fn is_der(content: &[u8]) -> bool {
    matches!(content, [0x30, 0x81 | 0x82, ..])
        || matches!(content, [0x30, length, rest @ ..] if rest.len() == usize::from(*length))
}

/// Whether it has an encrypted private key, as PKCS #8 or in OpenSSL's older format.
fn is_encrypted(pem: &[u8]) -> bool {
    let text = String::from_utf8_lossy(pem);
    text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
        || text.contains("Proc-Type: 4,ENCRYPTED")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::crypto::ring;

    use super::*;

    /// Of `openssl x509 -req` without extensions.
    const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBFjCBvQIUQYBd03PhIaum4CtdNPZGJHrNvtgwCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCdjEwIBcNMjYxMTI5MTg1NDIzWhgPMjEyNjExMDUxODU0MjNaMA0xCzAJ
BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEifmxdKo6lwa1CLdU
0vCbW8KG435Ss/bbvqYQjfzmTEdLLy/3XZ4zGGERg3RZ9kQd9FvoGYb13YqYpodH
36wsXDAKBggqhkjOPQQDAgNIADBFAiEAs9kP6cyW+9XYu1prGfCz0XuwaLnB/cmR
QIuqnDeqNmgCIFvxkrAyVXsXLO15UqmY1p9coW5DaKWuIsTmI5K2Qa2X
-----END CERTIFICATE-----
";

    fn error(cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let (cert_file, key_file) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        fs::write(&cert_file, cert).unwrap();
        fs::write(&key_file, key).unwrap();
        let loaded = certified_key(&cert_file, &key_file, &ring::default_provider());
        loaded.unwrap_err().to_string()
    }

    #[test]
    fn an_encrypted_key_and_a_certificate_of_version_1_are_errors_with_their_remedy() {
        let pkcs8 =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGH\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let older = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nMIGH\n-----END EC PRIVATE KEY-----\n";
        for key in [pkcs8, older] {
            let error = error(VERSION_1, key);
            assert!(
                error.contains("is encrypted") && error.contains("openssl pkey"),
                "{error}"
            );
        }
        let key = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n";
        let error = error(VERSION_1, key);
        assert!(error.contains("version 3"), "{error}");
    }

    #[test]
    fn a_certificate_for_a_key_and_other_formats_are_errors_with_what_is_missing() {
        let text = error(VERSION_1, VERSION_1);
        assert!(text.ends_with("tls.key: it has no private key"), "{text}");
        let der = CertificateDer::from_pem_slice(VERSION_1.as_bytes()).unwrap();
        let text = error(&der, VERSION_1);
        assert!(text.contains("tls.crt: it is in DER format"), "{text}");
        assert!(text.contains("openssl x509 -inform der"), "{text}");
        for key in [&[0x30, 0x82, 1, 0, 2][..], &[0x30, 3, 2, 1, 0]] {
            let text = error(VERSION_1, key);
            assert!(text.contains("openssl pkey -inform der"), "{text}");
        }
    }
}
