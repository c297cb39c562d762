use std::{path::Path, sync::Arc};

use importguard_files::{InvalidCertificate, LastGood, Reloads, Watch, certified_key, root_store};
use rustls::{ServerConfig, crypto::ring, server::WebPkiClientVerifier, sign::SingleCertAndKey};

/// The files that a listener speaks TLS with.
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    /// The setting that stands for all of them in logs and metrics.
    pub setting: &'static str,
    /// The certificate and those that lead to its root.
    pub cert: &'a Path,
    /// Its private key.
    pub key: &'a Path,
    /// The authorities that vouch for peers; without them peers need no certificate.
    pub client_ca: Option<&'a Path>,
    /// The protocols that are spoken above it, the best first.
    pub alpn: &'static [&'static [u8]],
}

impl TlsFiles<'_> {
    /// Reads them, and has `reloads` read them again when they change.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn watch(
        self,
        reloads: &mut Reloads,
    ) -> Result<LastGood<ServerConfig>, InvalidCertificate> {
        let Self { setting, alpn, .. } = self;
        let (cert, key) = (self.cert.to_owned(), self.key.to_owned());
        let client_ca = self.client_ca.map(Path::to_owned);
        let files: Vec<_> = [&cert, &key]
            .into_iter()
            .chain(&client_ca)
            .cloned()
            .collect();
        let read = move || config(&cert, &key, client_ca.as_deref(), alpn);
        let watch = Watch::start(&files, read)?;
        let config = watch.last_good();
        reloads.add(setting, watch);
        Ok(config)
    }
}

fn config(
    cert: &Path,
    key: &Path,
    client_ca: Option<&Path>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, InvalidCertificate> {
    let provider = Arc::new(ring::default_provider());
    let shown = certified_key(cert, key, &provider)?;
    let verifier = match client_ca {
        None => WebPkiClientVerifier::no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(root_store(ca)?);
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?
        }
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}
