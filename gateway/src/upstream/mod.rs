//! OpenIM's other callbacks. One URL serves all of them, so those that are not importguard's own are passed to the operator's
//! backend as they are, and its answers back, both as they come and never as a whole in memory.

mod headers;
mod metrics;
mod settings;

use std::{io, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use http::{Method, Request, request::Parts, uri::Scheme};
use http_body_util::BodyExt;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use importguard_runtime::whole_text;
use importguard_telemetry::span::{child, failed, method};
use prometheus_client::registry::Registry;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::{sync::Semaphore, time::timeout};
use tower_http::timeout::TimeoutBody;
use tracing::{Instrument, Span, field::Empty, info_span};

use self::metrics::Metrics;
pub use self::settings::{UpstreamSettings, UpstreamUrl, UpstreamUrlError};

/// How long a connection to the backend is kept for the next callback: less than the minute or more after which servers and
/// what lies between close theirs.
const IDLE: Duration = Duration::from_secs(30);

/// The operator's backend.
#[derive(Debug)]
pub(crate) struct Upstream {
    url: UpstreamUrl,
    client: Client<HttpsConnector<HttpConnector>, Body>,
    timeout: Duration,
    forwards_authorization: bool,
    places: Arc<Semaphore>,
    metrics: Metrics,
}

/// Why there is no response from the backend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// It cannot be reached, or the connection broke.
    #[error("the backend is unreachable: {0}")]
    Unavailable(String),
    /// No response within this time.
    #[error("the backend did not respond within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// Too many callbacks are on their way to it.
    #[error("too many callbacks in flight to the backend")]
    Overloaded,
}

impl UpstreamError {
    /// Its name in metrics and spans.
    fn name(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Timeout(_) => "timeout",
            Self::Overloaded => "overloaded",
        }
    }
}

/// Why callbacks cannot be passed on at all.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamStartError {
    /// The system's root certificates cannot be read.
    #[error(
        "IMPORTGUARD_UPSTREAM: this system's root certificates cannot be read: {0}; SSL_CERT_FILE can name a file with some"
    )]
    Roots(#[from] io::Error),
    /// rustls refuses its settings.
    #[error("IMPORTGUARD_UPSTREAM: {0}")]
    Tls(#[from] rustls::Error),
}

impl Upstream {
    /// Prepares connections to the backend, if there is one; it need not be there yet. `authenticates` says whether importguard
    /// checks who its callers are.
    pub(crate) fn new(
        settings: &UpstreamSettings,
        authenticates: bool,
        registry: &mut Registry,
    ) -> Result<Option<Self>, UpstreamStartError> {
        let Some(url) = settings.upstream.clone() else {
            return Ok(None);
        };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        let config = if url.scheme == Scheme::HTTPS {
            config.with_native_roots()?
        } else {
            config.with_root_certificates(RootCertStore::empty())
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.upstream_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config.with_no_client_auth())
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(settings.upstream_max_in_flight)
            .build(connector);
        Ok(Some(Self {
            url,
            client,
            timeout: settings.upstream_timeout,
            // Where importguard checks it, it is importguard's, unless the operator says otherwise.
            forwards_authorization: !authenticates || settings.upstream_forward_authorization,
            places: Arc::new(Semaphore::new(settings.upstream_max_in_flight)),
            metrics: Metrics::register(registry),
        }))
    }

    /// Passes a callback on that came to `below` the base path, and its answer back.
    pub(crate) async fn pass(
        &self,
        below: &str,
        query: Option<&str>,
        head: &Parts,
        body: Body,
    ) -> Result<Response, UpstreamError> {
        let span = child(|| self.span(&head.method));
        let passed = self
            .call(below, query, head, body)
            .instrument(span.clone())
            .await;
        self.metrics.came_to(&passed);
        match &passed {
            Ok(answer) => {
                let status = answer.status();
                span.record("http.response.status_code", i64::from(status.as_u16()));
                if status.is_client_error() || status.is_server_error() {
                    failed(&span, status.as_str(), &"");
                }
            }
            Err(error) => failed(&span, error.name(), error),
        }
        passed
    }

    /// Without `url.full`: the backend's path may be a secret, as importguard's may.
    fn span(&self, asked: &Method) -> Span {
        let (name, asked) = method(asked);
        info_span!(
            "pass",
            otel.name = name,
            otel.kind = "client",
            http.request.method = asked,
            http.response.status_code = Empty,
            server.address = self.url.authority.host(),
            server.port = i64::from(self.url.port()),
        )
    }

    async fn call(
        &self,
        below: &str,
        query: Option<&str>,
        head: &Parts,
        body: Body,
    ) -> Result<Response, UpstreamError> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| UpstreamError::Overloaded)?;
        let in_flight = self.metrics.in_flight();
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.headers_mut() = headers::request(&head.headers, self.forwards_authorization);
        let target = self.url.target(below, query);
        *request.uri_mut() =
            target.map_err(|error| UpstreamError::Unavailable(error.to_string()))?;
        let answer = timeout(self.timeout, self.client.request(request)).await;
        let answer = answer
            .map_err(|_| UpstreamError::Timeout(self.timeout))?
            .map_err(|error| UpstreamError::Unavailable(whole_text(&error)))?;
        let (head, incoming) = answer.into_parts();
        // It breaks off where nothing comes for too long, and has its place until all of it is passed.
        let passed = TimeoutBody::new(self.timeout, incoming).map_frame(move |frame| {
            let _held = (&place, &in_flight);
            frame
        });
        let mut answer = Response::new(Body::new(passed));
        *answer.status_mut() = head.status;
        *answer.headers_mut() = headers::end_to_end(head.headers);
        Ok(answer)
    }
}
