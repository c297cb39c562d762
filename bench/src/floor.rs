//! What importguard is measured against: the same hops and nothing else, written as anybody would who wants them fast. And where its
//! spans go.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use async_nats::jetstream::{self, stream};
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
    serve::ListenerExt,
};
use clap::Args;
use importguard_gateway::events::Subject;
use importguard_proto::decider::{
    Allow, DecideRequest, DecideResponse,
    decide_response::Verdict,
    decider_client::DeciderClient,
    decider_server::{Decider, DeciderServer},
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use serde::Deserialize;
use tokio::net::TcpListener;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

/// OpenIM's "go on".
const ALLOW: &str = r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}"#;

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

struct AllowAll;

#[tonic::async_trait]
impl Decider for AllowAll {
    async fn decide(
        &self,
        _request: Request<DecideRequest>,
    ) -> Result<tonic::Response<DecideResponse>, Status> {
        Ok(tonic::Response::new(DecideResponse {
            verdict: Some(Verdict::Allow(Allow {})),
            ..DecideResponse::default()
        }))
    }
}

/// The floor's decider: allows everything.
pub(crate) async fn decider(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    Server::builder()
        .add_service(DeciderServer::new(AllowAll))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

/// The floor's gateway: HTTP, gRPC, JetStream's ack, response.
pub(crate) async fn gateway(settings: FloorGatewaySettings) -> anyhow::Result<()> {
    let jetstream = jetstream::new(async_nats::connect(&settings.nats).await?);
    // As importguard makes its own.
    jetstream
        .create_stream(stream::Config {
            name: "IMPORTGUARD".to_owned(),
            subjects: vec!["importguard.v1.>".to_owned()],
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
        .route("/callbackBeforeImportFriendsCommand", post(callback))
        .layer(DefaultBodyLimit::disable())
        .with_state(hops);
    let listener = TcpListener::bind(settings.listen).await?;
    let listener = listener.tap_io(|stream| {
        // A response would wait for the caller's ack; a connection that is gone already doesn't matter.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, routes).await?)
}

async fn callback(State(mut hops): State<Hops>, body: Bytes) -> Response {
    match hops.pass(body).await {
        Ok(()) => ([(header::CONTENT_TYPE, "application/json")], ALLOW).into_response(),
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
        let subject = Subject::Allow.into_str();
        self.jetstream.publish(subject, event.into()).await?.await?;
        Ok(())
    }
}

/// Batches of 512 spans with their attributes are well below it.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

struct Sink;

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _request: Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector that drops the spans it receives.
pub(crate) async fn sink(listen: SocketAddr) -> anyhow::Result<()> {
    let service = TraceServiceServer::new(Sink).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let server = Server::builder().tcp_nodelay(true).add_service(service);
    Ok(server.serve(listen).await?)
}
