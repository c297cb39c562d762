//! The admin listener, separate from the public one: `/livez`, `/readyz` and `/metrics`.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use importguard_telemetry::metrics::Exposition;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{Acceptor, Bounds, ConnectionMetrics, Readiness, SharedRegistry, Timeouts};

/// Connection limit of the admin listener: probes and scrapes are a handful, and idle connections are evicted for new ones.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// Timeouts of probes and scrapes; kubelet waits one second for a response, Prometheus ten. As requests are not counted, `idle` limits
/// their heads, too, and `head` has no effect.
const TIMEOUTS: Timeouts = Timeouts {
    first_byte: Duration::from_secs(5),
    head: Duration::from_secs(5),
    idle: Duration::from_secs(60),
    write: Duration::from_secs(10),
};

/// Probes and scrapes have no body; this is hyper's minimum.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// What the admin listener answers to any other path. `importguard doctor` recognises it.
pub const ADMIN_LISTENER: &str =
    "This is importguard's admin listener: it has /livez, /readyz and /metrics\n";

/// Serves on `listener` for as long as it is polled.
pub(crate) async fn serve(
    listener: TcpListener,
    registry: SharedRegistry,
    readiness: Readiness,
) -> Infallible {
    let metrics = registry.register(|registry| {
        ConnectionMetrics::register(registry, "importguard_admin", "the admin listener")
    });
    let bounds = Bounds {
        max_connections: MAX_CONNECTIONS,
        max_bytes: 0,
        timeouts: TIMEOUTS,
        counts_requests: false,
        setting: "the admin listener",
    };
    let routes = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(self::metrics).with_state(registry))
        .fallback(async || (StatusCode::NOT_FOUND, ADMIN_LISTENER));
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(TIMEOUTS.idle)
        .half_close(true)
        .max_buf_size(READ_BUFFER_BYTES);
    let mut acceptor = Acceptor::new(listener, bounds, None, metrics);
    let mut connections = JoinSet::new();
    loop {
        let io = TokioIo::new(acceptor.accept().await);
        let service = TowerToHyperService::new(routes.clone());
        connections.spawn(http.serve_connection(io, service));
        while connections.try_join_next().is_some() {}
    }
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let report = readiness.report();
    let status = if report.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}

async fn metrics(State(registry): State<SharedRegistry>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept = accept.filter_map(|accept| accept.to_str().ok());
    match registry.encode(accept) {
        Ok(Exposition { content_type, text }) => {
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
