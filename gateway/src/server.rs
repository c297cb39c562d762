//! The public listener: HTTP/1.1 and HTTP/2 by hyper on the connections that the accept loop yields, TLS, and an orderly end.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    response::Response,
};
use http::{HeaderValue, Version, header};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use importguard_runtime::{
    self as runtime, Bounds, CertificateError, ConnectionMetrics, Exchange, FileWatches, Handle,
    LINGER, Timeouts, Tls, TlsFiles,
};
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::settings::{ServeSettings, TlsSettings};

/// What a request takes beside the bytes of its body until it is answered: its task, its headers, its response's head.
const REQUEST_BYTES: usize = 4 * 1024;

/// hyper's read buffer per connection, at least: a callback with a hundred friends, and eight times hyper's own least.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// How many times IMPORTGUARD_MAX_HEADER_BYTES hyper takes. What is larger it responds to without a body; below that the response
/// is a layer's. Four times is as far as anybody gets by mistake.
const HEADER_ROOM: u32 = 4;

/// How many headers hyper takes, for the same reason: twice and a half of what `layers::bounded` lets through.
const MAX_HEADERS: usize = 250;

/// How many bytes of bodies may be under way on an HTTP/2 connection, and on one of its streams: a thousand friends come in one
/// go, and what a caller may have sent when it is stopped stays small.
const CONNECTION_WINDOW: u32 = 512 * 1024;
const STREAM_WINDOW: u32 = 128 * 1024;

/// How often a caller is asked over HTTP/2 whether it is still there, and how long it has to say so. Twice within the minute
/// after which home routers and cloud load balancers begin to forget connections.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WAIT: Duration = Duration::from_secs(10);

/// How an orderly end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Everything that had begun was answered.
    Answered,
    /// These many connections were cut.
    Cut(usize),
}

/// The public listener before it has a socket.
pub(crate) struct Server {
    settings: ServeSettings,
    max_bytes: usize,
    tls: Option<Tls>,
    metrics: ConnectionMetrics,
}

impl Server {
    /// `max_body_bytes` is what one request may need at once.
    pub(crate) fn new(
        settings: &ServeSettings,
        max_body_bytes: usize,
        tls: Option<Tls>,
        registry: &mut Registry,
    ) -> Self {
        let one = max_body_bytes.saturating_add(REQUEST_BYTES);
        Self {
            // Two of the largest always fit.
            max_bytes: settings.max_bytes_in_flight.max(one.saturating_mul(2)),
            settings: settings.clone(),
            tls,
            metrics: ConnectionMetrics::register(registry, "importguard", "the public listener"),
        }
    }

    /// Has `app` answer on `listener` until `shutdown` is cancelled, and for the settings' grace after that; then lets what has
    /// begun come to its end, for at most `patience` after the grace.
    pub(crate) async fn serve<S>(
        self,
        app: S,
        listener: TcpListener,
        shutdown: CancellationToken,
        patience: Duration,
    ) -> Ended
    where
        S: Service<Request, Response = Response, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let grace = self.settings.shutdown_grace;
        let http = self.http();
        let mut incoming = self.incoming(listener);
        let closing = Arc::new(AtomicBool::new(false));
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        let mut ended = std::pin::pin!(async {
            shutdown.cancelled().await;
            closing.store(true, Relaxed);
            sleep(grace).await;
        });
        loop {
            let connection = tokio::select! {
                connection = incoming.accept() => connection,
                () = &mut ended => break,
            };
            let (app, closing) = (app.clone(), Arc::clone(&closing));
            let handle = connection.handle().clone();
            let service = service_fn(move |request| {
                respond(app.clone(), request, handle.clone(), Arc::clone(&closing))
            });
            let served = http.serve_connection(TokioIo::new(connection), service);
            let served = graceful.watch(served.into_owned());
            // Its errors are the caller's, and end with its connection.
            connections.spawn(async move { drop(served.await) });
            while connections.try_join_next().is_some() {}
        }
        drop(incoming);
        let all = async {
            graceful.shutdown().await;
            while connections.join_next().await.is_some() {}
        };
        match timeout(patience, all).await {
            Ok(()) => Ended::Answered,
            Err(_) => Ended::Cut(connections.len()),
        }
    }

    fn incoming(self, listener: TcpListener) -> runtime::Incoming {
        let settings = &self.settings;
        let bounds = Bounds {
            max_connections: settings.max_connections,
            max_bytes: self.max_bytes,
            timeouts: Timeouts {
                first_byte: settings.header_read_timeout,
                head: settings.header_read_timeout,
                idle: settings.idle_timeout,
                write: settings.write_timeout,
            },
            counts_requests: true,
            setting: "IMPORTGUARD_MAX_CONNECTIONS",
        };
        runtime::Incoming::new(listener, bounds, self.tls, self.metrics)
    }

    fn http(&self) -> auto::Builder<TokioExecutor> {
        let max_head = self.settings.max_header_bytes.saturating_mul(HEADER_ROOM);
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            // The connection's own timeouts tell a slow head from an idle connection.
            .header_read_timeout(None)
            .half_close(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(READ_BUFFER_BYTES.max(max_head as usize));
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.settings.http2_max_streams)
            .max_header_list_size(max_head)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WAIT);
        http
    }
}

