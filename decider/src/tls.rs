use importguard_files::{InvalidCertificate, Reloads};
use importguard_runtime::{Tls, TlsFiles};
use prometheus_client::registry::Registry;

use crate::settings::TlsSettings;

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The files cannot be used.
    #[error(
        "IMPORTGUARD_DECIDER_TLS_CERT_FILE, IMPORTGUARD_DECIDER_TLS_KEY_FILE, IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE: {0}"
    )]
    Files(#[from] InvalidCertificate),
}

/// How TLS is spoken, if the settings name a certificate, and what reads the files again when they change.
pub(crate) fn tls(
    settings: &TlsSettings,
    registry: &mut Registry,
) -> Result<Option<(Tls, Reloads)>, TlsError> {
    let (Some(cert), Some(key)) = (
        &settings.decider_tls_cert_file,
        &settings.decider_tls_key_file,
    ) else {
        return Ok(None);
    };
    let files = TlsFiles {
        setting: "IMPORTGUARD_DECIDER_TLS_CERT_FILE",
        cert,
        key,
        client_ca: settings.decider_tls_client_ca_file.as_deref(),
        client_names: &settings.decider_tls_client_names,
        alpn: &[b"h2"],
    };
    let mut reloads = Reloads::new(registry);
    let tls = Tls {
        config: files.watch(&mut reloads)?,
        yields_plaintext: false,
        ends_earlier: settings.decider_tls_client_ca_file.is_some(),
    };
    Ok(Some((tls, reloads)))
}
