//! Connections to deciders, and their TLS.

use std::{io, net::SocketAddr, sync::Arc};

use http::Uri;
use hyper_util::rt::TokioIo;
use importguard_runtime::{
    CertificateError, ClientTls, FileWatches, LastGood, NamedFile, TlsFailure,
};
use rustls::{
    ClientConfig,
    pki_types::{InvalidDnsNameError, ServerName},
};
use tokio::{io::AsyncBufReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::{DeciderTlsSettings, DeciderUrls, settings::host_and_port};

const CA_FILE: &str = "IMPORTGUARD_DECIDER_CA_FILE";
const CLIENT_CERT_FILE: &str = "IMPORTGUARD_DECIDER_CLIENT_CERT_FILE";

/// The TLS configuration at the time of the connection, and the name that the decider's certificate must contain.
pub(super) type Tls = (LastGood<ClientTls>, ServerName<'static>);

/// A connection to the decider at `address`, for tonic's channel. tonic's own connector reports a decider that rejects our
/// certificate as a broken pipe.
pub(super) async fn connect(
    address: SocketAddr,
    tls: Option<Tls>,
) -> io::Result<TokioIo<Either<TcpStream, TlsStream<TcpStream>>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some((config, name)) = tls else {
        return Ok(TokioIo::new(Either::Left(stream)));
    };
    let tls = config.load();
    let connected = handshake(&tls.config, name, stream).await;
    let stream = connected
        .map_err(|error| explain(error, tls.config.client_auth_cert_resolver.has_certs()))?;
    Ok(TokioIo::new(Either::Right(stream)))
}

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

async fn handshake(
    config: &Arc<ClientConfig>,
    name: ServerName<'static>,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(Arc::clone(config));
    let mut stream = connector.connect(name, stream).await?;
    // In TLS 1.3 the decider accepts or rejects our certificate only after the handshake: with its first frame, which it sends
    // unprompted, or with an alert.
    if stream.fill_buf().await?.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection was closed after the TLS handshake",
        ));
    }
    Ok(stream)
}

/// The error with the side that has to be corrected, and its setting.
fn explain(error: io::Error, has_certificate: bool) -> io::Error {
    let Some(failure) = TlsFailure::find(&error) else {
        return error;
    };
    let text = match failure {
        TlsFailure::Rejected(alert) if has_certificate => format!(
            "it rejects our client certificate ({alert}); check IMPORTGUARD_DECIDER_CLIENT_CERT_FILE here and IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE and _CLIENT_NAMES there"
        ),
        TlsFailure::Rejected(alert) => format!(
            "it requires a client certificate ({alert}); set IMPORTGUARD_DECIDER_CLIENT_CERT_FILE and IMPORTGUARD_DECIDER_CLIENT_KEY_FILE"
        ),
        TlsFailure::UnknownIssuer => {
            "its certificate was not issued by a CA in IMPORTGUARD_DECIDER_CA_FILE (unknown issuer)".to_owned()
        }
        TlsFailure::Invalid(defect) => format!(
            "its certificate {defect}; check its IMPORTGUARD_DECIDER_TLS_CERT_FILE, and IMPORTGUARD_DECIDER_SERVER_NAME here"
        ),
        TlsFailure::NoTls => {
            "it does not use TLS; set its IMPORTGUARD_DECIDER_TLS_CERT_FILE, or use http:// in IMPORTGUARD_DECIDER_URL"
                .to_owned()
        }
        // A client requires a certificate of every server.
        TlsFailure::NoCertificate => "it has no certificate".to_owned(),
        TlsFailure::Other(error) => error,
    };
    io::Error::new(error.kind(), format!("TLS handshake failed: {text}"))
}
