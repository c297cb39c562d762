//! The OTLP exporter. Spans that it cannot deliver are counted, and the log reports once that spans are lost.

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
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    Compression, Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::{
        metadata::MetadataMap,
        transport::{Certificate, ClientTlsConfig, Identity},
    },
};
use opentelemetry_sdk::{Resource, error::OTelSdkResult, trace::SpanData};
use parking_lot::Mutex;
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

use crate::{InitError, environment::OtlpSettings, whole_text};

/// Maximum size of the endpoint's response, in bytes: it has at most the number of rejected spans and a reason.
const RESPONSE_BYTES: usize = 64 * 1024;

static LOST: AtomicU64 = AtomicU64::new(0);

/// Number of spans lost since the process started: queue full, not delivered, or rejected by the endpoint.
pub(crate) fn lost() -> u64 {
    LOST.load(Relaxed)
}

/// An exporter that counts lost spans. Must be called inside a tokio runtime, which runs its requests.
pub(crate) fn exporter(
    settings: &OtlpSettings,
    queue: Arc<Queue>,
) -> Result<CountingExporter, InitError> {
    let cause = Arc::default();
    let files = TlsFiles::parse(settings)?;
    let exporter = match settings.protocol {
        Protocol::HttpBinary => over_http(settings, files, Arc::clone(&cause))?,
        _ => over_grpc(settings)?,
    };
    Ok(CountingExporter {
        exporter,
        queue,
        cause,
        uses_tls: settings.endpoint.starts_with("https:"),
        failing: AtomicBool::new(false),
    })
}

/// CA certificates, client certificate and key. tonic reads them again from PEM, where it takes a file without any certificate.
struct TlsFiles {
    roots: Option<RootCertStore>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl TlsFiles {
    fn parse(settings: &OtlpSettings) -> Result<Self, InitError> {
        let mut roots = None;
        if let Some(pem) = &settings.certificate {
            let mut store = RootCertStore::empty();
            for certificate in certificates(pem)? {
                store.add(certificate)?;
            }
            roots = Some(store);
        }
        let mut identity = None;
        if let Some((certificate, key)) = &settings.identity {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| InitError::Pem)?;
            identity = Some((certificates(certificate)?, key));
        }
        Ok(Self { roots, identity })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InitError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.ok().filter(|all| !all.is_empty());
    certificates.ok_or(InitError::Pem)
}

fn over_grpc(settings: &OtlpSettings) -> Result<SpanExporter, InitError> {
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&settings.endpoint)
        .with_metadata(MetadataMap::from_headers(settings.headers.clone()))
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

fn over_http(
    settings: &OtlpSettings,
    files: TlsFiles,
    cause: Cause,
) -> Result<SpanExporter, InitError> {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = value.to_str().ok()?;
        Some((name.to_string(), value.to_owned()))
    };
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_headers(settings.headers.iter().filter_map(text).collect())
        .with_endpoint(&settings.endpoint)
        .with_timeout(settings.timeout)
        .with_http_client(HyperClient::new(settings, files, cause)?);
    if settings.gzip {
        builder = builder.with_compression(Compression::Gzip);
    }
    Ok(builder.build()?)
}

/// Why the last export failed, which the SDK does not say; over HTTP only.
type Cause = Arc<Mutex<Option<String>>>;

/// An HTTP client for OTLP: the one of `opentelemetry-http` has no TLS without reqwest, and must run on a thread of the runtime.
struct HyperClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
    runtime: Handle,
    cause: Cause,
}

impl HyperClient {
    fn new(settings: &OtlpSettings, files: TlsFiles, cause: Cause) -> Result<Self, InitError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        let config = match files.roots {
            _ if settings.endpoint.starts_with("http:") => {
                config.with_root_certificates(RootCertStore::empty())
            }
            None => config.with_native_roots().map_err(InitError::Roots)?,
            Some(roots) => config.with_root_certificates(roots),
        };
        let config = match files.identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
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
            cause,
        })
    }
}

impl fmt::Debug for HyperClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HyperClient")
    }
}

type ResponseFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'a>>;

