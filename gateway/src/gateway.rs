use std::{sync::Arc, time::Duration};

use importguard_files::{InvalidCertificate, Reloads};
use importguard_runtime::{
    OpenFilesError,
    admin::{self, Admin, Readiness},
    allow_open_files, memory,
};
use importguard_telemetry::metrics::{ProcessMetrics, UnsupportedExporter};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Settings,
    app::{App, AppState, app},
    contradictions::contradictions,
    decide::{Balancer, Deciders, DecidersStartError},
    events::{InvalidPseudonymKey, Origin},
    layers::{Authentication, InvalidCredentialsFile, Limit, RejectionLog},
    metrics::Metrics,
    recorder::{self, Recorder},
    server::{self, Ended, Server},
    upstream::{Upstream, UpstreamStartError},
};

/// A gateway whose parts are in place, ready to serve.
pub struct Gateway {
    app: App,
    authentication: Authentication,
    server: Server,
    reloads: Reloads,
    balancer: Arc<Balancer>,
    files: Arc<dyn Fn() -> Map<String, Value> + Send + Sync>,
    shutdown: Shutdown,
}

/// How the time for an orderly end is shared out.
#[derive(Clone, Copy, Debug)]
struct Shutdown {
    grace: Duration,
    in_all: Duration,
}

impl Shutdown {
    /// For the callbacks in flight: half of what the grace leaves. The other half is the recorder's.
    fn callbacks(self) -> Duration {
        self.in_all.saturating_sub(self.grace) / 2
    }
}

/// Where a gateway listens.
#[derive(Debug)]
pub struct Listeners {
    /// OpenIM's callbacks.
    pub public: TcpListener,
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin: TcpListener,
}

/// Why a gateway ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A listener has no address.
    #[error("a listener failed: {0}")]
    Listener(#[from] std::io::Error),
    /// Nothing can be recorded any more.
    #[error("the recorder has ended, so no decision can be recorded; the log says why")]
    Recorder,
}

