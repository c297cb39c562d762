//! The admin listener, apart from the public one: `/livez`, `/readyz` and `/metrics`.

use std::{io, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use serde::Serialize;
use tokio::net::TcpListener;

/// Whether the pod wants requests, and what it has to say about its parts.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    /// `true` answers 200, `false` 503.
    pub ready: bool,
    /// Each part's state, by name.
    #[serde(flatten)]
    pub parts: serde_json::Map<String, serde_json::Value>,
}

/// What the admin listener tells.
#[derive(Clone)]
pub struct Admin {
    /// The process's metrics.
    pub registry: Registry,
    /// Asked anew for each `/readyz`.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
}

/// Answers on `listener` for as long as it is polled.
pub async fn serve(listener: TcpListener, admin: Admin) -> io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(admin);
    axum::serve(listener, routes).await
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let readiness = (admin.readiness)();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match TextEncoder::new().encode_to_string(&admin.registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
