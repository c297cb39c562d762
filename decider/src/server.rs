use std::{convert::Infallible, time::Duration};

use futures_util::stream;
use importguard_core::UserId;
use importguard_proto::{
    DESCRIPTORS,
    decider::decider_server::{DeciderServer, SERVICE_NAME},
};
use importguard_runtime::{
    Bounds, CertificateError, ConnectionMetrics, Incoming, LastGood, OpenFilesError, Runtime,
    Timeouts, Tls, allow_open_files,
};
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer as ReflectionServer};
use tracing::{info, warn};

use crate::{
    BoundsSettings, Settings,
    evaluation::Evaluations,
    grpc::DeciderService,
    metrics::Metrics,
    policy::Diagnostics,
    reload::{self, Active},
    tls::tls,
};

/// How long a connection's first byte, and a TLS handshake, may take: by then a gateway has given up, whose default patience is
/// half a second.
const FIRST_BYTE: Duration = Duration::from_secs(5);

/// A decider with its policy loaded, ready to serve.
pub struct Decider {
    policy: LastGood<Active>,
    metrics: Metrics,
    instance: String,
    bounds: BoundsSettings,
    tls: Option<Tls>,
    connections: ConnectionMetrics,
    shutdown: Shutdown,
}

/// How the time for an orderly end is shared out.
#[derive(Clone, Copy, Debug)]
struct Shutdown {
    grace: Duration,
    in_all: Duration,
}

/// Why a decider ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The policy cannot be used.
    #[error("the policy cannot be used:\n{0}")]
    Policy(Diagnostics),
    /// TLS cannot be spoken as the settings say.
    #[error(
        "IMPORTGUARD_DECIDER_TLS_CERT_FILE, IMPORTGUARD_DECIDER_TLS_KEY_FILE, IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE: {0}"
    )]
    Tls(#[from] CertificateError),
    /// The listener has no address.
    #[error("a listener failed: {0}")]
    Listener(#[from] std::io::Error),
    /// There may not be as many connections as the settings allow.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesError),
    /// gRPC could not be served.
    #[error("gRPC cannot be served: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// The contract compiled into this binary is damaged.
    #[error("gRPC reflection cannot be offered: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Runs a decider, to which gateways connect on `listener`, until the runtime shuts down and what is under way is finished.
///
/// # Errors
/// If it cannot start, or ends early.
pub async fn run(
    settings: &Settings,
    listener: TcpListener,
    mut runtime: Runtime,
) -> Result<(), RunError> {
    allow_open_files(
        settings.grpc.bounds.decider_max_connections,
        "IMPORTGUARD_DECIDER_MAX_CONNECTIONS",
    )?;
    let decider = Decider::start(settings, &mut runtime).await?;
    info!(
        grpc = %listener.local_addr()?,
        "decider {} is listening",
        env!("CARGO_PKG_VERSION")
    );
    let shutdown = runtime.shutdown.clone();
    runtime.run(decider.serve(listener, shutdown)).await
}

impl Decider {
    /// Loads the policy.
    ///
    /// # Errors
    /// If the policy or the settings cannot be used.
    pub async fn start(settings: &Settings, runtime: &mut Runtime) -> Result<Self, RunError> {
        let readiness = runtime.readiness.clone();
        let metrics = runtime
            .registry
            .register(|registry| Metrics::register(registry, runtime.policies.clone()));
        let grpc = &settings.grpc;
        let policy = reload::watch(
            &settings.policy,
            grpc.bounds.decider_max_friends,
            metrics.clone(),
            &mut runtime.files,
        );
        let policy = readiness.opening("policy", policy).await;
        let policy = policy.map_err(RunError::Policy)?;
        let tls = tls(&grpc.tls, &mut runtime.files);
        let tls = readiness.opening("certificates", tls).await?;
        let described = policy.clone();
        readiness.add("policy", move || reload::describe(&described));
        if let Some(files) = runtime.files.take_status() {
            readiness.add("files", files);
        }
        Ok(Self {
            policy,
            metrics,
            instance: grpc
                .decider_instance
                .clone()
                .unwrap_or_else(importguard_telemetry::instance),
            bounds: grpc.bounds.clone(),
            tls,
            connections: runtime.registry.register(|registry| {
                ConnectionMetrics::register(
                    registry,
                    "importguard_decider",
                    "the decider's listener",
                )
            }),
            shutdown: Shutdown {
                grace: grpc.decider_shutdown_grace,
                in_all: grpc.shutdown_timeout,
            },
        })
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
            DeciderServer::new(service).max_decoding_message_size(max_message_bytes(bounds));
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

/// How many calls a connection may have open at once, four times as many callbacks as a gateway works on at once by default. More
/// of them wait, for as long as their gateway's timeout lets them.
const MAX_STREAMS: u32 = 512;

/// How large a call's headers may be together. A gateway's are below 1.5 KiB, an operationID of at most 256 bytes and 512 of a
/// trace's state among them; the rest is for what a mesh adds.
const MAX_HEADER_BYTES: u32 = 8 << 10;

/// What protobuf adds to an ID of up to 16 KiB, its tag and its length, and as much to spare.
const FRAMING_BYTES: usize = 8;

/// What a request holds beside its friends: the decision's ID and the owner's.
const OTHER_BYTES: usize = 1 << 10;

/// How large a request may be: the most friends with the longest IDs.
fn max_message_bytes(bounds: &BoundsSettings) -> usize {
    let friends = bounds.decider_max_friends;
    friends
        .saturating_mul(UserId::MAX_BYTES + FRAMING_BYTES)
        .saturating_add(OTHER_BYTES)
}

/// How many pings a connection may leave unanswered before it was silent for too long.
const PINGS: u32 = 3;

/// gRPC within the settings' bounds; connections have theirs already.
fn bounded(bounds: &BoundsSettings) -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        // A decider that stood still finds as many calls that nobody waits for any more. By default some twenty of them break
        // the connection, with all that is open on it.
        .http2_max_pending_accept_reset_streams(usize::try_from(MAX_STREAMS).ok())
        .http2_max_header_list_size(MAX_HEADER_BYTES)
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