/// Runs a gateway until `shutdown` is cancelled and what is under way is finished.
pub async fn run(
    settings: &Settings,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let mut metrics = ProcessMetrics::new().map_err(StartError::from)?;
    let gateway = Gateway::start(settings, &mut metrics).await?;
    let parts = gateway.readiness();
    let stopping = shutdown.clone();
    let admin = Admin {
        registry: metrics.registry,
        readiness: Arc::new(move || Readiness {
            ready: !stopping.is_cancelled(),
            parts: parts(),
        }),
    };
    tracing::info!(
        callbacks = %listeners.public.local_addr()?,
        admin = %listeners.admin.local_addr()?,
        decider = %settings.decide.decider_url,
        "gateway {} is listening",
        env!("CARGO_PKG_VERSION")
    );
    tokio::select! {
        served = gateway.serve(listeners.public, shutdown) => served?,
        never = admin::serve(listeners.admin, admin) => match never {},
    }
    Ok(())
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Deciders cannot be asked.
    #[error(transparent)]
    Deciders(#[from] DecidersStartError),
    /// Events could not be recorded.
    #[error(transparent)]
    Record(#[from] recorder::StartError),
    /// Users' ids were to be replaced and there is no usable key.
    #[error(transparent)]
    PseudonymKey(#[from] InvalidPseudonymKey),
    /// The callers' passwords or tokens cannot be read.
    #[error(transparent)]
    Authentication(#[from] InvalidCredentialsFile),
    /// There may not be as many connections as the settings allow.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesError),
    /// The public listener's certificate cannot be used.
    #[error("IMPORTGUARD_TLS_CERT_FILE, IMPORTGUARD_TLS_KEY_FILE: {0}")]
    Tls(#[from] InvalidCertificate),
    /// OpenIM's other callbacks cannot be passed on.
    #[error(transparent)]
    Upstream(#[from] UpstreamStartError),
    /// Metrics were to be exported in a way that is not supported.
    #[error(transparent)]
    MetricsExporter(#[from] UnsupportedExporter),
}

impl Gateway {
    /// Opens the spool and prepares the connections. Neither NATS nor a decider needs to be there yet.
    /// Must be called inside a tokio runtime.
    pub async fn start(
        settings: &Settings,
        process: &mut ProcessMetrics,
    ) -> Result<Self, StartError> {
        let registry = &mut process.registry;
        for contradiction in contradictions(settings) {
            warn!("{contradiction}");
        }
        let Settings { http, serve, .. } = settings;
        let upstream = &settings.upstream;
        let passed_on = upstream.upstream.as_ref();
        let passed_on = passed_on.map_or(0, |_| upstream.upstream_max_in_flight);
        allow_open_files(
            serve.max_connections + passed_on,
            "IMPORTGUARD_MAX_CONNECTIONS or IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT",
        )?;
        let mut reloads = Reloads::new(registry);
        let tls = server::tls(&settings.tls, &mut reloads)?;
        let (deciders, balancer) =
            Deciders::start(&settings.decide, &mut reloads, registry).await?;
        let authentication = Authentication::new(&settings.authentication, &mut reloads)?;
        let app = App::new(AppState {
            scheme: if tls.is_some() { "https" } else { "http" },
            base_path: http.base_path.clone(),
            on_missing_operation_id: http.operation_id,
            limits: http.limits(),
            max_header_bytes: serve.max_header_bytes as usize,
            body_read_timeout: http.body_read_timeout,
            request_budget: http.request_budget,
            limit: Limit::new(&settings.limits, registry),
            decider_timeout: settings.decide.decider_timeout,
            fallback: settings.fallback.clone(),
            upstream: Upstream::new(upstream, authentication.is_on(), registry)?,
            deciders,
            origin: Origin::new(
                http.instance
                    .clone()
                    .unwrap_or_else(importguard_telemetry::instance),
                settings.record.pseudonyms.pseudonyms()?,
            ),
            metrics: Metrics::register(registry, process.policies.clone()),
            recorder: Recorder::start(settings.record.clone(), registry).await?,
            rejections: RejectionLog::default(),
        });
        Ok(Self {
            server: Server::new(serve, http.max_body_bytes, tls, registry),
            app,
            authentication,
            files: Arc::new(reloads.take_status()),
            reloads,
            balancer,
            shutdown: Shutdown {
                grace: serve.shutdown_grace,
                in_all: http.shutdown_timeout,
            },
        })
    }

    /// Where events go.
    pub fn recorder(&self) -> &Recorder {
        &self.app.recorder
    }

    /// What `/readyz` tells of the gateway. It stays ready without NATS or a decider: the spool and the fallbacks answer
    /// then, and an unready gateway would only leave OpenIM without any answer.
    pub fn readiness(&self) -> impl Fn() -> Map<String, Value> + Send + Sync + 'static {
        let recorder = self.app.recorder.clone();
        let deciders = self.app.deciders.clone();
        let files = Arc::clone(&self.files);
        move || {
            let status = serde_json::to_value(recorder.status()).unwrap_or(Value::Null);
            Map::from_iter([
                ("recorder".to_owned(), status),
                ("deciders".to_owned(), deciders.describe()),
                ("files".to_owned(), Value::Object(files())),
            ])
        }
    }

    /// Answers on `listener` until `shutdown` is cancelled and the grace after that is over; then finishes what is under way,
    /// within the settings' time, and closes the recorder.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        let recorder = self.app.recorder.clone();
        let recorder_ended = recorder.ended();
        let patience = self.shutdown.callbacks();
        let app = app(self.app, self.authentication);
        tokio::select! {
            ended = self.server.serve(app, listener, shutdown, patience) => {
                if let Ended::Cut(connections) = ended {
                    warn!(
                        connections,
                        "some callbacks were still unanswered when their part of IMPORTGUARD_SHUTDOWN_TIMEOUT was over; they were cut"
                    );
                }
            }
            never = self.reloads.run() => match never {},
            never = self.balancer.run() => match never {},
            never = memory::give_back() => match never {},
            () = recorder_ended.cancelled() => return Err(RunError::Recorder),
        }
        recorder.close(self.shutdown.callbacks()).await;
        Ok(())
    }
}
