use std::{path::PathBuf, sync::Arc};

use clap::Args;
use importguard_files::{LastGood, Watch};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

use crate::reload::Reloads;

/// The setting that stands for both in logs and metrics.
const SETTING: &str = "IMPORTGUARD_TLS_CERT_FILE";

/// The public listener's certificate.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS on the public listener")]
pub struct TlsSettings {
    /// A PEM file with the certificate and those that lead to its root; with it the public listener speaks TLS only. Read again
    /// when it changes, as a mounted Secret does
    #[arg(
        long,
        env = "IMPORTGUARD_TLS_CERT_FILE",
        value_name = "FILE",
        requires = "tls_key_file"
    )]
    pub tls_cert_file: Option<PathBuf>,

    /// A PEM file with the certificate's private key
    #[arg(
        long,
        env = "IMPORTGUARD_TLS_KEY_FILE",
        value_name = "FILE",
        requires = "tls_cert_file"
    )]
    pub tls_key_file: Option<PathBuf>,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificate {
    /// A file cannot be read as PEM.
    #[error("{}: {source}", file.display())]
    Unreadable {
        /// Which one.
        file: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate", file.display())]
    Empty {
        /// Which one.
        file: PathBuf,
    },
    /// The key and the certificate are no pair, or rustls does not know their kind.
    #[error("the certificate and the key cannot be used together: {0}")]
    NoPair(#[from] rustls::Error),
}

/// What accepts TLS connections, if the settings name a certificate. `reloads` reads it again when it changes.
pub(crate) fn acceptor(
    settings: &TlsSettings,
    reloads: &mut Reloads,
) -> Result<Option<TlsAcceptor>, InvalidCertificate> {
    let (Some(cert), Some(key)) = (&settings.tls_cert_file, &settings.tls_key_file) else {
        return Ok(None);
    };
    let provider = Arc::new(ring::default_provider());
    let read = {
        let (cert, key, provider) = (cert.clone(), key.clone(), Arc::clone(&provider));
        move || certified_key(&cert, &key, &provider)
    };
    let watch = Watch::start(&[cert.clone(), key.clone()], read)?;
    let resolver = Resolver(watch.last_good());
    reloads.add(SETTING, watch);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn certified_key(
    cert: &PathBuf,
    key: &PathBuf,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, InvalidCertificate> {
    let unreadable = |file: &PathBuf| {
        let file = file.clone();
        move |source| InvalidCertificate::Unreadable { file, source }
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(unreadable(cert))?;
    if chain.is_empty() {
        return Err(InvalidCertificate::Empty { file: cert.clone() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    Ok(CertifiedKey::from_der(chain, key, provider)?)
}

/// Each handshake is made with the certificate that holds then.
#[derive(Debug)]
struct Resolver(LastGood<CertifiedKey>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load())
    }
}
