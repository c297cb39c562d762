//! How a process runs: logs and traces, signals, the admin listener, and what its parts share.

use std::{
    env, fmt, future::pending, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration,
};

use clap::{Args, Parser};
use importguard_telemetry::{
    TelemetrySettings,
    metrics::{Exposition, PolicyInfo, ProcessMetrics, UnsupportedExporterError, encode},
};
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    FileWatches, Readiness, ThreadSettings, admin, bind, environment, memory, settings::address,
    signals, threads::serve_on, whole_text,
};

/// Time limit for exporting the last spans.
const TRACE_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings that every process has.
#[derive(Args, Clone, Debug)]
pub struct RuntimeSettings {
    /// Listen address for /livez, /readyz and /metrics
    #[arg(
        long,
        env = "IMPORTGUARD_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081",
        value_parser = address,
        help_heading = "Admin",
        global = true
    )]
    pub admin_listen: SocketAddr,

    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: TelemetrySettings,

    /// The tokio runtime.
    #[command(flatten)]
    pub threads: ThreadSettings,
}

/// What the parts of a process share.
pub struct Runtime {
    /// The process's metrics.
    pub registry: SharedRegistry,
    /// The policies that the process reports in its metrics.
    pub policies: PolicyInfo,
    /// The files that are reloaded when they change.
    pub files: FileWatches,
    /// What `/readyz` reports.
    pub readiness: Readiness,
    /// Cancelled when the process must shut down.
    pub shutdown: CancellationToken,
}

/// A registry that can be scraped while its process still starts and registers metrics. Clones share it.
#[derive(Clone, Debug)]
pub struct SharedRegistry(Arc<RwLock<Registry>>);

impl SharedRegistry {
    /// Has `register` register metrics. It must not call this again.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        // Consistent even after a panic: metrics are only appended.
        register(&mut self.0.write())
    }

    /// The metrics in the format that the scraper's `Accept` headers ask for.
    ///
    /// # Errors
    /// If a metric cannot be encoded.
    pub fn encode<'a>(
        &self,
        accept: impl IntoIterator<Item = &'a str>,
    ) -> Result<Exposition, fmt::Error> {
        encode(&self.0.read(), accept)
    }
}

/// The `main` of a process: parses the command line and runs `command`. SIGHUP and SIGXFSZ do not terminate it.
pub fn main<C: Parser>(command: impl FnOnce(C) -> anyhow::Result<ExitCode>) -> ExitCode {
    let survives = signals::survive();
    let cli = environment::parse(env::args_os());
    conclude(survives.map_err(Into::into).and_then(|()| command(cli)))
}

/// The exit code for `result`: 1 for an error, which is written to standard error. Flushes the log, for up to one second.
pub fn conclude(result: anyhow::Result<ExitCode>) -> ExitCode {
    let code = result.unwrap_or_else(|error| {
        importguard_telemetry::log_failure(&whole_text(error.as_ref()));
        ExitCode::FAILURE
    });
    importguard_telemetry::flush_log();
    code
}

impl RuntimeSettings {
    /// Runs `service`, named `name` and `instance` in traces, until it returns, which it should when [`Runtime::shutdown`] is
    /// cancelled by SIGTERM or Ctrl-C. The admin listener is up before `service` begins.
    ///
    /// # Errors
    /// If `service` fails, or telemetry, signal handlers or the admin listener cannot be set up.
    pub fn run(
        &self,
        name: &str,
        instance: Option<&str>,
        service: impl AsyncFnOnce(Runtime) -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        serve_on(self.threads, async {
            let telemetry = importguard_telemetry::init(name, instance, &self.telemetry)?;
            environment::report_retired();
            let ended = self.serve(signals::shutdown()?, service).await;
            telemetry.shutdown(TRACE_FLUSH_TIMEOUT).await;
            if ended.is_ok() {
                tracing::info!("stopped");
            }
            ended.map(|()| ExitCode::SUCCESS)
        })?
    }

    async fn serve(
        &self,
        shutdown: CancellationToken,
        service: impl AsyncFnOnce(Runtime) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let listener = bind(self.admin_listen, "IMPORTGUARD_ADMIN_LISTEN")?.listen()?;
        let runtime = Runtime::new(shutdown)?;
        let readiness = runtime.readiness.clone();
        let admin = admin::serve(listener, runtime.registry.clone(), readiness.clone());
        let shutdown = runtime.shutdown.clone();
        let interrupted = async {
            shutdown.cancelled().await;
            if readiness.is_started() {
                pending().await
            }
        };
        tokio::select! {
            ended = service(runtime) => ended,
            never = admin => match never {},
            // Nothing is in progress during startup.
            () = interrupted => Ok(()),
        }
    }
}

impl Runtime {
    /// A runtime with its own metrics and without an admin listener.
    ///
    /// # Errors
    /// If the environment selects another metrics exporter than Prometheus.
    pub fn new(shutdown: CancellationToken) -> Result<Self, UnsupportedExporterError> {
        let ProcessMetrics {
            mut registry,
            policies,
        } = ProcessMetrics::new()?;
        let files = FileWatches::new(&mut registry);
        let readiness = Readiness::new(shutdown.clone());
        readiness.add("files", files.status());
        Ok(Self {
            registry: SharedRegistry(Arc::new(RwLock::new(registry))),
            policies,
            files,
            readiness,
            shutdown,
        })
    }

    /// Marks startup as complete, and runs the file watchers until `serving` completes. Meanwhile, the memory of bursts is returned.
    pub async fn run<T>(mut self, serving: impl Future<Output = T>) -> T {
        self.readiness.set_started();
        tokio::select! {
            served = serving => served,
            never = self.files.run() => match never {},
            never = memory::return_unused() => match never {},
        }
    }
}
