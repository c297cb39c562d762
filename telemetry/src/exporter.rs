//! The OTLP exporter, and what becomes of spans that it cannot deliver: each is counted, and the log says once that some are lost.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Compression, Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::transport::{Certificate, ClientTlsConfig, Identity},
};
use opentelemetry_sdk::{Resource, error::OTelSdkResult, trace::SpanData};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::runtime::Handle;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    info, warn,
};
use tracing_subscriber::{Layer, layer::Context};

use crate::{InitError, environment::OtlpSettings};

/// How much of a receiver's answer is read, in bytes: one says at most how many spans it rejected and why.
const ANSWER_BYTES: usize = 64 * 1024;

static LOST: AtomicU64 = AtomicU64::new(0);

/// How many spans did not reach the OTLP endpoint since the process began: no room in the queue, not delivered, or rejected.
pub(crate) fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// An exporter that counts what it cannot deliver. Must be called inside a tokio runtime, which sends.
pub(crate) fn exporter(
    settings: &OtlpSettings,
    queue: Arc<Queue>,
) -> Result<CountingExporter, InitError> {
    let exporter = match settings.protocol {
        Protocol::HttpBinary => over_http(settings)?,
        _ => over_grpc(settings)?,
    };
    Ok(CountingExporter {
        exporter,
        queue,
        failing: AtomicBool::new(false),
    })
}

fn over_grpc(settings: &OtlpSettings) -> Result<SpanExporter, InitError> {
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&settings.endpoint)
        .with_timeout(settings.timeout);
    if settings.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    if settings.endpoint.starts_with("https:") {
        let mut tls = match &settings.certificate {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &settings.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        builder = builder.with_tls_config(tls);
    }
    Ok(builder.build()?)
}

fn over_http(settings: &OtlpSettings) -> Result<SpanExporter, InitError> {
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_endpoint(&settings.endpoint)
        .with_timeout(settings.timeout)
        .with_http_client(HyperClient::new(settings)?);
    if settings.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    Ok(builder.build()?)
}

/// OTLP over HTTP, by the HTTP client that is there already: the one of `opentelemetry-http` speaks no TLS without reqwest, and
/// wants the runtime on the thread that exports.
struct HyperClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    runtime: Handle,
}

impl HyperClient {
    fn new(settings: &OtlpSettings) -> Result<Self, InitError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        let config = match &settings.certificate {
            _ if settings.endpoint.starts_with("http:") => {
                config.with_root_certificates(RootCertStore::empty())
            }
            None => config.with_native_roots().map_err(InitError::Roots)?,
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    roots.add(certificate.map_err(InitError::Pem)?)?;
                }
                config.with_root_certificates(roots)
            }
        };
        let config = match &settings.identity {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(key).map_err(InitError::Pem)?;
                config.with_client_auth_cert(chain.map_err(InitError::Pem)?, key)?
            }
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            timeout: settings.timeout,
            runtime: Handle::current(),
        })
    }
}

impl fmt::Debug for HyperClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HyperClient")
    }
}

type Answered<'a> = Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for HyperClient {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> Answered<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let answer = async move {
            let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        // The thread that exports is none of the runtime's.
        let answer = self
            .runtime
            .spawn(async move { tokio::time::timeout(timeout, answer).await });
        Box::pin(async move { answer.await?? })
    }
}

/// How many spans wait for their export. The SDK's own queue drops what is too much without saying how much; with as much room
/// as this one, which spans leave no later, it never has to.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: AtomicUsize,
    room: usize,
}

impl Queue {
    pub(crate) fn new(room: usize) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            room,
        }
    }

    /// Whether there is room for one more span, which is then taken; without room the span is counted as lost.
    pub(crate) fn enter(&self) -> bool {
        let has_room = self.waiting.fetch_add(1, Relaxed) < self.room;
        if !has_room {
            self.leave(1);
            LOST.fetch_add(1, Relaxed);
        }
        has_room
    }

    fn leave(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Relaxed);
    }
}

/// Exports spans, counts those that are not delivered, and logs when that begins and ends.
#[derive(Debug)]
pub(crate) struct CountingExporter {
    exporter: SpanExporter,
    queue: Arc<Queue>,
    failing: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.queue.leave(spans);
        let exported = self.exporter.export(batch).await;
        let was_failing = self.failing.swap(exported.is_err(), Relaxed);
        match &exported {
            Ok(()) if was_failing => info!("the OTLP endpoint accepts spans again"),
            Ok(()) => {}
            Err(error) => {
                // A usize fits.
                LOST.fetch_add(spans as u64, Relaxed);
                if !was_failing {
                    warn!(
                        "spans are lost: {error}; callbacks are not affected; check that OTEL_EXPORTER_OTLP_ENDPOINT names a running collector"
                    );
                }
            }
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The SDK's own lines about a batch that was not delivered: some every five seconds, which do not say what to do.
pub(crate) fn is_export_line(line: &Metadata<'_>) -> bool {
    let name = line.name();
    name == "BatchSpanProcessor.ExportError"
        || name == "HttpClient.NetworkError"
        || name.starts_with("Export.Failed.")
}

/// Counts spans that a receiver rejected while it accepted others: the exporter reports that to nobody but the log.
pub(crate) struct CountRejected;

/// Whether this is the exporter's line about a partial success.
pub(crate) fn is_partial_success(line: &Metadata<'_>) -> bool {
    line.name().ends_with(".PartialSuccess")
}

impl<S: Subscriber> Layer<S> for CountRejected {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Rejected);
    }
}

struct Rejected;

impl Visit for Rejected {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "rejected_spans" {
            LOST.fetch_add(u64::try_from(value).unwrap_or(0), Relaxed);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}
