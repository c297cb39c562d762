use std::{sync::Arc, time::Duration};

use importguard_runtime::{CertificateError, OpenFilesError, Runtime, allow_open_files, memory};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Settings,
    app::{App, AppState, app},
    contradictions::contradictions,
    decide::{Balancer, Deciders, DecidersStartError},
    events::{Origin, PseudonymFileError},
    layers::{Authentication, CredentialsFileError, Limit, RejectionLog},
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
    balancer: Arc<Balancer>,
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

/// Why a gateway stopped without a shutdown request.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A listener has no address.
    #[error("a listener failed: {0}")]
    Listener(#[from] std::io::Error),
    /// Nothing can be recorded any more.
    #[error("the recorder stopped, so no decision can be recorded; see the log")]
    Recorder,
}

/// Runs a gateway, which OpenIM calls on `listener`, until the runtime shuts down and what is under way is finished.
///
/// # Errors
/// If it cannot start, or ends early.
pub async fn run(
    settings: &Settings,
    listener: TcpListener,
    mut runtime: Runtime,
) -> Result<(), RunError> {
    let gateway = Gateway::start(settings, &mut runtime).await?;
    tracing::info!(
        callbacks = %listener.local_addr()?,
        decider = %settings.decide.decider_url,
        "gateway {} is listening",
        env!("CARGO_PKG_VERSION")
    );
    let shutdown = runtime.shutdown.clone();
    runtime.run(gateway.serve(listener, shutdown)).await
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The decider client cannot start.
    #[error(transparent)]
    Deciders(#[from] DecidersStartError),
    /// Events could not be recorded.
    #[error(transparent)]
    Record(#[from] recorder::StartError),
    /// Users' ids were to be replaced and there is no usable key.
    #[error(transparent)]
    PseudonymKey(#[from] PseudonymFileError),
    /// The callers' passwords or tokens cannot be read.
    #[error(transparent)]
    Authentication(#[from] CredentialsFileError),
    /// There may not be as many connections as the settings allow.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesError),
    /// The public listener's certificate cannot be used.
    #[error("IMPORTGUARD_TLS_CERT_FILE, IMPORTGUARD_TLS_KEY_FILE: {0}")]
    Tls(#[from] CertificateError),
    /// OpenIM's other callbacks cannot be passed on.
    #[error(transparent)]
    Upstream(#[from] UpstreamStartError),
}

impl Gateway {
    /// Opens the spool and prepares the connections. Neither NATS nor a decider needs to be there yet, and without them the
    /// gateway is ready: the spool and the fallbacks answer then, and an unready gateway would only leave OpenIM without any
    /// answer.
    ///
    /// # Errors
    /// If the settings, their files or the spool cannot be used.
    pub async fn start(settings: &Settings, runtime: &mut Runtime) -> Result<Self, StartError> {
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
        let readiness = runtime.readiness.clone();
        let tls = server::tls(&settings.tls, &mut runtime.files);
        let tls = readiness.opening("certificates", tls).await?;
        let authentication = Authentication::new(&settings.authentication, &mut runtime.files);
        let authentication = readiness.opening("credentials", authentication).await?;
        let pseudonyms = settings.record.pseudonyms.watch(&mut runtime.files);
        let pseudonyms = readiness.opening("pseudonym key", pseudonyms).await?;
        let deciders = Deciders::start(&settings.decide, runtime);
        let (deciders, balancer) = readiness.opening("deciders", deciders).await?;
        let registry = runtime.registry.clone();
        let authenticates = authentication.is_on();
        let upstream =
            registry.register(|registry| Upstream::new(upstream, authenticates, registry))?;
        let recorder = Recorder::start(settings.record.clone(), runtime).await?;
        let status = recorder.clone();
        readiness.add("recorder", move || {
            serde_json::to_value(status.status()).unwrap_or(Value::Null)
        });
        let described = deciders.clone();
        readiness.add("deciders", move || described.describe());
        match runtime.files.take_status() {
            Some(files) => readiness.add("files", files),
            None => readiness.add("files", || Value::Object(Map::new())),
        }
        let app = App::new(AppState {
            scheme: if tls.is_some() { "https" } else { "http" },
            base_path: http.base_path.clone(),
            on_missing_operation_id: http.operation_id,
            limits: http.limits(),
            max_header_bytes: serve.max_header_bytes as usize,
            body_read_timeout: http.body_read_timeout,
            request_budget: http.request_budget,
            limit: registry.register(|registry| Limit::new(&settings.limits, registry)),
            decider_timeout: settings.decide.decider_timeout,
            fallback: settings.fallback.clone(),
            upstream,
            deciders,
            origin: Origin::new(
                http.instance
                    .clone()
                    .unwrap_or_else(importguard_telemetry::instance),
                pseudonyms,
            ),
            metrics: registry
                .register(|registry| Metrics::register(registry, runtime.policies.clone())),
            recorder,
            rejections: RejectionLog::default(),
        });
        Ok(Self {
            server: registry
                .register(|registry| Server::new(serve, http.max_body_bytes, tls, registry)),
            app,
            authentication,
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
                        "some callbacks were still unanswered when their part of IMPORTGUARD_SHUTDOWN_TIMEOUT was over; their connections were closed"
                    );
                }
            }
            never = self.balancer.run() => match never {},
            never = memory::return_unused() => match never {},
            () = recorder_ended.cancelled() => return Err(RunError::Recorder),
        }
        recorder.close(self.shutdown.callbacks()).await;
        Ok(())
    }
}
