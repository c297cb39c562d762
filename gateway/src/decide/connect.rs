use std::{io, net::SocketAddr, sync::Arc};

use hyper_util::rt::TokioIo;
use importguard_runtime::{ClientTls, LastGood, TlsFailure};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{io::AsyncBufReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

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
