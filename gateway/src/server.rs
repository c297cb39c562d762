//! The public listener: HTTP/1.1 and HTTP/2 with hyper, TLS, and graceful shutdown.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request, response::Response};
use futures_util::{FutureExt, TryFutureExt};
use http::{HeaderValue, Version, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulConnection},
};
use importguard_runtime::{
    Acceptor, Bounds, CertificateError, ConnectionMetrics, Exchange, FileWatches, Handle,
    NamedFile, RequestBody, Timeouts, Tls, TlsFiles,
};
use importguard_telemetry::metrics::register;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};
use tracing::info;

use crate::{
    metrics::Counted,
    settings::{ServeSettings, TlsSettings},
};

/// Memory of a request that waits, without its body. A heap profile has 5,030 bytes: 2,200 of its task and its handler's future, 1,070 of
/// its span and what layers add, the rest h2's; the allocator rounds up.
const REQUEST_BYTES: usize = 6 * 1024;

/// The part of it that does not depend on the head. A larger head counts beside that, and a quarter more: so far apart are the sizes of
/// blocks that the allocator has.
const FIXED_BYTES: usize = 4 * 1024;

/// Memory that a header takes beside its text: its entry in the map.
const HEADER_BYTES: usize = 100;

/// Minimum size of hyper's read buffer, per connection: fits a callback with a hundred friends. hyper's own minimum is an eighth.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// hyper's limit of a request's head, as a multiple of IMPORTGUARD_MAX_HEADER_BYTES. hyper rejects a larger head without a callback
/// answer; below its limit, a layer rejects it with one.
const HEAD_LIMIT_FACTOR: u32 = 4;

/// hyper's limit of the number of headers, for the same reason: 2.5 times `app::MAX_ACCEPTED_HEADERS`.
const MAX_PARSED_HEADERS: usize = 250;

/// HTTP/2 flow-control windows of a connection and of a stream, in bytes: a request with a thousand friends fits, and a caller can
/// send little before backpressure stops it.
const CONNECTION_WINDOW: u32 = 512 * 1024;
const STREAM_WINDOW: u32 = 128 * 1024;

/// Interval and timeout of HTTP/2 keep-alive pings: two pings within the minute after which routers and cloud load balancers begin to
/// drop idle connections.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The public listener, without its socket.
pub(crate) struct Server {
    settings: ServeSettings,
    /// hyper's limit of a request's head.
    max_head: u32,
    max_bytes: usize,
    tls: Option<Tls>,
    metrics: ConnectionMetrics,
    /// Requests that wait for the byte limit.
    waiting: Gauge,
}

impl Server {
    pub(crate) fn new(
        settings: &ServeSettings,
        max_body_bytes: usize,
        tls: Option<Tls>,
        registry: &mut Registry,
    ) -> Self {
        let max_head = settings.max_header_bytes.saturating_mul(HEAD_LIMIT_FACTOR);
        let request = max_body_bytes.saturating_add(REQUEST_BYTES.max(max_head as usize));
        Self {
            max_head,
            // Two of the largest requests always fit.
            max_bytes: settings.max_bytes_in_flight.max(request.saturating_mul(2)),
            settings: settings.clone(),
            tls,
            metrics: ConnectionMetrics::register(registry, "importguard", "the public listener"),
            waiting: register(
                registry,
                "importguard_waiting_for_bytes",
                "Requests that wait for room in IMPORTGUARD_MAX_BYTES_IN_FLIGHT, before they are queued",
                Gauge::default(),
            ),
        }
    }

