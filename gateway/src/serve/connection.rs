use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    Answers, Fault, Room, ServeSettings,
    body::{Received, Sent},
    fault::last_words,
    progress::{Progress, Protocol},
    stream::{Handshake, Stream},
    watchdog::Watchdog,
    wire::Wire,
};

/// What an HTTP/2 connection begins with, and no request in HTTP/1.1.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long the last words may take, and the wait for a caller that is still sending: as long as a packet that was lost twice.
pub(super) const FAREWELL: Duration = Duration::from_secs(3);

/// hyper's read buffer per connection: a callback with a hundred friends, and the least that hyper takes is 8 KiB.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// How often a caller is asked over HTTP/2 whether it is still there, and how long it has to say so. Twice within the minute
/// after which home routers and cloud load balancers begin to forget connections.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WAIT: Duration = Duration::from_secs(10);

/// How many times IMPORTGUARD_MAX_HEADER_BYTES h2 itself takes. What is larger it answers without a body; below that the answer
/// is ours. Four times is as far as anybody gets by mistake.
const HTTP2_HEADER_ROOM: u32 = 4;

/// What all connections have in common.
pub(super) struct Shared<A> {
    pub(super) answers: Arc<A>,
    pub(super) settings: ServeSettings,
    /// Whether, and with which certificate, TLS is spoken.
    pub(super) tls: Option<TlsAcceptor>,
    /// The process is about to end: answers ask to close the connection.
    pub(super) closing: CancellationToken,
}

impl<A> Clone for Shared<A> {
    fn clone(&self) -> Self {
        Self {
            answers: Arc::clone(&self.answers),
            settings: self.settings.clone(),
            tls: self.tls.clone(),
            closing: self.closing.clone(),
        }
    }
}

impl<A: Answers> Shared<A> {
    /// Serves a connection to its end. When `drain` is cancelled, that is after the requests that have begun.
    pub(super) async fn serve(self, tcp: TcpStream, room: Room, drain: CancellationToken) {
        let opened = tokio::select! {
            opened = self.open(tcp) => opened,
            () = drain.cancelled() => return,
        };
        match opened {
            Some((stream, Protocol::Http1, read)) => self.http1(stream, read, room, drain).await,
            Some((stream, Protocol::Http2, read)) => self.http2(stream, read, room, drain).await,
            // Nothing was asked.
            None => {}
        }
    }

