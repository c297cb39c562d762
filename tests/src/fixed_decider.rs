use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use importguard_proto::decider::{
    Allow, DecideRequest, DecideResponse, Policy,
    decide_response::Verdict,
    decider_server::{Decider, DeciderServer},
};
use tokio::{net::TcpListener, time::sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A healthy decider that gives the same verdict to every request, for what a real one does not do. It runs until its test ends.
#[derive(Clone, Debug)]
pub struct FixedDecider {
    verdict: Verdict,
    after: Duration,
    asked: Arc<AtomicUsize>,
}

impl FixedDecider {
    /// One that allows everything, so much later. Returns its URL, too.
    pub async fn allowing_after(after: Duration) -> (Self, String) {
        Self::start(Verdict::Allow(Allow {}), after).await
    }

    /// One that answers `verdict` immediately. Returns its URL, too.
    pub async fn answering(verdict: Verdict) -> (Self, String) {
        Self::start(verdict, Duration::ZERO).await
    }

    async fn start(verdict: Verdict, after: Duration) -> (Self, String) {
        let decider = Self {
            verdict,
            after,
            asked: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (_reporter, health) = tonic_health::server::health_reporter();
        let server = Server::builder()
            .add_service(health)
            .add_service(DeciderServer::new(decider.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (decider, format!("http://{address}"))
    }

    /// How many requests it has got.
    pub fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

#[tonic::async_trait]
impl Decider for FixedDecider {
    async fn decide(
        &self,
        _request: Request<DecideRequest>,
    ) -> Result<Response<DecideResponse>, Status> {
        self.asked.fetch_add(1, Relaxed);
        sleep(self.after).await;
        Ok(Response::new(DecideResponse {
            verdict: Some(self.verdict.clone()),
            policy: Some(Policy {
                name: "fixed".to_owned(),
                ..Policy::default()
            }),
            ..DecideResponse::default()
        }))
    }
}
