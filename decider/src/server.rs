use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::stream;
use importguard_core::UserId;
use importguard_nats::NatsSettings;
use importguard_proto::{
    DESCRIPTORS,
    decider::decider_server::{DeciderServer, SERVICE_NAME},
};
use importguard_runtime::{
    Acceptor, BoundAddress, Bounds, CertificateError, ConnectionMetrics, LastGood, ListenError,
    OpenFilesError, Runtime, Timeouts, Tls, allow_open_files, security,
};
use importguard_telemetry::Flood;
use tokio::{net::TcpListener, time::sleep};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer as ReflectionServer};
use tower::{layer::layer_fn, service_fn};
use tracing::{info, warn};

use crate::{
    BoundsSettings, Settings,
    evaluation::Evaluations,
    grpc::DeciderService,
    limits::{CallLimits, Calls},
    lists::live::Watch,
    metrics::Metrics,
    policy::BriefDiagnostics,
    reload::{self, Active},
    tls::tls,
};

/// The timeout of a connection's first byte and TLS handshake, well above a gateway's default timeout of 500 ms.
const FIRST_BYTE: Duration = Duration::from_secs(5);

/// A decider with its policy loaded, ready to serve.
pub struct Decider {
    policy: LastGood<Active>,
    live: Watch,
    metrics: Metrics,
    instance: String,
    bounds: BoundsSettings,
    tls: Option<Tls>,
    connections: ConnectionMetrics,
    shutdown_grace: Duration,
    shutdown_timeout: Duration,
}

/// Why a decider could not start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The policy is invalid, or a file cannot be read. Its lines may have user IDs, which do not belong in a log.
    #[error("the policy cannot be used; `importguard policy check` also shows its lines:\n{0}")]
    Policy(BriefDiagnostics),
    /// The TLS settings are invalid.
    #[error(
        "IMPORTGUARD_DECIDER_TLS_CERT_FILE, IMPORTGUARD_DECIDER_TLS_KEY_FILE, IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE: {0}"
    )]
    Tls(#[from] CertificateError),
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The limit on open files is too low for the connections that the settings allow.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesError),
    /// gRPC could not be served.
    #[error("cannot serve gRPC: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// The compiled-in protobuf descriptors are invalid.
    #[error("cannot serve gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves gateways at `address`, with live lists from `nats`, until the runtime shuts down and the open calls are finished.
///
/// # Errors
/// If it cannot start, or fails.
pub async fn run(
    settings: &Settings,
    nats: &NatsSettings,
    address: BoundAddress,
    mut runtime: Runtime,
) -> Result<(), RunError> {
    allow_open_files(
        settings.grpc.bounds.decider_max_connections,
        "IMPORTGUARD_DECIDER_MAX_CONNECTIONS",
    )?;
    security::log("this decider", &settings.security());
    let decider = Decider::start(settings, nats, &mut runtime).await?;
    let grpc = address.address();
    let listener = address.listen()?;
    info!(
        %grpc,
        "decider {} is listening",
        env!("CARGO_PKG_VERSION")
    );
    let shutdown = runtime.shutdown.clone();
    runtime.run(decider.serve(listener, shutdown)).await
}

impl Decider {
    /// Loads the policy, and its live lists from `nats`.
    ///
    /// # Errors
    /// If the policy or a setting is invalid.
    pub async fn start(
        settings: &Settings,
        nats: &NatsSettings,
        runtime: &mut Runtime,
    ) -> Result<Self, RunError> {
        let readiness = runtime.readiness.clone();
        let metrics = runtime
            .registry
            .register(|registry| Metrics::register(registry, runtime.policies.clone()));
        let grpc = &settings.grpc;
        let live = Watch::new(&settings.live, nats.clone(), runtime.files.shared());
        let collector = Box::new(live.clone());
        runtime
            .registry
            .register(|registry| registry.register_collector(collector));
        let policy = reload::watch(
            &settings.policy,
            grpc.bounds.decider_max_friends,
            metrics.clone(),
            live.clone(),
            &mut runtime.files,
        );
        let policy = readiness.opening("policy", policy).await;
        let policy = policy.map_err(RunError::Policy)?;
        let tls = tls(&grpc.tls, &mut runtime.files);
        let tls = readiness.opening("certificates", tls).await?;
        let described = policy.clone();
        readiness.add("policy", move || reload::describe(&described));
        let settled = async {
            live.settle().await;
            Ok::<_, Infallible>(())
        };
        let Ok(()) = readiness.opening("live lists", settled).await;
        let described = live.clone();
        readiness.add("liveLists", move || described.describe());
        let condition = live.clone();
        readiness.require(move || condition.status().is_ready());
        Ok(Self {
            policy,
            live,
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
            shutdown_grace: grpc.decider_shutdown_grace,
            shutdown_timeout: grpc.shutdown_timeout,
        })
    }

