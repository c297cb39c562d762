use std::net::SocketAddr;

use importguard_proto::decider::{
    Allow, DecideRequest, DecideResponse,
    decide_response::Verdict,
    decider_server::{Decider, DeciderServer},
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

struct AllowAll;

#[tonic::async_trait]
impl Decider for AllowAll {
    async fn decide(
        &self,
        _request: Request<DecideRequest>,
    ) -> Result<Response<DecideResponse>, Status> {
        Ok(Response::new(DecideResponse {
            verdict: Some(Verdict::Allow(Allow {})),
            ..DecideResponse::default()
        }))
    }
}

/// Allows everything.
pub(crate) async fn decider(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    Server::builder()
        .add_service(DeciderServer::new(AllowAll))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}
