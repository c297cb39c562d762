//! An accepted connection, closed when its peer exceeds a timeout.

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

use crate::{Handle, frames::Frames, take_turn};

pub(crate) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// How long input is still read and discarded after shutdown: closing a socket with unread input resets the connection, and the
/// peer may lose the last response. Covers two retransmissions of a packet.
pub(crate) const LINGER: Duration = Duration::from_secs(3);

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much input is discarded per read.
const DISCARD_BYTES: usize = 16 * 1024;

/// The byte stream of an accepted connection. Reading and writing fail once the peer has exceeded a timeout or the connection is
/// cancelled. After shutdown, input is discarded for three seconds, so that the peer gets the last response.
pub struct Connection {
    /// Taken when this is dropped.
    stream: Option<Stream>,
    handle: Handle,
    timer: Pin<Box<Sleep>>,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Since when writes have been blocked.
    write_blocked: Option<Instant>,
    /// Until when input is discarded, once the connection is shut down.
    linger_until: Option<Instant>,
    ended_by_peer: bool,
    /// How much of HTTP/2's preface has arrived, unless it is complete or something else has.
    preface: Option<usize>,
    /// What follows the preface.
    frames: Option<Frames>,
    /// Before more is read.
    turn: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Connection {
    pub(crate) fn new(stream: Stream, handle: Handle) -> Self {
        // Corrected when it is first polled.
        let timer = sleep_until(Instant::now() + handle.timeouts().first_byte);
        Self {
            stream: Some(stream),
            timer: Box::pin(timer),
            cancelled: Box::pin(handle.cancelled()),
            handle,
            write_blocked: None,
            linger_until: None,
            ended_by_peer: false,
            preface: Some(0),
            frames: None,
            turn: None,
        }
    }

    /// The handle that the rest of the process uses for this connection.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The stream, which is there until this is dropped.
    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        Ok(Pin::new(stream))
    }

    /// Ready when the connection must be closed. The timer is only reset if it would fire too late, or fired too early, so that
    /// fast peers cause no timer operations.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.cancelled.as_mut().poll(cx).is_ready() {
            self.handle.set_broken();
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        let blocked = self.write_blocked;
        let blocked = blocked.map(|since| since + self.handle.timeouts().write);
        let due = match self.linger_until {
            Some(until) => Some(until),
            None => self.handle.deadline().into_iter().chain(blocked).min(),
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
                if self.handle.retire() {
                    return self.poll_overdue(cx);
                }
                self.handle.set_broken();
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.timer.as_mut().reset(due);
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        let frames = self.frames.as_mut();
        let beside_data = frames.map_or(0, |frames| frames.beside_data(bytes));
        if self.handle.received_bytes(beside_data) {
            self.turn = Some(Box::pin(take_turn()));
        }
        // hyper reads it alone, to recognise the version.
        let rest = self.preface.and_then(|seen| PREFACE.get(seen..));
        self.preface = match rest {
            Some(rest) if rest == bytes => {
                self.handle.received_preface();
                self.frames = Some(Frames::default());
                None
            }
            Some(rest) if rest.starts_with(bytes) => self.preface.map(|seen| seen + bytes.len()),
            _ => None,
        };
    }

    /// The result of a write, with the write timeout applied while it is blocked.
    fn written<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = written {
            self.write_blocked = None;
            return Poll::Ready(written.inspect_err(|_| self.handle.set_broken()));
        }
        self.write_blocked.get_or_insert_with(Instant::now);
        self.poll_overdue(cx).map(Err)
    }
}

/// After an HTTP error the connection was not shut down: does that in the background, for the same reason.
impl Drop for Connection {
    fn drop(&mut self) {
        let broken = self.handle.is_broken();
        self.handle.set_broken();
        let stream = self.stream.take();
        let handle = self.handle.clone();
        if broken || self.ended_by_peer || self.linger_until.is_some() {
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
            tokio::select! {
                // On an error or a timeout, the connection is closed all the same.
                _ = timeout(LINGER, last) => {}
                // Another connection needs its place.
                () = handle.cancelled() => {}
            }
            handle.remove();
        });
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(turn) = &mut self.turn {
            if turn.as_mut().poll(cx).is_pending() {
                return self.poll_overdue(cx).map(Err);
            }
            self.turn = None;
        }
        let before = buf.filled().len();
        if let Poll::Ready(read) = self.stream()?.poll_read(cx, buf) {
            match buf.filled().get(before..) {
                Some(bytes @ [_, ..]) => self.received(bytes),
                _ => self.ended_by_peer = true,
            }
            return Poll::Ready(read.inspect_err(|_| self.handle.set_broken()));
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
        let written = self.stream()?.poll_write(cx, buf);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream()?.poll_write_vectored(cx, bufs);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream()?.poll_flush(cx);
        self.written(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger_until.is_none() {
            let shut_down = self.stream()?.poll_shutdown(cx);
            ready!(self.written(shut_down, cx))?;
            self.linger_until = Some(Instant::now() + LINGER);
        }
        let mut discarded = [0; DISCARD_BYTES];
        while !self.ended_by_peer {
            let mut buf = ReadBuf::new(&mut discarded);
            match self.stream()?.poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => self.ended_by_peer = buf.filled().is_empty(),
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
