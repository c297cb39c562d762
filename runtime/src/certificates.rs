use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    sign::CertifiedKey,
};

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
    /// The key does not match the certificate, or rustls does not support their algorithm.
    #[error("certificate and private key cannot be used together: {0}")]
    KeyMismatch(#[from] rustls::Error),
}

/// Why a file cannot be read as PEM. The library's own error repeats lines of the file, which may be of a private key.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// It cannot be read at all.
    #[error("{0}")]
    Io(#[from] io::Error),
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
    /// It has no section of the kind.
    #[error("it has no section of the expected kind")]
    NoSection,
    /// A section is larger than what is read.
    #[error("a section is too large")]
    TooLarge,
}

impl From<pem::Error> for PemError {
    fn from(error: pem::Error) -> Self {
        match error {
            pem::Error::Io(error) => Self::Io(error),
            pem::Error::MissingSectionEnd { .. } => Self::MissingEnd,
            pem::Error::IllegalSectionStart { .. } => Self::MalformedBegin,
            pem::Error::Base64Decode(_) => Self::Base64,
            pem::Error::SectionTooLarge => Self::TooLarge,
            _ => Self::NoSection,
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
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}

/// The certificate authorities in the PEM file `ca`.
pub(crate) fn root_store(ca: &Path) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots
            .add(certificate)
            .map_err(|source| CertificateError::NotAuthority {
                file: ca.to_owned(),
                source,
            })?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(file))?;
    if chain.is_empty() {
        return Err(CertificateError::Empty {
            file: file.to_owned(),
        });
    }
    Ok(chain)
}

fn unreadable(file: &Path) -> impl FnOnce(pem::Error) -> CertificateError {
    let file = file.to_owned();
    move |error| CertificateError::Unreadable {
        file,
        source: error.into(),
    }
}
