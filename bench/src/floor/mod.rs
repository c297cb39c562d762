//! What is measured against: the same hops and nothing else, written as anybody would who wants them fast.

mod bare;
mod decider;
mod gateway;

pub(crate) use self::{
    bare::bare,
    decider::decider,
    gateway::{FloorGatewaySettings, gateway},
};

use std::net::SocketAddr;

use axum::{Router, http::header, response::IntoResponse, serve::ListenerExt};
use tokio::net::TcpListener;

/// Where callbacks go.
const ROUTE: &str = "/callbackBeforeImportFriendsCommand";

/// OpenIM's "go on".
const ALLOW: &str = r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}"#;

fn allow() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], ALLOW)
}

async fn serve(listen: SocketAddr, routes: Router) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?.tap_io(|stream| {
        // An answer would wait for the caller's ack; a connection that is gone already doesn't matter.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, routes).await?)
}
