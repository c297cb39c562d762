use std::{io, sync::Arc, time::Duration};

use importguard_files::{InvalidCertificate, Reloads};
use importguard_telemetry::{
    admin::{self, Admin, Readiness},
    metrics,
};
use prometheus::Registry;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Settings,
    admission::Admission,
    contradictions::contradictions,
    decide::{Deciders, DecidersStartError, Keeper},
    http::Guard,
    lock::{InvalidKeyFile, Lock},
    metrics::Metrics,
    record::{self, InvalidPseudonymKey, Origin, Recorder},
    serve::{self, Ended, Listener},
    upstream::{Upstream, UpstreamStartError},
};

/// A gateway whose parts are in place, ready to serve.
pub struct Gateway {
    guard: Arc<Guard>,
    listener: Listener<Guard>,
    reloads: Reloads,
    keeper: Keeper,
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
    /// A listener failed.
    #[error("a listener failed: {0}")]
    Listener(#[from] io::Error),
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
    let registry = metrics::registry().map_err(StartError::from)?;
    let gateway = Gateway::start(settings, &registry).await?;
    let parts = gateway.readiness();
    let stopping = shutdown.clone();
    let admin = Admin {
        registry,
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
        failed = admin::serve(listeners.admin, admin) => failed?,
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
    Record(#[from] record::StartError),
    /// Users' ids were to be replaced and there is no usable key.
    #[error(transparent)]
    PseudonymKey(#[from] InvalidPseudonymKey),
    /// The callers' passwords or tokens cannot be read.
    #[error(transparent)]
    Lock(#[from] InvalidKeyFile),
    /// The public listener's certificate cannot be used.
    #[error("IMPORTGUARD_TLS_CERT_FILE, IMPORTGUARD_TLS_KEY_FILE: {0}")]
    Tls(#[from] InvalidCertificate),
    /// OpenIM's other callbacks cannot be passed on.
    #[error(transparent)]
    Upstream(#[from] UpstreamStartError),
    /// A metric is registered twice.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Gateway {
    /// Opens the spool and prepares the connections. Neither NATS nor a decider needs to be there yet.
    /// Must be called inside a tokio runtime.
    pub async fn start(settings: &Settings, registry: &Registry) -> Result<Self, StartError> {
        for contradiction in contradictions(settings) {
            warn!("{contradiction}");
        }
        let http = &settings.http;
        let mut reloads = Reloads::new(registry)?;
        let tls = serve::acceptor(&settings.tls, &mut reloads)?;
        let (deciders, keeper) = Deciders::start(&settings.decide, &mut reloads, registry).await?;
        let guard = Guard {
            scheme: if tls.is_some() { "https" } else { "http" },
            lock: Lock::new(&settings.lock, &mut reloads)?,
            base_path: http.base_path.clone(),
            on_missing_operation_id: http.operation_id,
            limits: http.limits(),
            admission: Admission::new(&settings.admission, registry)?,
            body_read_timeout: http.body_read_timeout,
            request_budget: http.request_budget,
            decider_timeout: settings.decide.decider_timeout,
            fallback: settings.fallback.clone(),
            upstream: Upstream::new(&settings.upstream, registry)?,
            deciders,
            origin: Origin::new(
                http.instance
                    .clone()
                    .unwrap_or_else(importguard_telemetry::instance),
                settings.record.pseudonyms.pseudonyms()?,
            ),
            metrics: Metrics::register(registry)?,
            recorder: Recorder::start(settings.record.clone(), registry).await?,
        };
        let guard = Arc::new(guard);
        let connections = serve::Metrics::register(registry)?;
        Ok(Self {
            listener: Listener::new(Arc::clone(&guard), &settings.serve, tls, connections),
            guard,
            files: Arc::new(reloads.take_status()),
            reloads,
            keeper,
            shutdown: Shutdown {
                grace: settings.serve.shutdown_grace,
                in_all: http.shutdown_timeout,
            },
        })
    }

    /// Where events go.
    pub fn recorder(&self) -> &Recorder {
        &self.guard.recorder
    }

    /// What `/readyz` tells of the gateway. It stays ready without NATS or a decider: the spool and the fallbacks answer
    /// then, and an unready gateway would only leave OpenIM without any answer.
    pub fn readiness(&self) -> impl Fn() -> Map<String, Value> + Send + Sync + 'static {
        let recorder = self.guard.recorder.clone();
        let deciders = self.guard.deciders.clone();
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
        let recorder = &self.guard.recorder;
        let recorder_ended = recorder.ended();
        let patience = self.shutdown.callbacks();
        tokio::select! {
            ended = self.listener.serve(listener, shutdown, patience) => {
                if let Ended::Cut(connections) = ended {
                    warn!(
                        connections,
                        "some callbacks were still unanswered when their part of IMPORTGUARD_SHUTDOWN_TIMEOUT was over; they were cut"
                    );
                }
            }
            never = self.reloads.run() => match never {},
            never = self.keeper.run() => match never {},
            () = recorder_ended.cancelled() => return Err(RunError::Recorder),
        }
        recorder.close(self.shutdown.callbacks()).await;
        Ok(())
    }
}
