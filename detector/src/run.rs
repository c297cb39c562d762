//! The detector's process.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::context::ContextBuilder;
use importguard_nats::{NatsSettings, NatsSettingsError};
use importguard_runtime::Runtime;
use importguard_yaml::diagnostic::Diagnostics;
use tracing::{info, warn};

use crate::{
    context::Context, follow::Follower, metrics::Metrics, settings::Settings, status::Status,
};

/// Request timeout. A cluster elects a leader in less time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the detector cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The rules are invalid.
    #[error("{0}")]
    Rules(Diagnostics),
    /// The NATS settings are invalid.
    #[error(transparent)]
    NatsSettings(#[from] NatsSettingsError),
    /// The NATS client rejects its options.
    #[error("cannot set up the connection to NATS: {0}")]
    Nats(#[from] async_nats::ConnectError),
}

/// Runs the detector until `runtime` shuts down.
///
/// # Errors
/// If the rules or the settings are invalid. It is not an error if NATS is unreachable: the detector retries.
pub async fn run(
    settings: &Settings,
    nats: &NatsSettings,
    mut runtime: Runtime,
) -> Result<(), RunError> {
    let rules = Arc::new(settings.load_rules().map_err(RunError::Rules)?);
    let status = Status::default();
    let metrics = runtime.registry.register(|registry| {
        registry.register_collector(Box::new(status.clone()));
        Metrics::register(registry, &rules)
    });
    let (described, ready) = (status.clone(), status.clone());
    runtime
        .readiness
        .add("detector", move || described.describe());
    runtime.readiness.require(move || ready.is_reading());
    let servers = nats
        .servers("importguard-detect", &mut runtime.files)
        .await?;
    if let Some(warning) = servers.warning {
        warn!("{warning}");
    }
    info!("connecting to NATS at {}", servers.names());
    let lost = status.clone();
    let report = move |cause: String| {
        if lost.interrupted(&cause) {
            warn!("not detecting: {cause}; retrying");
        }
    };
    let servers = servers.on_failure(report);
    let client = servers.connect_in_background().await?;
    let context = Context {
        settings: settings.clone(),
        rules,
        jetstream: ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client),
        metrics,
        status,
        shutdown: runtime.shutdown.clone(),
    };
    runtime.run(Follower::new(&context).run()).await;
    Ok(())
}
