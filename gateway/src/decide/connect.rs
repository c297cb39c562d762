use std::{io, net::SocketAddr, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncBufReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{
    tls::Tls,
    urls::{DeciderUrl, uri_of},
};

/// How long a connection may be silent before it is pinged, and the answer may take: a connection to a machine that is gone is
/// given up after both together, where TCP alone would take a quarter of an hour. A frozen decider's is too: what was sent to it
/// meanwhile it need not read when it goes on.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

type Stream = TokioIo<Either<TcpStream, TlsStream<TcpStream>>>;

/// A connection to `address` that is made when it is first used and again when it breaks, each time with the certificates that
/// hold then. Making it, with all handshakes, may take as long as `patience`. Must be called inside a tokio runtime.
pub(super) fn channel(
    address: SocketAddr,
    url: &DeciderUrl,
    tls: Option<&Tls>,
    patience: Duration,
) -> Channel {
    let tls = tls.cloned();
    // tonic has no part in TLS: for its own connector this is a connection without.
    Endpoint::from(uri_of(address))
        .origin(url.uri.clone())
        .connect_timeout(patience)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(service_fn(move |_: Uri| connect(address, tls.clone())))
}

async fn connect(address: SocketAddr, tls: Option<Tls>) -> io::Result<Stream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = match tls {
        None => Either::Left(stream),
        Some(tls) => {
            let connector = TlsConnector::from(tls.config());
            let mut stream = connector.connect(tls.name, stream).await?;
            // Whether the decider believes the certificate that it was shown, TLS 1.3 tells after the handshake: with its first
            // frame, which comes by itself, or with an alert that says why not.
            if stream.fill_buf().await?.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Either::Right(stream)
        }
    };
    Ok(TokioIo::new(stream))
}
