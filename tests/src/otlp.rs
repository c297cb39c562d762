use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    net::SocketAddr,
    ops::RangeInclusive,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{extract::State, routing::post};
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::HeaderMap;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value},
    trace::v1::{self as span, span::SpanKind, status::StatusCode},
};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Request, Response, Status, codec::CompressionEncoding, service::Routes};

use crate::eventually;

/// Longer than the SDK keeps a batch, which is five seconds, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An OpenTelemetry collector that keeps every span it is sent, over gRPC or as protobuf over HTTP, on one port.
#[derive(Debug)]
pub struct OtlpReceiver {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    server: JoinHandle<()>,
}

/// A span that arrived.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.name` of the resource.
    pub service: String,
    /// The span's name.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// 16 hex digits, or empty.
    pub parent_id: String,
    /// When it began and when it ended, in nanoseconds since 1970.
    pub time: RangeInclusive<u64>,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// The names of the attributes that are integers.
    pub integers: BTreeSet<String>,
    /// The attributes of the process that sent it.
    pub resource: BTreeMap<String, String>,
    /// The version of the instrumentation scope.
    pub scope_version: String,
    /// The names of its events, in order, with their attributes.
    pub events: Vec<(String, BTreeMap<String, String>)>,
    /// The description of its error status, if it has that status; may be empty.
    pub error: Option<String>,
}

impl OtlpReceiver {
    /// Starts a receiver.
    pub async fn start() -> Self {
        Self::on(0).await
    }

    /// Starts a receiver on this port; 0 selects a free one.
    pub async fn on(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("the port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let spans = Arc::default();
        let collector = Collector {
            spans: Arc::clone(&spans),
        };
        let over_grpc =
            TraceServiceServer::new(collector.clone()).accept_compressed(CompressionEncoding::Gzip);
        let router = Routes::new(over_grpc)
            .into_axum_router()
            .route("/v1/traces", post(over_http).with_state(collector));
        let server = tokio::spawn(async move {
            axum::serve(listener, router)
                .await
                .expect("the receiver serves");
        });
        Self {
            address,
            spans,
            server,
        }
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans that have arrived.
    pub fn all(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans of a trace that have arrived.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans
            .iter()
            .filter(|s| s.trace_id == trace_id)
            .cloned()
            .collect()
    }

    /// Waits until the spans of a trace satisfy `enough`, and returns them.
    pub async fn wait_for(
        &self,
        trace_id: &str,
        within: Duration,
        enough: impl Fn(&[Span]) -> bool,
    ) -> Vec<Span> {
        eventually("the trace's spans arrive", within, async || {
            let spans = self.trace(trace_id);
            if enough(&spans) {
                Ok(spans)
            } else {
                Err(format!("{} have: {spans:#?}", spans.len()))
            }
        })
        .await
    }

    /// Waits for the gateway's span of the callback with this operationID.
    pub async fn callback(&self, operation_id: &str) -> Span {
        eventually("the callback's span arrives", TIMEOUT, async || {
            let spans = self.all();
            let found = spans.iter().find(|span| {
                span.service == "importguard-gateway"
                    && span.kind == SpanKind::Server
                    && span
                        .attributes
                        .get("openim.operation_id")
                        .is_some_and(|id| id == operation_id)
            });
            found
                .cloned()
                .ok_or_else(|| format!("there are: {spans:#?}"))
        })
        .await
    }
}

impl Drop for OtlpReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
}

async fn over_http(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    let mut plain = Vec::new();
    match headers.get("content-encoding") {
        Some(_) => GzDecoder::new(&*body).read_to_end(&mut plain),
        None => (&*body).read_to_end(&mut plain),
    }
    .expect("gzip, or as it is");
    let request = ExportTraceServiceRequest::decode(&*plain).expect("spans in protobuf");
    collector.keep(request);
    ExportTraceServiceResponse::default().encode_to_vec()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.keep(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn keep(&self, request: ExportTraceServiceRequest) {
        let mut spans = self.spans.lock().unwrap();
        for resource_spans in request.resource_spans {
            let resource = attributes(resource_spans.resource.unwrap_or_default().attributes);
            let service = resource.get("service.name").cloned().unwrap_or_default();
            let scopes = resource_spans.scope_spans.into_iter();
            let scoped = scopes.flat_map(|scope| {
                let version = scope.scope.unwrap_or_default().version;
                let spans = scope.spans.into_iter();
                spans.map(move |span| (version.clone(), span))
            });
            for (scope_version, span) in scoped {
                spans.push(Span {
                    service: service.clone(),
                    scope_version,
                    time: span.start_time_unix_nano..=span.end_time_unix_nano,
                    resource: resource.clone(),
                    integers: integers(&span.attributes),
                    kind: span.kind(),
                    error: error(span.status),
                    events: events(span.events),
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent_id: hex(&span.parent_span_id),
                    name: span.name,
                    attributes: attributes(span.attributes),
                });
            }
        }
    }
}

fn error(status: Option<span::Status>) -> Option<String> {
    let status = status.filter(|status| status.code() == StatusCode::Error)?;
    Some(status.message)
}

fn events(events: Vec<span::span::Event>) -> Vec<(String, BTreeMap<String, String>)> {
    let events = events.into_iter();
    events
        .map(|event| (event.name, attributes(event.attributes)))
        .collect()
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|pair| {
            let text = match pair.value.and_then(|any| any.value) {
                Some(any_value::Value::StringValue(text)) => text,
                Some(any_value::Value::IntValue(number)) => number.to_string(),
                other => format!("{other:?}"),
            };
            (pair.key, text)
        })
        .collect()
}

fn integers(pairs: &[KeyValue]) -> BTreeSet<String> {
    let integers = pairs.iter().filter(|pair| {
        let value = pair.value.as_ref().and_then(|any| any.value.as_ref());
        matches!(value, Some(any_value::Value::IntValue(_)))
    });
    integers.map(|pair| pair.key.clone()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
