use std::{sync::Arc, time::Duration};

use importguard_runtime::{
    BoundAddress, CertificateError, ListenError, OpenFilesError, Runtime, allow_open_files,
    security,
};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Settings,
    app::{App, AppState, app},
    authentication::{Authentication, CredentialsFileError},
    decide::{DeciderTlsError, Deciders, Discovery},
    events::{Origin, PseudonymFileError},
    limit::Limit,
    metrics::Metrics,
    overridden_verdicts::OverriddenVerdicts,
    recorder::{self, Recorder},
    request::RequestLog,
    server::{self, Server},
    upstream::Upstream,
};

/// A gateway that has started and can serve.
pub struct Gateway {
    app: App,
    server: Server,
    discovery: Discovery,
    /// The time limit of each of the two steps of a shutdown after the grace period: callbacks in flight, and the recorder.
    step_timeout: Duration,
}

/// Why a gateway cannot start, or stopped without a shutdown request.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The decider client cannot start.
    #[error(transparent)]
    Deciders(#[from] DeciderTlsError),
    /// The recorder cannot start.
    #[error(transparent)]
    Record(#[from] recorder::StartError),
    /// The pseudonym key cannot be used.
    #[error(transparent)]
    PseudonymKey(#[from] PseudonymFileError),
    /// A file with callers' credentials cannot be used.
    #[error(transparent)]
    Authentication(#[from] CredentialsFileError),
    /// The limit of open files is too low for the settings.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesError),
    /// The public listener's certificate cannot be used.
    #[error("IMPORTGUARD_TLS_CERT_FILE, IMPORTGUARD_TLS_KEY_FILE: {0}")]
    Tls(#[from] CertificateError),
    /// The client for the upstream backend cannot start.
    #[error("IMPORTGUARD_UPSTREAM: {0}")]
    Upstream(CertificateError),
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The recorder stopped.
    #[error("the recorder stopped, so no decision can be recorded; see the log")]
    Recorder,
}

/// Runs a gateway that serves OpenIM at `address`, until the runtime shuts down and open callbacks are answered.
///
/// # Errors
/// If it cannot start, or stops without a shutdown request.
pub async fn run(
    settings: &Settings,
    address: BoundAddress,
    mut runtime: Runtime,
) -> Result<(), RunError> {
    security::log("this gateway", &settings.security());
    let gateway = Gateway::start(settings, &mut runtime).await?;
    let http = address.address();
    let listener = address.listen()?;
    tracing::info!(
        %http,
        decider = %settings.decide.decider_url,
        "gateway {} is listening",
        env!("CARGO_PKG_VERSION")
    );
    let shutdown = runtime.shutdown.clone();
    runtime.run(gateway.serve(listener, shutdown)).await
}

impl Gateway {
    /// Opens the spool and starts connecting. The gateway is ready even while NATS and the deciders are unavailable: the spool and the
    /// fallbacks replace them, whereas an unready gateway would leave OpenIM without any answer.
    ///
    /// # Errors
    /// If the settings, their files or the spool cannot be used.
    pub async fn start(settings: &Settings, runtime: &mut Runtime) -> Result<Self, RunError> {
        for contradiction in settings.warnings() {
            warn!("{contradiction}");
        }
        let Settings { http, serve, .. } = settings;
        let upstream = &settings.upstream;
        let forwarded = upstream.upstream.as_ref();
        let forwarded = forwarded.map_or(0, |_| upstream.upstream_max_in_flight);
        allow_open_files(
            serve.max_connections + forwarded,
            "IMPORTGUARD_MAX_CONNECTIONS or IMPORTGUARD_UPSTREAM_MAX_IN_FLIGHT",
        )?;
        let readiness = runtime.readiness.clone();
        let tls = server::tls(&settings.tls, &mut runtime.files);
        let tls = readiness.opening("certificates", tls).await?;
        let authentication = Authentication::new(&settings.authentication, &mut runtime.files);
        let authentication = readiness.opening("credentials", authentication).await?;
        let pseudonyms = settings.record.pseudonyms.watch(&mut runtime.files);
        let pseudonyms = readiness.opening("pseudonym key", pseudonyms).await?;
        let deciders = Deciders::start(&settings.decide, http.max_friends, runtime);
        let (deciders, discovery) = readiness.opening("deciders", deciders).await?;
        let registry = runtime.registry.clone();
        let authenticates = authentication.is_on();
        // Half of what the public listener uses.
        let bytes = (serve.max_bytes_in_flight / 2).max(http.max_body_bytes);
        let upstream =
            registry.register(|registry| Upstream::new(upstream, bytes, authenticates, registry));
        let upstream = upstream.map_err(RunError::Upstream)?;
        let mut record = settings.record.clone();
        // A publication waits for half of the budget at most; a longer timeout would never say anything about NATS.
        record.ack_timeout = record.ack_timeout.min(http.request_budget / 2);
        let recorder = Recorder::start(record, runtime).await?;
        let status = recorder.clone();
        readiness.add("recorder", move || {
            serde_json::to_value(status.status()).unwrap_or(Value::Null)
        });
        let described = deciders.clone();
        readiness.add("deciders", move || described.describe());
        let app = Arc::new(AppState {
            settings: settings.clone(),
            scheme: if tls.is_some() { "https" } else { "http" },
            authentication,
            limit: registry.register(|registry| Limit::new(&settings.limits, registry)),
            upstream,
            deciders,
            origin: Origin::new(http.instance(), pseudonyms),
            metrics: registry
                .register(|registry| Metrics::register(registry, runtime.policies.clone())),
            recorder,
            overridden_verdicts: OverriddenVerdicts::default(),
            log: RequestLog::default(),
        });
        Ok(Self {
            server: registry
                .register(|registry| Server::new(serve, http.max_body_bytes, tls, registry)),
            app,
            discovery,
            step_timeout: http.shutdown_timeout.saturating_sub(serve.shutdown_grace) / 2,
        })
    }

    /// The recorder of this gateway's events.
    pub fn recorder(&self) -> &Recorder {
        &self.app.recorder
    }

    /// Serves on `listener` until `shutdown` is cancelled and the grace period after it is over. Then answers open callbacks and closes
    /// the recorder, within IMPORTGUARD_SHUTDOWN_TIMEOUT.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        let (recorder, deciders) = (self.app.recorder.clone(), self.app.deciders.clone());
        let recorder_ended = recorder.ended();
        let app = app(self.app);
        tokio::select! {
            connections = self.server.serve(app, listener, shutdown, self.step_timeout) => {
                if connections > 0 {
                    warn!(
                        connections,
                        "some callbacks were still unanswered when their part of IMPORTGUARD_SHUTDOWN_TIMEOUT was over; their connections were closed"
                    );
                }
            }
            never = deciders.run(self.discovery) => match never {},
            () = recorder_ended.cancelled() => return Err(RunError::Recorder),
        }
        recorder.close(self.step_timeout).await;
        Ok(())
    }
}