    /// Finds out what is spoken on a connection.
    async fn open(&self, tcp: TcpStream) -> Option<(Stream, Protocol, Bytes)> {
        let head = self.settings.header_read_timeout;
        let idle = self.settings.idle_timeout;
        let mut stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some(acceptor) => match Stream::accept(tcp, acceptor, head, idle).await {
                Handshake::Done(stream) => stream,
                Handshake::NotTls(tcp) => {
                    let progress = Arc::new(Progress::new(Protocol::Http1));
                    let wire = Wire::new(Stream::Plain(tcp), Bytes::new(), progress);
                    self.farewell(wire, Some(Fault::NotTls), true).await;
                    return None;
                }
                Handshake::Failed => return None,
            },
        };
        let (protocol, read) = sniff(&mut stream, &self.settings).await.ok()?;
        Some((stream, protocol, read))
    }

    /// Ends a connection, after an answer to `fault` if there is one.
    async fn farewell(&self, wire: Wire, fault: Option<Fault>, linger: bool) {
        let farewell = async {
            let words = match fault {
                Some(fault) => last_words(self.answers.refuse(fault)).await,
                None => Vec::new(),
            };
            wire.finish(&words, linger).await
        };
        // Whoever doesn't take their answer doesn't get it.
        let _ = timeout(FAREWELL, farewell).await;
    }

    async fn http1(self, stream: Stream, read: Bytes, room: Room, drain: CancellationToken) {
        let progress = Arc::new(Progress::new(Protocol::Http1));
        let wire = Wire::new(stream, read, Arc::clone(&progress));
        let service =
            service_fn(|request| self.clone().answer(request, Arc::clone(&progress), room));
        let max_header_bytes = self.settings.max_header_bytes as usize;
        let mut connection = http1::Builder::new()
            .header_read_timeout(None) // The watchdog tells a slow head from an idle connection, and answers the former.
            .max_header_size(max_header_bytes)
            .max_buf_size(READ_BUFFER_BYTES.max(max_header_bytes))
            .serve_connection(TokioIo::new(wire), service);
        let timed_out = self
            .drive(Pin::new(&mut connection), &progress, &drain, |connection| {
                connection.graceful_shutdown();
            })
            .await;

        let parts = connection.into_parts();
        let begun = progress.in_head_with(&parts.read_buf);
        let fault = match (progress.own_answer(), timed_out) {
            (Some(fault), _) => Some(fault),
            (None, true) => begun.then_some(Fault::HeadTooSlow),
            (None, false) => begun.then_some(Fault::Malformed),
        };
        let linger = fault.is_some() || progress.unread();
        self.farewell(parts.io.into_inner(), fault, linger).await;
    }

    async fn http2(self, stream: Stream, read: Bytes, room: Room, drain: CancellationToken) {
        let progress = Arc::new(Progress::new(Protocol::Http2));
        let wire = Wire::new(stream, read, Arc::clone(&progress));
        let max_header_bytes = self.settings.max_header_bytes;
        let service = service_fn(|request| {
            let shared = self.clone();
            let progress = Arc::clone(&progress);
            shared.answer(request, progress, room)
        });
        let mut connection = pin!(
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(self.settings.http2_max_streams)
                .max_header_list_size(max_header_bytes.saturating_mul(HTTP2_HEADER_ROOM))
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_WAIT)
                .serve_connection(TokioIo::new(wire), service)
        );
        let timed_out = self
            .drive(connection.as_mut(), &progress, &drain, |connection| {
                connection.graceful_shutdown();
            })
            .await;
        if timed_out {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(FAREWELL, connection).await;
        }
    }

    /// Drives a connection until hyper is through with it, or patience with the caller is over: then it returns true.
    async fn drive<C: Future<Output = hyper::Result<()>>>(
        &self,
        mut connection: Pin<&mut C>,
        progress: &Progress,
        drain: &CancellationToken,
        end: impl Fn(Pin<&mut C>),
    ) -> bool {
        let head = self.settings.header_read_timeout;
        let idle = self.settings.idle_timeout;
        let mut watchdog = Watchdog::new(Instant::now() + idle);
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                // Its errors are the caller's: a reset, or what is answered by `Fault`.
                _ = connection.as_mut() => return false,
                () = poll_fn(|cx| watchdog.poll_over(progress.due(head, idle), cx)) => return true,
                () = drain.cancelled(), if !draining => {
                    draining = true;
                    end(connection.as_mut());
                }
            }
        }
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        progress: Arc<Progress>,
        room: Room,
    ) -> Result<Response<Sent<A::Body>>, Infallible> {
        let protocol = progress.protocol();
        let says_close = request.version() < Version::HTTP_11 || says_close(request.headers());
        let turn = progress.asked(!request.body().is_end_stream());
        let request = request.map(|incoming| Received::new(incoming, Arc::clone(&progress)));
        let answers = Arc::clone(&self.answers);
        let mut response = if self.fits(&request) {
            answers.answer(request, room).await
        } else {
            answers.refuse(Fault::HeadTooLarge)
        };
        // What is left of an unread body may be longer than it is worth to wait for.
        let last =
            says_close || progress.unread() || room == Room::None || self.closing.is_cancelled();
        if last && protocol == Protocol::Http1 {
            progress.is_last();
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        Ok(response.map(|body| Sent { body, _turn: turn }))
    }
}

impl<A> Shared<A> {
    /// hyper has counted HTTP/1.1's bytes; this is for HTTP/2, whose own limit is a higher one.
    fn fits<B>(&self, request: &Request<B>) -> bool {
        let line = request.uri().path().len() + request.uri().query().map_or(0, str::len);
        let fields = request.headers().iter();
        let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
        line + fields.sum::<usize>() <= self.settings.max_header_bytes as usize
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONNECTION).iter();
    values.any(|value| {
        let mut tokens = value.as_bytes().split(|&byte| byte == b',');
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

/// Reads as much as it takes to tell HTTP/2 from HTTP/1.1, and returns it.
async fn sniff(stream: &mut Stream, settings: &ServeSettings) -> io::Result<(Protocol, Bytes)> {
    let mut read = BytesMut::with_capacity(HTTP2_PREFACE.len());
    let mut due = Instant::now() + settings.idle_timeout;
    while read.len() < HTTP2_PREFACE.len() {
        let more = timeout_at(
            due,
            (&mut *stream)
                .take((HTTP2_PREFACE.len() - read.len()) as u64)
                .read_buf(&mut read),
        )
        .await;
        match more {
            Ok(Ok(0)) | Err(_) if read.is_empty() => {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // What is missing, hyper and the watchdog will miss too.
            Ok(Ok(0)) | Err(_) => return Ok((Protocol::Http1, read.freeze())),
            Ok(more) => more?,
        };
        if !HTTP2_PREFACE.starts_with(&read) {
            return Ok((Protocol::Http1, read.freeze()));
        }
        due = due.min(Instant::now() + settings.header_read_timeout);
    }
    Ok((Protocol::Http2, read.freeze()))
}
