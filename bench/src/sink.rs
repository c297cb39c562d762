use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::{net::TcpListener, time::interval};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// Batches of 512 spans with their attributes are well below it.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

#[derive(Clone, Default)]
struct Sink {
    spans: Arc<AtomicU64>,
}

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let scopes = resources.iter().flat_map(|resource| &resource.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.spans.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector that counts the spans it is sent, says every second how many there were, and forgets them.
pub(crate) async fn run(listen: SocketAddr) -> anyhow::Result<()> {
    let sink = Sink::default();
    let service =
        TraceServiceServer::new(sink.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let listener = TcpListener::bind(listen).await?;
    let server = Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    let tell = async {
        let mut clock = interval(Duration::from_secs(1));
        loop {
            clock.tick().await;
            writeln!(std::io::stdout(), "{}", sink.spans.load(Ordering::Relaxed))?;
        }
    };
    tokio::select! {
        served = server => Ok(served?),
        told = tell => told,
    }
}