impl HttpClient for HyperClient {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> ResponseFuture<'b>
    where
        'a: 'b,
        Self: 'b,
    {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let cause = Arc::clone(&self.cause);
        let response = async move {
            let sent = client.request(request.map(Full::new)).await;
            *cause.lock() = sent.as_ref().err().map(|error| whole_text(error));
            let (parts, body) = sent?.into_parts();
            let body = Limited::new(body, RESPONSE_BYTES).collect().await?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        // The exporting thread is not a thread of the runtime.
        let response = self
            .runtime
            .spawn(async move { tokio::time::timeout(timeout, response).await });
        Box::pin(async move { response.await?? })
    }
}

/// Counts the spans that wait for export. The SDK's own queue drops spans uncounted when it is full; as it has the same capacity and
/// spans leave it no later than this one, it never is.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: AtomicUsize,
    capacity: usize,
}

impl Queue {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            capacity,
        }
    }

    /// Adds a span. Returns false, and counts it as lost, if the queue is full.
    pub(crate) fn enter(&self) -> bool {
        let fits = self.waiting.fetch_add(1, Relaxed) < self.capacity;
        if !fits {
            self.leave(1);
            LOST.fetch_add(1, Relaxed);
        }
        fits
    }

    fn leave(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Relaxed);
    }
}

/// Exports spans, counts those that are not delivered, and logs when losses begin and end.
#[derive(Debug)]
pub(crate) struct CountingExporter {
    exporter: SpanExporter,
    queue: Arc<Queue>,
    cause: Cause,
    uses_tls: bool,
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
                // usize has at most 64 bits.
                LOST.fetch_add(spans as u64, Relaxed);
                if !was_failing {
                    let cause = self.cause.lock().take();
                    let cause = reason(&cause.unwrap_or_else(|| error.to_string()));
                    let tls = if self.uses_tls {
                        " with TLS, and OTEL_EXPORTER_OTLP_CERTIFICATE and _CLIENT_CERTIFICATE, then restart"
                    } else {
                        ""
                    };
                    warn!(
                        "spans are lost: {cause}; callbacks are not affected; check that a collector is running at OTEL_EXPORTER_OTLP_ENDPOINT{tls}"
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

/// The reason in the text of an error, without the names of the SDK's types and without repetitions, of which its chain of errors has many.
fn reason(text: &str) -> String {
    let text = text.strip_prefix("Operation failed: ").unwrap_or(text);
    let text = text
        .split_once("export failed with gRPC code: ")
        .map_or(text, |(_, reason)| reason);
    let mut parts: Vec<_> = text.split(": ").collect();
    parts.dedup();
    parts.join(": ")
}

/// Whether this is one of the SDK's own lines about a failed export: several every five seconds, without a remedy.
pub(crate) fn is_export_line(line: &Metadata<'_>) -> bool {
    let name = line.name();
    name == "BatchSpanProcessor.ExportError"
        || name == "HttpClient.NetworkError"
        || name.starts_with("Export.Failed.")
}

/// Counts spans that the endpoint rejected while it accepted others: the exporter reports them only to the log.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_no_names_of_types_and_each_part_once() {
        for (text, expected) in [
            (
                "Operation failed: TonicTracesClient export failed with gRPC code: Unavailable: transport error: tcp connect error: tcp connect error: Connection refused (os error 111)",
                "Unavailable: transport error: tcp connect error: Connection refused (os error 111)",
            ),
            (
                "Operation failed: HTTP export failed with status code: 503",
                "HTTP export failed with status code: 503",
            ),
        ] {
            assert_eq!(reason(text), expected);
        }
    }

    #[tokio::test]
    async fn a_ca_file_without_a_certificate_is_an_error_over_either_protocol() {
        for protocol in [Protocol::Grpc, Protocol::HttpBinary] {
            for pem in ["", "-----BEGIN NOTHING-----\n-----END NOTHING-----\n"] {
                let settings = OtlpSettings {
                    protocol,
                    endpoint: "https://127.0.0.1:1".to_owned(),
                    gzip: false,
                    timeout: Duration::from_secs(1),
                    headers: http::HeaderMap::new(),
                    certificate: Some(pem.into()),
                    identity: None,
                    max_queue_size: 1,
                };
                let error = exporter(&settings, Arc::new(Queue::new(1))).unwrap_err();
                assert!(matches!(error, InitError::Pem), "{error}");
            }
        }
    }
}
