use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::{future::OptionFuture, stream};
use importguard_files::Reloads;
use importguard_proto::{
    DESCRIPTORS,
    decider::decider_server::{DeciderServer, SERVICE_NAME},
};
use importguard_runtime::{
    Bounds, ConnectionMetrics, Incoming, OpenFilesError, Timeouts, Tls,
    admin::{self, Admin, Readiness},
    allow_open_files,
};
use importguard_telemetry::metrics::{ProcessMetrics, UnsupportedExporter};
use serde_json::{Map, Value};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer as ReflectionServer};
use tracing::{info, warn};

use crate::{
    BoundsSettings, Settings, TlsError, evaluation::Evaluations, grpc::DeciderService,
    in_force::InForce, metrics::Metrics, policy::Diagnostics, reload::Reloader, tls::tls,
};

/// How long a connection's first byte, and a TLS handshake, may take: by then a gateway has given up, whose default patience is
/// half a second.
const FIRST_BYTE: Duration = Duration::from_secs(5);

/// A decider with its policy loaded, ready to serve.
pub struct Decider {
    policy: InForce,
    reloader: Reloader,
    metrics: Metrics,
    instance: String,
    bounds: BoundsSettings,
    tls: Option<Tls>,
    reloads: Option<Reloads>,
    files: Arc<dyn Fn() -> Option<Map<String, Value>> + Send + Sync>,
    connections: ConnectionMetrics,
    shutdown: Shutdown,
}

/// How the time for an orderly end is shared out.
#[derive(Clone, Copy, Debug)]
struct Shutdown {
    grace: Duration,
    in_all: Duration,
}

/// Where a decider listens.
#[derive(Debug)]
pub struct Listeners {
    /// Gateways' questions.
    pub grpc: TcpListener,
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin: TcpListener,
}

/// Why a decider ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The policy cannot be used.
    #[error("the policy cannot be used:\n{0}")]
    Policy(Diagnostics),
    /// TLS cannot be spoken as the settings say.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener has no address, or there is no handler for SIGHUP.
    #[error("a listener failed: {0}")]
    Listener(#[from] std::io::Error),
    /// There may not be as many connections as the settings allow.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesError),
    /// Metrics were to be exported in a way that is not supported.
    #[error(transparent)]
    MetricsExporter(#[from] UnsupportedExporter),
    /// gRPC could not be served.
    #[error("gRPC cannot be served: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// The contract compiled into this binary is damaged.
    #[error("gRPC reflection cannot be offered: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Runs a decider until `shutdown` is cancelled and what is under way is finished.
pub async fn run(
    settings: &Settings,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    allow_open_files(
        settings.grpc.bounds.decider_max_connections,
        "IMPORTGUARD_DECIDER_MAX_CONNECTIONS",
    )?;
    let mut metrics = ProcessMetrics::new()?;
    let decider = Decider::start(settings, &mut metrics)?;
    let parts = decider.readiness();
    let stopping = shutdown.clone();
    let admin = Admin {
        registry: metrics.registry,
        readiness: Arc::new(move || Readiness {
            ready: !stopping.is_cancelled(),
            parts: parts(),
        }),
    };
    info!(
        grpc = %listeners.grpc.local_addr()?,
        admin = %listeners.admin.local_addr()?,
        "decider {} is listening",
        env!("CARGO_PKG_VERSION")
    );
    tokio::select! {
        served = decider.serve(listeners.grpc, shutdown) => served,
        never = admin::serve(listeners.admin, admin) => match never {},
    }
}

impl Decider {
    /// Loads the policy. Blocks while lists are read.
    pub fn start(settings: &Settings, process: &mut ProcessMetrics) -> Result<Self, RunError> {
        let registry = &mut process.registry;
        let metrics = Metrics::register(registry, process.policies.clone());
        let (reloader, policy) = Reloader::start(
            settings.policy.policy.clone(),
            settings.grpc.bounds.decider_max_friends,
            settings.policy.reload_interval,
            metrics.clone(),
        )
        .map_err(RunError::Policy)?;
        let grpc = &settings.grpc;
        let (tls, mut reloads) = tls(&grpc.tls, registry)?.unzip();
        let files = reloads.as_mut().map(Reloads::take_status);
        Ok(Self {
            policy,
            reloader,
            metrics,
            instance: grpc
                .decider_instance
                .clone()
                .unwrap_or_else(importguard_telemetry::instance),
            bounds: grpc.bounds.clone(),
            tls,
            reloads,
            files: Arc::new(move || files.as_ref().map(|files| files())),
            connections: ConnectionMetrics::register(
                registry,
                "importguard_decider",
                "the decider's listener",
            ),
            shutdown: Shutdown {
                grace: grpc.decider_shutdown_grace,
                in_all: grpc.shutdown_timeout,
            },
        })
    }

    /// What `/readyz` tells of the decider.
    pub fn readiness(&self) -> impl Fn() -> Map<String, Value> + Send + Sync + 'static {
        let policy = self.policy.clone();
        let files = Arc::clone(&self.files);
        move || {
            let policy = ("policy".to_owned(), policy.describe());
            let files = files().map(|files| ("files".to_owned(), Value::Object(files)));
            [policy].into_iter().chain(files).collect()
        }
    }

    /// Answers on `listener` until `shutdown` is cancelled and the grace after that is over; then finishes what is under way,
    /// within the settings' time.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        let bounds = &self.bounds;
        let (health_reporter, health) = tonic_health::server::health_reporter();
        let service = DeciderService::new(
            self.policy,
            Evaluations::new(self.metrics.clone(), bounds.decider_request_timeout),
            self.metrics,
            self.instance,
            bounds.decider_max_friends,
        );
        let service =
            DeciderServer::new(service).max_decoding_message_size(bounds.decider_max_message_bytes);
        report(&health_reporter, ServingStatus::Serving).await;
        let reflection = bounds.decider_reflection.then(reflection).transpose()?;
        let incoming = incoming(listener, bounds, self.tls, self.connections);
        let last_call = CancellationToken::new();
        let server = bounded(bounds)
            .add_service(service)
            .add_service(health)
            .add_optional_service(reflection)
            .serve_with_incoming_shutdown(
                stream::unfold(incoming, async |mut incoming: Incoming| {
                    let connection = incoming.accept().await;
                    Some((Ok::<_, Infallible>(connection), incoming))
                }),
                last_call.clone().cancelled_owned(),
            );
        let overdue = async {
            shutdown.cancelled().await;
            report(&health_reporter, ServingStatus::NotServing).await;
            sleep(self.shutdown.grace).await;
            last_call.cancel();
            sleep(self.shutdown.in_all.saturating_sub(self.shutdown.grace)).await;
        };
        tokio::select! {
            served = server => served?,
            failed = self.reloader.run() => failed?,
            Some(never) = OptionFuture::from(self.reloads.map(Reloads::run)) => match never {},
            () = overdue => warn!("some calls were still open when IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT was over; they were cut"),
        }
        Ok(())
    }
}

