use std::{path::PathBuf, sync::Arc};

use clap::Args;
use importguard_files::{InvalidCertificate, LastGood, Reloads, Watch, certified_key};
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_rustls::TlsAcceptor;

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

/// Each handshake is made with the certificate that holds then.
#[derive(Debug)]
struct Resolver(LastGood<CertifiedKey>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load())
    }
}
