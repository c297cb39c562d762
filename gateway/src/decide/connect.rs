use std::{io, net::SocketAddr};

use hyper_util::rt::TokioIo;
use importguard_runtime::LastGood;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{io::AsyncBufReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

/// The TLS configuration at the time of the connection, and the name that the decider's certificate must contain.
pub(super) type Tls = (LastGood<ClientConfig>, ServerName<'static>);

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
    let mut stream = TlsConnector::from(config.load())
        .connect(name, stream)
        .await?;
    // In TLS 1.3 the decider accepts or rejects our certificate only after the handshake: with its first frame, which it sends
    // unprompted, or with an alert.
    if stream.fill_buf().await?.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(TokioIo::new(Either::Right(stream)))
}