fn incoming(
    listener: TcpListener,
    bounds: &BoundsSettings,
    tls: Option<Tls>,
    metrics: ConnectionMetrics,
) -> Incoming {
    let idle = bounds.decider_idle_timeout;
    let bounds = Bounds {
        max_connections: bounds.decider_max_connections,
        max_bytes: 0,
        timeouts: Timeouts {
            first_byte: FIRST_BYTE,
            head: FIRST_BYTE,
            idle,
            write: idle,
        },
        counts_requests: false,
        setting: "IMPORTGUARD_DECIDER_MAX_CONNECTIONS",
    };
    Incoming::new(listener, bounds, tls, metrics)
}

fn reflection() -> Result<ReflectionServer<impl ServerReflection>, tonic_reflection::server::Error>
{
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}

/// How many pings a connection may leave unanswered before it was silent for too long.
const PINGS: u32 = 3;

/// gRPC within the settings' bounds; connections have theirs already.
fn bounded(bounds: &BoundsSettings) -> Server {
    let streams = bounds.decider_max_streams;
    Server::builder()
        .max_concurrent_streams(streams)
        // A decider that stood still finds as many calls that nobody waits for any more. By default some twenty of them break
        // the connection, with all that is open on it.
        .http2_max_pending_accept_reset_streams(usize::try_from(streams).ok())
        .http2_max_header_list_size(bounds.decider_max_header_bytes)
        .http2_keepalive_interval(Some(bounds.decider_idle_timeout / (PINGS + 1)))
        .http2_keepalive_timeout(Some(bounds.decider_idle_timeout))
        .timeout(bounds.decider_request_timeout)
        .max_connection_age(bounds.decider_max_connection_age)
        .max_connection_age_grace(bounds.decider_request_timeout)
}

/// Tells those who ask for the health of the decider, or of the process.
async fn report(health: &HealthReporter, status: ServingStatus) {
    for service in [SERVICE_NAME, ""] {
        health.set_service_status(service, status).await;
    }
}
