//! Forwards OpenIM's other callbacks: OpenIM sends all callbacks to one URL, so those that importguard does not handle go to the
//! operator's backend. Requests and responses are forwarded unchanged: a request once it is complete, a response as it comes.

mod headers;
mod settings;

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::{Method, Request, request::Parts};
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use importguard_runtime::{CertificateError, TlsFailure, system_roots, whole_text};
use importguard_telemetry::{
    Flood,
    metrics::{ByLabel, register},
    span::{KeyValue, ServerSpan, child, failed, method},
};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use strum::{IntoStaticStr, VariantNames};
use tokio::{sync::Semaphore, time::timeout};
use tower_http::timeout::TimeoutBody;
use tracing::{Instrument, Span, field::Empty, info_span, warn};

pub use self::settings::{UpstreamSettings, UpstreamUrl, UpstreamUrlError};
use crate::limit::Permits;

/// How long an idle connection to the backend is kept: half of the 2 seconds after which gunicorn closes its connections; uvicorn, Apache
/// and Node do after 5. A request that meets the end of its connection is lost.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The outcome of a response whose head has arrived.
const PASSED: &str = "passed";

/// The outcome of one that broke off after its head, which was also counted as passed.
const BROKEN: &str = "broken";

/// The operator's backend.
#[derive(Debug)]
pub(crate) struct Upstream {
    url: UpstreamUrl,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    timeout: Duration,
    forwards_authorization: bool,
    permits: Permits,
    /// For the bodies of requests: callers of a slow backend must leave imports a part of the memory for what is in flight.
    bytes: Arc<Semaphore>,
    outcomes: ByLabel<&'static str, Counter>,
    broken: Arc<Flood>,
}

/// Why the backend did not respond.
#[derive(Debug, IntoStaticStr, VariantNames, thiserror::Error)]
#[strum(serialize_all = "lowercase")]
pub(crate) enum UpstreamError {
    /// It cannot be reached, or the connection broke.
    #[error("the backend is unreachable: {0}")]
    Unavailable(String),
    /// No response within this time.
    #[error("the backend did not respond within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// Too many callbacks are being forwarded.
    #[error("too many callbacks in flight to the backend")]
    Overloaded,
    /// The request has passed through importguard too often already, or its caller says so.
    #[error(
        "the backend's URL leads back to this gateway, or a caller sends Via headers that say so"
    )]
    Loop,
}

