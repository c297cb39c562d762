use std::path::PathBuf;

use importguard_runtime::{
    CertificateError, FileWatches, NamedFile, Tls, TlsFiles,
    security::{CLIENT_CERTIFICATES, DECIDER_TLS},
};

use crate::{Settings, settings::TlsSettings};

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
    let named = |setting, path: &PathBuf| NamedFile {
        setting,
        path: path.clone(),
    };
    let client_ca = settings.decider_tls_client_ca_file.as_ref();
    let files = TlsFiles {
        cert: named("IMPORTGUARD_DECIDER_TLS_CERT_FILE", cert),
        key: key.clone(),
        client_ca: client_ca.map(|ca| named("IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE", ca)),
        client_names: settings.decider_tls_client_names.clone(),
        alpn: &[b"h2"],
    };
    Ok(Some(Tls {
        config: files.watch(watches).await?,
        allow_plaintext: false,
    }))
}

impl Settings {
    /// The security measures of a decider with these settings, for [`security::log`](importguard_runtime::security::log).
    pub fn security(&self) -> Vec<(&'static str, String)> {
        let tls = &self.grpc.tls;
        let is_on = tls.decider_tls_cert_file.is_some();
        let on = if is_on { "on" } else { "off" };
        let certificates = match (
            &tls.decider_tls_client_ca_file,
            tls.decider_tls_client_names.len(),
        ) {
            (None, _) => "not required".to_owned(),
            (Some(_), 0) => "required (mutual TLS)".to_owned(),
            (Some(_), names) => format!("required (mutual TLS), with one of {names} names"),
        };
        vec![
            (DECIDER_TLS, on.to_owned()),
            (CLIENT_CERTIFICATES, certificates),
        ]
    }
}
