//! An accepted connection's bytes, which end where its peer takes too long for what is expected of it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    runtime::Handle as Runtime,
    time::{Instant, Sleep, sleep_until, timeout},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{either::Either, sync::WaitForCancellationFutureOwned};

use crate::Handle;

pub(crate) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// How long what still arrives is read of what nobody wants any more: a socket that is closed on unread bytes resets the connection,
/// and the peer loses the last response. As long as a packet that was lost twice.
pub const LINGER: Duration = Duration::from_secs(3);

/// How much is read at once of what nobody wants.
const DISCARD_BYTES: usize = 16 * 1024;

/// An accepted connection's bytes. Reading or writing fails once the peer has taken too long, or the connection is cancelled.
/// When it is shut down, what the peer still sends is read for a while, so that it gets the last response.
pub struct Connection {
    /// Taken when this is dropped.
    stream: Option<Stream>,
    handle: Handle,
    timer: Pin<Box<Sleep>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Since when the peer has taken nothing of what is to be written.
    write_blocked: Option<Instant>,
    /// Until when what still arrives is read; the connection is shut down.
    lingers: Option<Instant>,
    ended_by_peer: bool,
}

impl Connection {
    pub(crate) fn new(stream: Stream, handle: Handle) -> Self {
        // The first look sets the right time.
        let timer = sleep_until(Instant::now() + handle.timeouts().first_byte);
        Self {
            stream: Some(stream),
            timer: Box::pin(timer),
            cancelled: Box::pin(handle.cancelled()),
            handle,
            write_blocked: None,
            lingers: None,
            ended_by_peer: false,
        }
    }

    /// What the rest of the process knows of this connection.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ready when the connection has to end. The timer is set anew only where it would fire too late, or fired too early: a
    /// peer that is quick never touches tokio's timers.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.cancelled.as_mut().poll(cx).is_ready() {
            self.handle.lose();
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        let blocked = self.write_blocked;
        let blocked = blocked.map(|since| since + self.handle.timeouts().write);
        let due = match self.lingers {
            Some(until) => Some(until),
            None => self.handle.due().into_iter().chain(blocked).min(),
        };
        let Some(due) = due else {
            return Poll::Pending;
        };
        if self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= due {
                self.handle.lose();
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(due);
        }
    }

    /// What a write came to; one that waits is bounded.
    fn written<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = written {
            self.write_blocked = None;
            return Poll::Ready(written.inspect_err(|_| self.handle.lose()));
        }
        self.write_blocked.get_or_insert_with(Instant::now);
        self.poll_overdue(cx).map(Err)
    }
}

/// Where HTTP ended the connection by an error, it was not shut down: that is done now, for the same reason.
impl Drop for Connection {
    fn drop(&mut self) {
        let lost = self.handle.is_lost();
        self.handle.lose();
        let stream = self.stream.take();
        let handle = self.handle.clone();
        if lost || self.ended_by_peer || self.lingers.is_some() {
            return handle.remove();
        }
        let (Some(mut stream), Ok(runtime)) = (stream, Runtime::try_current()) else {
            return handle.remove();
        };
        runtime.spawn(async move {
            let last = async {
                stream.shutdown().await?;
                let mut discarded = vec![0; DISCARD_BYTES];
                while stream.read(&mut discarded).await? > 0 {}
                io::Result::Ok(())
            };
            // The peer is gone by then, or has been for long enough.
            let _ = timeout(LINGER, last).await;
            handle.remove();
        });
    }
}

/// What a stream that was dropped already reads as.
fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Some(stream) = &mut self.stream else {
            return gone();
        };
        if let Poll::Ready(read) = Pin::new(stream).poll_read(cx, buf) {
            if buf.filled().len() > before {
                self.handle.heard();
            } else {
                self.ended_by_peer = true;
            }
            return Poll::Ready(read.inspect_err(|_| self.handle.lose()));
        }
        self.poll_overdue(cx).map(Err)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return gone();
        };
        let written = Pin::new(stream).poll_write(cx, buf);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(stream) = &mut self.stream else {
            return gone();
        };
        let written = Pin::new(stream).poll_write_vectored(cx, bufs);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else {
            return gone();
        };
        let flushed = Pin::new(stream).poll_flush(cx);
        self.written(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingers.is_none() {
            let Some(stream) = &mut self.stream else {
                return gone();
            };
            let shut_down = Pin::new(stream).poll_shutdown(cx);
            ready!(self.written(shut_down, cx))?;
            self.lingers = Some(Instant::now() + LINGER);
        }
        let mut discarded = [0; DISCARD_BYTES];
        while !self.ended_by_peer {
            let Some(stream) = &mut self.stream else {
                return gone();
            };
            let mut buf = ReadBuf::new(&mut discarded);
            match Pin::new(stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => self.ended_by_peer = buf.filled().is_empty(),
                // The peer is gone, or has been for long enough.
                Poll::Ready(Err(_)) => break,
                Poll::Pending => {
                    ready!(self.poll_overdue(cx));
                    break;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Handle;

    fn connect_info(&self) -> Handle {
        self.handle.clone()
    }
}
