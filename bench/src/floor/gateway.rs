use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use async_nats::jetstream::{self, stream};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use clap::Args;
use importguard_gateway::events::Subject;
use importguard_proto::decider::{
    DecideRequest, decide_response::Verdict, decider_client::DeciderClient,
};
use serde::Deserialize;
use tonic::transport::{Channel, Endpoint};

use super::{ROUTE, allow, serve};

#[derive(Args, Debug)]
pub(crate) struct FloorGatewaySettings {
    #[arg(long)]
    listen: SocketAddr,
    /// The floor's decider
    #[arg(long)]
    decider: String,
    #[arg(long)]
    nats: String,
    /// How many bytes an event has beside the request's body
    #[arg(long)]
    event_extra: usize,
    /// On one thread
    #[arg(long)]
    pub(crate) lean: bool,
}

#[derive(Clone)]
struct Hops {
    deciders: DeciderClient<Channel>,
    jetstream: jetstream::Context,
    event_extra: usize,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    #[serde(rename = "ownerUserID")]
    owner_user_id: String,
    #[serde(rename = "friendUserIDs")]
    friend_user_ids: Vec<String>,
}

/// HTTP, gRPC, JetStream's ack, answer.
pub(crate) async fn gateway(settings: FloorGatewaySettings) -> anyhow::Result<()> {
    let jetstream = jetstream::new(async_nats::connect(&settings.nats).await?);
    // As importguard makes its own.
    jetstream
        .create_stream(stream::Config {
            name: "IMPORTGUARD".to_owned(),
            subjects: Subject::ALL.map(str::to_owned).to_vec(),
            max_age: Duration::from_secs(30 * 24 * 60 * 60),
            max_bytes: 1 << 30,
            duplicate_window: Duration::from_secs(10 * 60),
            storage: stream::StorageType::File,
            ..stream::Config::default()
        })
        .await
        .context("the floor's stream cannot be made")?;
    let deciders = Endpoint::from_shared(settings.decider)?
        .tcp_nodelay(true)
        .connect_lazy();
    let hops = Hops {
        deciders: DeciderClient::new(deciders),
        jetstream,
        event_extra: settings.event_extra,
    };
    let routes = Router::new()
        .route(ROUTE, post(callback))
        .layer(DefaultBodyLimit::disable())
        .with_state(hops);
    serve(settings.listen, routes).await
}

async fn callback(State(mut hops): State<Hops>, body: Bytes) -> Response {
    match hops.pass(body).await {
        Ok(()) => allow().into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

impl Hops {
    async fn pass(&mut self, body: Bytes) -> anyhow::Result<()> {
        let request: Body = serde_json::from_slice(&body)?;
        let question = DecideRequest {
            owner_user_id: request.owner_user_id,
            friend_user_ids: request.friend_user_ids,
            ..DecideRequest::default()
        };
        let answer = self.deciders.decide(question).await?.into_inner();
        anyhow::ensure!(
            matches!(answer.verdict, Some(Verdict::Allow(_))),
            "the floor's decider allows everything"
        );
        let mut event = Vec::with_capacity(body.len() + self.event_extra);
        event.extend_from_slice(&body);
        event.resize(body.len() + self.event_extra, b' ');
        let subject = Subject::Allow.as_str();
        self.jetstream.publish(subject, event.into()).await?.await?;
        Ok(())
    }
}
