use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use importguard_files::{InvalidCertificate, LastGood, Reloads, Watch, certified_key, root_store};
use prometheus::Registry;
use rustls::{ServerConfig, crypto::ring, server::WebPkiClientVerifier, sign::SingleCertAndKey};

use crate::settings::TlsSettings;

/// The setting that stands for all of them in logs and metrics.
const SETTING: &str = "IMPORTGUARD_DECIDER_TLS_CERT_FILE";

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The files cannot be used.
    #[error(
        "IMPORTGUARD_DECIDER_TLS_CERT_FILE, IMPORTGUARD_DECIDER_TLS_KEY_FILE, IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE: {0}"
    )]
    Files(#[from] InvalidCertificate),
    /// A metric is registered twice.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// How TLS is spoken, if the settings name a certificate, and what reads the files again when they change.
pub(crate) fn tls(
    settings: &TlsSettings,
    registry: &Registry,
) -> Result<Option<(LastGood<ServerConfig>, Reloads)>, TlsError> {
    let (Some(cert), Some(key)) = (
        &settings.decider_tls_cert_file,
        &settings.decider_tls_key_file,
    ) else {
        return Ok(None);
    };
    let client_ca = &settings.decider_tls_client_ca_file;
    let files: Vec<PathBuf> = [cert, key].into_iter().chain(client_ca).cloned().collect();
    let read = {
        let (cert, key, client_ca) = (cert.clone(), key.clone(), client_ca.clone());
        move || config(&cert, &key, client_ca.as_deref())
    };
    let watch = Watch::start(&files, read)?;
    let config = watch.last_good();
    let mut reloads = Reloads::new(registry)?;
    reloads.add(SETTING, watch);
    Ok(Some((config, reloads)))
}

fn config(
    cert: &Path,
    key: &Path,
    client_ca: Option<&Path>,
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
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
