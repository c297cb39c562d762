use importguard_runtime::{CertificateError, FileWatches, Tls, TlsFiles};

use crate::settings::TlsSettings;

/// The TLS configuration, if the settings name a certificate. `watches` reloads its files.
///
/// # Errors
/// If a file cannot be used.
pub(crate) async fn tls(
    settings: &TlsSettings,
    watches: &mut FileWatches,
) -> Result<Option<Tls>, CertificateError> {
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
    Ok(Some(Tls {
        config: files.watch(watches).await?,
        allow_plaintext: false,
        close_on_reload: settings.decider_tls_client_ca_file.is_some(),
    }))
}
