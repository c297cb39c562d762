use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{
    progress::{Progress, Protocol},
    stream::Stream,
};

/// How much of what nobody wants to read is thrown away at once.
const DISCARD_BYTES: usize = 16 * 1024;

/// What hyper reads from and writes to. It replays what was read to find out the protocol, tells [`Progress`] what passes, and
/// swallows what hyper answers by itself.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    read_ahead: Bytes,
    progress: Arc<Progress>,
}

impl Wire {
    /// `read_ahead` was read from `stream` before.
    pub(super) fn new(stream: Stream, read_ahead: Bytes, progress: Arc<Progress>) -> Self {
        if !read_ahead.is_empty() {
            progress.received();
        }
        Self {
            stream,
            read_ahead,
            progress,
        }
    }

    /// Writes the connection's last words, says that nothing follows, and, where the caller may still be sending, reads on until
    /// it hears that: a socket closed on unread bytes resets the connection, and the caller would lose the answer.
    pub(super) async fn finish(mut self, last_words: &[u8], linger: bool) -> io::Result<()> {
        self.stream.write_all(last_words).await?;
        self.stream.flush().await?;
        self.stream.shutdown().await?;
        if linger {
            let mut discarded = vec![0; DISCARD_BYTES];
            while self.stream.read(&mut discarded).await? > 0 {}
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read_ahead.is_empty() {
            let now = self.read_ahead.len().min(buf.remaining());
            buf.put_slice(&self.read_ahead.split_to(now));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.progress.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.progress.is_own_answer(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        if first.is_some_and(|first| self.progress.is_own_answer(first)) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        // hyper flushes when it has nothing left to write.
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    /// In HTTP/1.1 left to [`finish`](Wire::finish): there may be last words.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.progress.protocol() {
            Protocol::Http1 => Poll::Ready(Ok(())),
            Protocol::Http2 => Pin::new(&mut self.stream).poll_shutdown(cx),
        }
    }
}