/// Has `app` answer a request, and says that no other may follow where that is so.
async fn respond<S>(
    app: S,
    request: http::Request<Incoming>,
    handle: Handle,
    closing: Arc<AtomicBool>,
) -> Result<Response, Infallible>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let http2 = request.version() == Version::HTTP_2;
    let exchange = Arc::new(handle.begin(http2));
    // However long it takes, in the order in which they came: in an overload that holds callers back at hardly any cost, where a refusal
    // costs some two thirds of a decision.
    exchange.reserve(REQUEST_BYTES).await;
    let mut request =
        request.map(|incoming| Body::new(Received::new(incoming, Arc::clone(&exchange), http2)));
    request.extensions_mut().insert(Arc::clone(&exchange));
    let mut response = app.oneshot(request).await?;
    // What is left of an unread body may be longer than it is worth to wait for.
    let is_last = !exchange.is_received() || closing.load(Relaxed);
    if is_last && !http2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    Ok(response)
}

/// A request's body, as it arrives.
struct Received {
    /// Taken when this is dropped.
    incoming: Option<Incoming>,
    exchange: Arc<Exchange>,
    http2: bool,
}

impl Received {
    fn new(incoming: Incoming, exchange: Arc<Exchange>, http2: bool) -> Self {
        if incoming.is_end_stream() {
            exchange.received();
        }
        Self {
            incoming: Some(incoming),
            exchange,
            http2,
        }
    }
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(incoming).poll_frame(cx));
        if (frame.is_none() || self.is_end_stream()) && !self.exchange.is_received() {
            self.exchange.received();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.incoming.as_ref().map(HttpBody::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}

/// Over HTTP/2, a body that nobody reads resets its stream as soon as the response is out. That is allowed (RFC 9113, section
/// 8.1), but clients that are still sending then lose the response: curl before version 8 does. So what comes is taken for a
/// while. Over HTTP/1.1 the connection does it when it is shut down.
impl Drop for Received {
    fn drop(&mut self) {
        if !self.http2 || self.is_end_stream() {
            return;
        }
        // Without a runtime, the process is ending.
        if let (Some(mut incoming), Ok(runtime)) =
            (self.incoming.take(), tokio::runtime::Handle::try_current())
        {
            let rest = async move { while let Some(Ok(_)) = incoming.frame().await {} };
            runtime.spawn(timeout(LINGER, rest));
        }
    }
}

/// TLS on the public listener, if the settings name a certificate. `watches` reloads it.
pub(crate) async fn tls(
    settings: &TlsSettings,
    watches: &mut FileWatches,
) -> Result<Option<Tls>, CertificateError> {
    let (Some(cert), Some(key)) = (&settings.tls_cert_file, &settings.tls_key_file) else {
        return Ok(None);
    };
    let files = TlsFiles {
        setting: "IMPORTGUARD_TLS_CERT_FILE",
        cert,
        key,
        client_ca: None,
        client_names: &[],
        alpn: &[b"h2", b"http/1.1"],
    };
    Ok(Some(Tls {
        config: files.watch(watches).await?,
        // It is told to speak TLS, in a callback answer.
        allow_plaintext: true,
        close_on_reload: false,
    }))
}
