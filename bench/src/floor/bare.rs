use std::net::SocketAddr;

use axum::{Router, body::Bytes, routing::post};

use super::{ROUTE, allow, serve};

/// Reads the body and allows: what HTTP alone costs, and the most that the client can ask.
pub(crate) async fn bare(listen: SocketAddr) -> anyhow::Result<()> {
    let routes = Router::new().route(ROUTE, post(async |_body: Bytes| allow()));
    serve(listen, routes).await
}
