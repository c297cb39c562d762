use http::Uri;
use importguard_runtime::{CertificateError, ClientTls, FileWatches, LastGood, NamedFile};
use rustls::pki_types::{InvalidDnsNameError, ServerName};

use super::{DeciderTlsSettings, DeciderUrls, urls::host_and_port};

const CA_FILE: &str = "IMPORTGUARD_DECIDER_CA_FILE";
const CLIENT_CERT_FILE: &str = "IMPORTGUARD_DECIDER_CLIENT_CERT_FILE";

/// An error in the TLS settings for deciders.
#[derive(Debug, thiserror::Error)]
pub enum DeciderTlsError {
    /// The URL is https, but no CA file is set.
    #[error("IMPORTGUARD_DECIDER_URL is https, but IMPORTGUARD_DECIDER_CA_FILE is not set")]
    NoAuthorities,
    /// The URL is http, but a TLS setting is set.
    #[error("IMPORTGUARD_DECIDER_URL is http, so {0} has no effect; use https:// or unset it")]
    NoTls(&'static str),
    /// The name is not a valid DNS name or IP address.
    #[error(
        "IMPORTGUARD_DECIDER_SERVER_NAME or the host in IMPORTGUARD_DECIDER_URL: {0:?} is not a valid DNS name or IP address"
    )]
    Name(String, #[source] InvalidDnsNameError),
    /// The files cannot be used.
    #[error(
        "IMPORTGUARD_DECIDER_CA_FILE, IMPORTGUARD_DECIDER_CLIENT_CERT_FILE, IMPORTGUARD_DECIDER_CLIENT_KEY_FILE: {0}"
    )]
    Files(#[from] CertificateError),
}

/// The TLS configuration, if the deciders' URLs are https. `watches` reloads its files.
pub(super) async fn watch(
    urls: &DeciderUrls,
    settings: &DeciderTlsSettings,
    watches: &mut FileWatches,
) -> Result<Option<LastGood<ClientTls>>, DeciderTlsError> {
    if !urls.tls() {
        return match set(settings) {
            Some(name) => Err(DeciderTlsError::NoTls(name)),
            None => Ok(None),
        };
    }
    let named = |setting, path| NamedFile { setting, path };
    let ca = settings.decider_ca_file.clone();
    let cert = settings.decider_client_cert_file.clone();
    let key = settings.decider_client_key_file.clone();
    let ca = named(CA_FILE, ca.ok_or(DeciderTlsError::NoAuthorities)?);
    let identity = cert.map(|cert| named(CLIENT_CERT_FILE, cert)).zip(key);
    Ok(ClientTls::watch(Some(ca), identity, &[b"h2"], watches).await?)
}

/// The name that the certificates of the deciders at `url` must contain.
pub(super) fn server_name(
    settings: &DeciderTlsSettings,
    url: &Uri,
) -> Result<ServerName<'static>, DeciderTlsError> {
    let host = host_and_port(url).0;
    let name = settings
        .decider_server_name
        .as_deref()
        .unwrap_or(host)
        .to_owned();
    ServerName::try_from(name.clone()).map_err(|error| DeciderTlsError::Name(name, error))
}

/// A setting that is set although it only applies to TLS.
fn set(settings: &DeciderTlsSettings) -> Option<&'static str> {
    let (cert, name) = (
        &settings.decider_client_cert_file,
        &settings.decider_server_name,
    );
    let ca = settings.decider_ca_file.as_ref().map(|_| CA_FILE);
    ca.or(cert.as_ref().map(|_| CLIENT_CERT_FILE))
        .or(name.as_ref().map(|_| "IMPORTGUARD_DECIDER_SERVER_NAME"))
}
