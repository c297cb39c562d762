use std::{io, net::SocketAddr, time::Duration};

use http::{
    Uri,
    uri::{Parts, PathAndQuery},
};
use tokio::{io::AsyncBufReadExt, net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use super::{tls::Tls, urls::DeciderUrl};

/// A connection, with TLS or without.
pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// Whom a connection is made to, and how.
#[derive(Debug)]
pub(super) struct Peer {
    address: SocketAddr,
    /// The scheme and authority that calls name.
    origin: Parts,
    tls: Option<Tls>,
    patience: Duration,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("it cannot be connected to: {0}")]
    Io(#[from] io::Error),
    #[error("no connection within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
}

impl Peer {
    /// A decider behind `url` at `address`. Connecting to it, with all handshakes, may take as long as `patience`.
    pub(super) fn new(
        address: SocketAddr,
        url: &DeciderUrl,
        tls: Option<&Tls>,
        patience: Duration,
    ) -> Self {
        Self {
            address,
            origin: url.uri.clone().into_parts(),
            tls: tls.cloned(),
            patience,
        }
    }

    /// The method at `path` as calls to this decider name it.
    pub(super) fn uri(&self, path: Option<PathAndQuery>) -> Uri {
        let mut parts = Parts::default();
        parts.scheme.clone_from(&self.origin.scheme);
        parts.authority.clone_from(&self.origin.authority);
        parts.path_and_query = path;
        // A scheme, an authority and a path are a URI.
        Uri::from_parts(parts).unwrap_or_default()
    }

    /// A new connection, with the certificates that hold now.
    pub(super) async fn connect(&self) -> Result<Stream, ConnectError> {
        match timeout(self.patience, self.open()).await {
            Ok(opened) => Ok(opened?),
            Err(_) => Err(ConnectError::Timeout(self.patience)),
        }
    }

    async fn open(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Either::Left(stream));
        };
        let connector = TlsConnector::from(tls.config());
        let mut stream = connector.connect(tls.name.clone(), stream).await?;
        // Whether the decider believes the certificate that it was shown, TLS 1.3 tells after the handshake: with its first
        // frame, which comes by itself, or with an alert that says why not.
        if stream.fill_buf().await?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Either::Right(stream))
    }
}