    /// Serves `app` on `listener` until `shutdown` is cancelled and the grace period after it is over. Then waits for open requests,
    /// for at most `drain_timeout`. Returns the number of connections that were closed before their requests were answered.
    pub(crate) async fn serve<S>(
        self,
        app: S,
        listener: TcpListener,
        shutdown: CancellationToken,
        drain_timeout: Duration,
    ) -> usize
    where
        S: Service<(Request, Arc<Exchange>), Response = Response, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let grace = self.settings.shutdown_grace;
        let (http, waiting) = (self.http(), self.waiting.clone());
        let mut acceptor = self.acceptor(listener);
        let closing = Arc::new(AtomicBool::new(false));
        let draining = CancellationToken::new();
        let mut connections = JoinSet::new();
        let mut grace_over = pin!(async {
            shutdown.cancelled().await;
            closing.store(true, Relaxed);
            if !grace.is_zero() {
                info!(
                    "accepting connections for another {} (IMPORTGUARD_SHUTDOWN_GRACE), until load balancers have noticed",
                    humantime::format_duration(grace)
                );
            }
            sleep(grace).await;
        });
        loop {
            let connection = tokio::select! {
                connection = acceptor.accept() => connection,
                () = &mut grace_over => break,
            };
            let (app, closing, waiting) = (app.clone(), Arc::clone(&closing), waiting.clone());
            let handle = connection.handle().clone();
            let retired = handle.retired();
            let service = service_fn(move |request| {
                let (app, closing) = (app.clone(), Arc::clone(&closing));
                serve_request(app, request, &handle, closing, &waiting)
            });
            let served = http.serve_connection(TokioIo::new(connection), service);
            connections.spawn(until_closed(served.into_owned(), retired, draining.clone()));
            while connections.try_join_next().is_some() {}
        }
        drop(acceptor);
        while connections.try_join_next().is_some() {}
        let open = connections.len();
        info!(
            connections = open,
            "no longer accepting connections: answering the callbacks in progress"
        );
        draining.cancel();
        let drained = async { while connections.join_next().await.is_some() {} };
        match timeout(drain_timeout, drained).await {
            Ok(()) => {
                info!("all callbacks are answered");
                0
            }
            Err(_) => {
                while connections.try_join_next().is_some() {}
                connections.len()
            }
        }
    }

    fn acceptor(self, listener: TcpListener) -> Acceptor {
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
        Acceptor::new(listener, bounds, self.tls, self.metrics)
    }

    fn http(&self) -> auto::Builder<TokioExecutor> {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            // `Connection` has its own timeouts, which distinguish a slow head from an idle connection.
            .header_read_timeout(None)
            .half_close(true)
            .max_headers(MAX_PARSED_HEADERS)
            .max_buf_size(READ_BUFFER_BYTES.max(self.max_head as usize));
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.settings.http2_max_streams)
            .max_header_list_size(self.max_head)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        http
    }
}

/// Serves a connection until it is closed: by its peer, or after the requests in progress once it is `retired` or the server is
/// `draining`. An error ends this connection only, and the caller sees it.
async fn until_closed(
    connection: impl GracefulConnection,
    retired: impl Future<Output = ()>,
    draining: CancellationToken,
) {
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        _ = &mut connection => return,
        () = retired => {}
        () = draining.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Serves one request with `app`, and closes the connection after the response if no other request can follow.
fn serve_request<S>(
    app: S,
    request: http::Request<Incoming>,
    handle: &Handle,
    closing: Arc<AtomicBool>,
    waiting: &Gauge,
) -> impl Future<Output = Result<Response, Infallible>> + use<S>
where
    S: Service<(Request, Arc<Exchange>), Response = Response, Error = Infallible>,
{
    let http2 = request.version() == Version::HTTP_2;
    let exchange = Arc::new(handle.begin(http2));
    let head = head_bytes(&request);
    let bytes = REQUEST_BYTES.max(FIXED_BYTES + head + head / 4);
    // First come, first served, without a timeout: during overload this delays callers at almost no cost, whereas a refusal costs about
    // two thirds of a decision.
    let (reserving, waiting) = (Arc::clone(&exchange), Counted::new(waiting));
    let reserved = async move {
        let _waiting = waiting;
        reserving.reserve(bytes).await;
    };
    let begun = Arc::clone(&exchange);
    // Combinators keep one copy of the request, where an `async` block would keep two.
    let answered = reserved.then(move |()| {
        let request = request.map(|body| Body::new(RequestBody::new(body, Arc::clone(&begun))));
        app.oneshot((request, begun))
    });
    answered.map_ok(move |mut response| {
        // The unread rest of a body may be arbitrarily long.
        let is_last = !exchange.is_received() || closing.load(Relaxed);
        if is_last && !http2 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        response
    })
}

fn head_bytes<B>(request: &http::Request<B>) -> usize {
    let uri = request.uri();
    let uri = uri.path().len() + uri.query().map_or(0, str::len);
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + HEADER_BYTES);
    request.method().as_str().len() + uri + headers.sum::<usize>()
}

/// The TLS configuration of the public listener, if the settings name a certificate. `watches` reloads it.
pub(crate) async fn tls(
    settings: &TlsSettings,
    watches: &mut FileWatches,
) -> Result<Option<Tls>, CertificateError> {
    let (Some(cert), Some(key)) = (&settings.tls_cert_file, &settings.tls_key_file) else {
        return Ok(None);
    };
    let files = TlsFiles {
        cert: NamedFile {
            setting: "IMPORTGUARD_TLS_CERT_FILE",
            path: cert.clone(),
        },
        key: key.clone(),
        client_ca: None,
        client_names: Vec::new(),
        alpn: &[b"h2", b"http/1.1"],
    };
    Ok(Some(Tls {
        config: files.watch(watches).await?,
        // A callback answer then says to use TLS.
        allow_plaintext: true,
    }))
}
