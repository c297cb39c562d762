use std::{io, sync::Arc, time::Duration};

use importguard_proto::decider::{DESCRIPTORS, decider_server::DeciderServer};
use importguard_telemetry::{
    admin::{self, Admin, Readiness},
    metrics,
};
use prometheus::Registry;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::TcpIncoming};
use tracing::{info, warn};

use crate::{
    Settings, in_force::InForce, metrics::Metrics, policy::Diagnostics, reload::Reloader,
    service::DeciderService,
};

/// A decider with its policy loaded, ready to serve.
pub struct Decider {
    policy: InForce,
    reloader: Reloader,
    metrics: Metrics,
    instance: String,
    shutdown_timeout: Duration,
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
    /// A listener failed.
    #[error("a listener failed: {0}")]
    Listener(#[from] io::Error),
    /// A metric is registered twice.
    #[error("the metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
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
    let registry = metrics::registry()?;
    let decider = Decider::start(settings, &registry)?;
    let parts = decider.readiness();
    let stopping = shutdown.clone();
    let admin = Admin {
        registry,
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
        failed = admin::serve(listeners.admin, admin) => Ok(failed?),
    }
}

impl Decider {
    /// Loads the policy. Blocks while lists are read.
    pub fn start(settings: &Settings, registry: &Registry) -> Result<Self, RunError> {
        let metrics = Metrics::register(registry)?;
        let (reloader, policy) = Reloader::start(
            settings.policy.policy.clone(),
            settings.policy.reload_interval,
            metrics.clone(),
        )
        .map_err(RunError::Policy)?;
        let grpc = &settings.grpc;
        Ok(Self {
            policy,
            reloader,
            metrics,
            instance: grpc
                .decider_instance
                .clone()
                .unwrap_or_else(importguard_telemetry::instance),
            shutdown_timeout: grpc.shutdown_timeout,
        })
    }

    /// What `/readyz` tells of the decider.
    pub fn readiness(&self) -> impl Fn() -> Map<String, Value> + Send + Sync + 'static {
        let policy = self.policy.clone();
        move || Map::from_iter([("policy".to_owned(), policy.describe())])
    }

    /// Answers on `listener` until `shutdown` is cancelled; then finishes what is under way, within the settings' time.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(), RunError> {
        let (health_reporter, health) = tonic_health::server::health_reporter();
        let service = DeciderServer::new(DeciderService::new(
            self.policy,
            self.metrics,
            self.instance,
        ))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
        health_reporter
            .set_serving::<DeciderServer<DeciderService>>()
            .await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let server = Server::builder()
            .add_service(health)
            .add_service(reflection)
            .add_service(service)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                shutdown.clone().cancelled_owned(),
            );
        let overdue = async {
            shutdown.cancelled().await;
            health_reporter
                .set_not_serving::<DeciderServer<DeciderService>>()
                .await;
            tokio::time::sleep(self.shutdown_timeout).await;
        };
        tokio::select! {
            served = server => served?,
            failed = self.reloader.run() => failed?,
            () = overdue => warn!("some calls were still open when IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT was over; they were cut"),
        }
        Ok(())
    }
}

/// Twice the gateway's default for a callback's body: the same ids with gRPC's framing are smaller than their JSON.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