impl Upstream {
    /// A client for the backend, if one is set; it connects on first use. `max_bytes` is the memory for bodies on their way there.
    /// `authenticates` is whether importguard itself authenticates callers.
    pub(crate) fn new(
        settings: &UpstreamSettings,
        max_bytes: usize,
        authenticates: bool,
        registry: &mut Registry,
    ) -> Result<Option<Self>, CertificateError> {
        let Some(url) = settings.upstream.clone() else {
            return Ok(None);
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        let roots = match url.is_https() {
            true => system_roots()?,
            false => RootCertStore::empty(),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.upstream_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config.with_root_certificates(roots).with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(settings.upstream_max_in_flight)
            .build(connector);
        let outcomes = ByLabel::register(
            registry,
            "importguard_upstream",
            "Callbacks passed to the backend, by outcome: passed, unavailable, timeout, overloaded or loop; broken are those passed whose body broke off",
            Counter::default,
            "outcome",
            UpstreamError::VARIANTS
                .iter()
                .copied()
                .chain([PASSED, BROKEN]),
        );
        let in_flight = register(
            registry,
            "importguard_upstream_in_flight",
            "Callbacks on their way to the backend and back, at most IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT",
            Gauge::default(),
        );
        Ok(Some(Self {
            url,
            client,
            timeout: settings.upstream_timeout,
            // The credentials are importguard's if it checks them, unless the operator sets otherwise.
            forwards_authorization: !authenticates || settings.upstream_forward_authorization,
            permits: Permits::new(settings.upstream_max_in_flight, in_flight),
            bytes: Arc::new(Semaphore::new(max_bytes)),
            outcomes,
            broken: Arc::default(),
        }))
    }

    /// Forwards a callback whose path is `below` the base path, and returns the backend's response.
    pub(crate) async fn forward(
        &self,
        below: &str,
        query: Option<&str>,
        head: &Parts,
        body: Bytes,
    ) -> Result<Response, UpstreamError> {
        let span = child(|| self.span(&head.method));
        let forwarded = self
            .call(below, query, head, body)
            .instrument(span.clone())
            .await;
        let outcome = match &forwarded {
            Ok(_) => PASSED,
            Err(error) => error.into(),
        };
        self.outcomes.get(outcome).inc();
        match &forwarded {
            Ok(response) => {
                let status = response.status();
                span.record("http.response.status_code", i64::from(status.as_u16()));
                if status.is_client_error() || status.is_server_error() {
                    failed(&span, status.as_str(), &"");
                }
            }
            Err(error) => failed(&span, outcome, error),
        }
        forwarded.map(|response| self.watch(response, span))
    }

    /// Reports a response that breaks off, which the handler no longer sees.
    fn watch(&self, response: Response, span: Span) -> Response {
        let (outcomes, request) = (self.outcomes.clone(), ServerSpan::current());
        let lines = Arc::clone(&self.broken);
        response.map(|body| {
            Body::new(body.map_err(move |error| {
                outcomes.get(BROKEN).inc();
                let line = || warn!("the backend's response broke off, so the caller gets only a part of it: {error}; check IMPORTGUARD_UPSTREAM");
                request.in_scope(|| {
                    lines.count(line, |requests| {
                        warn!(requests, "more of the backend's responses broke off in the last second: check IMPORTGUARD_UPSTREAM");
                    });
                });
                request.set(|| [KeyValue::new("error.type", BROKEN)]);
                request.fail("the backend's response broke off");
                failed(&span, BROKEN, &error);
                // Ends the span now and not at the head of the response.
                span.in_scope(|| ());
                error
            }))
        })
    }

    /// Without `url.full`, since the backend's path may be a secret.
    fn span(&self, requested: &Method) -> Span {
        let (name, requested) = method(requested);
        info_span!(
            "pass",
            otel.name = name,
            otel.kind = "client",
            http.request.method = requested,
            http.response.status_code = Empty,
            server.address = self.url.host(),
            server.port = i64::from(self.url.port()),
        )
    }

    async fn call(
        &self,
        below: &str,
        query: Option<&str>,
        head: &Parts,
        body: Bytes,
    ) -> Result<Response, UpstreamError> {
        if headers::is_loop(&head.headers) {
            return Err(UpstreamError::Loop);
        }
        let permit = self.permits.try_acquire();
        let permit = permit.ok_or(UpstreamError::Overloaded)?;
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes);
        let held = (permit, bytes.map_err(|_| UpstreamError::Overloaded)?);
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = head.method.clone();
        *request.headers_mut() = headers::request(head, self.forwards_authorization);
        let target = self.url.target(below, query);
        *request.uri_mut() =
            target.map_err(|error| UpstreamError::Unavailable(error.to_string()))?;
        let response = timeout(self.timeout, self.client.request(request)).await;
        let response = response
            .map_err(|_| UpstreamError::Timeout(self.timeout))?
            .map_err(|error| UpstreamError::Unavailable(explain(&error)))?;
        let (head, incoming) = response.into_parts();
        if head.status.is_informational() {
            let text = format!("it switched protocols unasked ({})", head.status);
            return Err(UpstreamError::Unavailable(text));
        }
        // Fails if no chunk arrives within the timeout, and holds the permits until all of it is forwarded.
        let body = TimeoutBody::new(self.timeout, incoming).map_frame(move |frame| {
            let _held = &held;
            frame
        });
        let mut response = Response::new(Body::new(body));
        *response.status_mut() = head.status;
        *response.headers_mut() = headers::end_to_end(head.headers);
        Ok(response)
    }
}

/// The error; for TLS with what has to be corrected.
fn explain(error: &(dyn Error + 'static)) -> String {
    match TlsFailure::find(error) {
        Some(TlsFailure::UnknownIssuer) => "its certificate was not issued by a CA that the system trusts (unknown issuer); set SSL_CERT_FILE to a file with its CA".to_owned(),
        Some(TlsFailure::Invalid(defect)) => format!("its certificate {defect}"),
        Some(TlsFailure::NoTls) => "it does not use TLS; use http:// in IMPORTGUARD_UPSTREAM".to_owned(),
        Some(TlsFailure::Rejected(alert)) => format!("it requires a client certificate, which the gateway does not have ({alert})"),
        Some(TlsFailure::NoCertificate | TlsFailure::Other(_)) | None => whole_text(error),
    }
}
