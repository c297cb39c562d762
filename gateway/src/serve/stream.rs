use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The first byte of every TLS connection: a handshake record. No method begins with it.
const HANDSHAKE: u8 = 22;

/// A connection's bytes, with TLS or without.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    // Boxed: it is a kilobyte large, and a plain stream is not to pay for that.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What came of a TLS handshake.
pub(super) enum Handshake {
    /// It succeeded.
    Done(Stream),
    /// The caller speaks something else.
    NotTls(TcpStream),
    /// It failed, or took too long.
    Failed,
}

impl Stream {
    /// Makes the handshake, once the caller begins it; waits `idle` for that, and `head` for its end.
    pub(super) async fn accept(
        tcp: TcpStream,
        acceptor: &TlsAcceptor,
        head: Duration,
        idle: Duration,
    ) -> Handshake {
        let mut first = [0];
        match timeout_at(Instant::now() + idle, tcp.peek(&mut first)).await {
            Ok(Ok(1)) if first[0] != HANDSHAKE => return Handshake::NotTls(tcp),
            Ok(Ok(1)) => {}
            _ => return Handshake::Failed,
        }
        match timeout_at(Instant::now() + head, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => Handshake::Done(Self::Tls(Box::new(stream))),
            Ok(Err(_)) | Err(_) => Handshake::Failed,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
