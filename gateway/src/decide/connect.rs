use std::{io, net::SocketAddr};

use hyper_util::rt::TokioIo;
use importguard_runtime::LastGood;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{io::AsyncBufReadExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

/// How TLS is spoken: with the files that are good when a connection is made, and the name that the decider's certificate must hold.
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
    // Whether the decider believes the certificate that it was shown, TLS 1.3 tells after the handshake: with its first frame,
    // which comes by itself, or with an alert that says why not.
    if stream.fill_buf().await?.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(TokioIo::new(Either::Right(stream)))
}