    /// Serves `listener` until `shutdown` is cancelled and the grace period has passed; then finishes the open calls within the
    /// shutdown timeout.
    ///
    /// # Errors
    /// If gRPC cannot be served.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        let bounds = &self.bounds;
        let (health_reporter, health) = tonic_health::server::health_reporter();
        let service = DeciderService {
            policy: self.policy,
            live: self.live.clone(),
            evaluations: Evaluations::new(self.metrics.clone()),
            instance: self.instance,
            max_friends: bounds.decider_max_friends,
        };
        let limits = CallLimits {
            max_friends: bounds.decider_max_friends,
            max_message_bytes: max_message_bytes(bounds),
            timeout: bounds.decider_request_timeout,
        };
        let service =
            DeciderServer::new(service).max_decoding_message_size(limits.max_message_bytes);
        let health = health.max_decoding_message_size(OTHER_MESSAGE_BYTES);
        report(&health_reporter, serving(&self.live)).await;
        let reflection = bounds.decider_reflection.then(reflection).transpose()?;
        let acceptor = acceptor(listener, bounds, limits, self.tls, self.connections);
        let stop_accepting = CancellationToken::new();
        let calls = Arc::new(Calls {
            limits,
            metrics: self.metrics,
            refused: Flood::default(),
            stopping: stop_accepting.clone(),
        });
        let served = layer_fn(move |service| {
            let calls = Arc::clone(&calls);
            service_fn(move |request| Arc::clone(&calls).serve(Clone::clone(&service), request))
        });
        let server = bounded(bounds)
            .layer(served)
            .add_service(service)
            .add_service(health)
            .add_optional_service(reflection)
            .serve_with_incoming_shutdown(
                stream::unfold(acceptor, async |mut acceptor: Acceptor| {
                    let connection = acceptor.accept().await;
                    Some((Ok::<_, Infallible>(connection), acceptor))
                }),
                stop_accepting.clone().cancelled_owned(),
            );
        let timed_out = async {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = follow(&self.live, &health_reporter) => {}
            }
            report(&health_reporter, ServingStatus::NotServing).await;
            if !self.shutdown_grace.is_zero() {
                info!(
                    "accepting calls for another {} (IMPORTGUARD_DECIDER_SHUTDOWN_GRACE), until gateways have noticed",
                    humantime::format_duration(self.shutdown_grace)
                );
            }
            sleep(self.shutdown_grace).await;
            info!("no longer accepting calls: answering those in progress");
            stop_accepting.cancel();
            sleep(self.shutdown_timeout.saturating_sub(self.shutdown_grace)).await;
        };
        tokio::select! {
            served = server => {
                served?;
                info!("all calls are answered");
            }
            () = timed_out => warn!("closed the remaining calls after IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT"),
        }
        Ok(())
    }
}

fn acceptor(
    listener: TcpListener,
    bounds: &BoundsSettings,
    limits: CallLimits,
    tls: Option<Tls>,
    metrics: ConnectionMetrics,
) -> Acceptor {
    let idle = bounds.decider_idle_timeout;
    let bounds = Bounds {
        max_connections: bounds.decider_max_connections,
        max_bytes: limits.max_bytes(),
        timeouts: Timeouts {
            first_byte: FIRST_BYTE,
            head: FIRST_BYTE,
            idle,
            write: idle,
        },
        counts_requests: false,
        setting: "IMPORTGUARD_DECIDER_MAX_CONNECTIONS",
    };
    Acceptor::new(listener, bounds, tls, metrics)
}

fn reflection() -> Result<ReflectionServer<impl ServerReflection>, tonic_reflection::server::Error>
{
    let service = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    Ok(service.max_decoding_message_size(OTHER_MESSAGE_BYTES))
}

/// The maximum size of a message to the health and the reflection service: a service's name, or a symbol's.
const OTHER_MESSAGE_BYTES: usize = 1 << 10;

/// The maximum number of open calls per connection: four times a gateway's default concurrency limit. Further calls wait within
/// their gateway's timeout.
const MAX_STREAMS: u32 = 512;

/// The maximum total size of a call's headers. A gateway's are below 1.5 KiB, including an operationID of at most 256 bytes and
/// 512 bytes of tracestate; the rest is for a service mesh.
const MAX_HEADER_BYTES: u32 = 8 << 10;

/// An upper bound for Protobuf's overhead per ID (tag and length), which is 3 bytes for an ID of up to 16 KiB.
const FRAMING_BYTES: usize = 8;

/// Space for a request's other fields: the decision ID and the owner ID.
const OTHER_BYTES: usize = 1 << 10;

/// The maximum size of a request: the most friends with the longest IDs.
fn max_message_bytes(bounds: &BoundsSettings) -> usize {
    let friends = bounds.decider_max_friends;
    friends
        .saturating_mul(UserId::MAX_BYTES + FRAMING_BYTES)
        .saturating_add(OTHER_BYTES)
}

/// How many pings are sent before an idle connection is closed.
const PINGS: u32 = 3;

/// A gRPC server with the settings' limits, except those of connections.
fn bounded(bounds: &BoundsSettings) -> Server {
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        // After a stall, a gateway may have cancelled that many calls of a connection. By default, about twenty of them close the
        // connection with all of its open calls.
        .http2_max_pending_accept_reset_streams(usize::try_from(MAX_STREAMS).ok())
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keepalive_interval(Some(bounds.decider_idle_timeout / (PINGS + 1)))
        .http2_keepalive_timeout(Some(bounds.decider_idle_timeout))
        .timeout(bounds.decider_request_timeout)
        // Without a grace period: tonic 0.14 with one sends no GOAWAY at the age, and cuts the connection with its calls after both. All
        // calls end within a minute.
        .max_connection_age(bounds.decider_max_connection_age)
}

/// The interval at which the health status follows that of live lists: less than gateways' default health-check interval.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);

fn serving(live: &Watch) -> ServingStatus {
    match live.status().is_ready() {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

/// Keeps reporting whether live lists allow this decider to serve. Never returns.
async fn follow(live: &Watch, health: &HealthReporter) {
    let mut reported = serving(live);
    loop {
        sleep(HEALTH_INTERVAL).await;
        let now = serving(live);
        if now != reported {
            match now {
                ServingStatus::Serving => info!("live lists are current: serving again"),
                _ => warn!("live lists are not current: not serving (IMPORTGUARD_ON_STALE_LISTS)"),
            }
            report(health, now).await;
            reported = now;
        }
    }
}

/// Sets the health status of the decider service and of the process.
async fn report(health: &HealthReporter, status: ServingStatus) {
    for service in [SERVICE_NAME, ""] {
        health.set_service_status(service, status).await;
    }
}
