//! What both pods need to be seen: traces, logs, and the propagation of OpenIM's operationID.
//! Set up once per process by [`init`]; domain code only uses the `tracing` macros.

mod environment;
mod exporter;
mod log;
pub mod metrics;
mod per_second;
pub mod propagation;
mod silence;
pub mod span;
mod trace;

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

use clap::{Args, ValueEnum};
pub use environment::EnvironmentError;
pub use log::flush as flush_log;
use opentelemetry_sdk::trace::SdkTracerProvider;
pub use per_second::{PerSecond, Summary};
pub use trace::{KeepSlow, KeepSlowError, TraceSettings};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{self, FilterExt},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// How log lines are written. `RUST_LOG` chooses which (default `info`).
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs")]
pub struct LogSettings {
    /// Format of the log on standard error. RUST_LOG selects the lines (default: info)
    #[arg(
        long,
        env = "IMPORTGUARD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "human"
    )]
    pub log_format: LogFormat,
}

/// What a process is told about its logs and traces.
#[derive(Args, Clone, Debug)]
pub struct TelemetrySettings {
    /// Log lines.
    #[command(flatten)]
    pub log: LogSettings,
    /// Spans.
    #[command(flatten)]
    pub trace: TraceSettings,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For a terminal
    Human,
    /// One JSON object per line
    Json,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A variable of OpenTelemetry's has a value that is not supported.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The exporter refuses its settings.
    #[error("the OTLP exporter cannot be set up: {0}; check the OTEL_EXPORTER_OTLP_ variables")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A file with a certificate or a key for the OTLP endpoint is not PEM.
    // The library's error would repeat lines of the file.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE or _CLIENT_KEY is not PEM")]
    Pem,
    /// The system has no certificates to know an https endpoint by.
    #[error(
        "the system's root certificates cannot be read: {0}; name a file with some in OTEL_EXPORTER_OTLP_CERTIFICATE"
    )]
    Roots(std::io::Error),
    /// TLS cannot be spoken with the OTLP endpoint as the variables say.
    #[error(
        "TLS with the OTLP endpoint cannot be set up: {0}; check OTEL_EXPORTER_OTLP_CERTIFICATE and _CLIENT_KEY"
    )]
    Tls(#[from] rustls::Error),
    /// `RUST_LOG` cannot be read.
    #[error(
        "RUST_LOG cannot be read: {0}; write for example RUST_LOG=info,importguard_gateway=debug"
    )]
    Filter(#[from] filter::ParseError),
    /// The thread that writes log lines cannot be started.
    #[error("log lines cannot be written: {0}")]
    Log(#[from] std::io::Error),
    /// Another subscriber is already in place.
    #[error("telemetry is already set up in this process: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps the exporter alive; [`Telemetry::shutdown`] sends what is left.
#[must_use = "spans that wait for their batch are lost unless `shutdown` is awaited"]
pub struct Telemetry {
    provider: SdkTracerProvider,
}

/// Starts traces and logs for this process. `service_name` holds where `OTEL_SERVICE_NAME` says nothing, `instance` tells this
/// process from others of the service. Traces are exported when `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) is set;
/// IDs are made and handed on in any case. Must be called inside a tokio runtime.
pub fn init(
    service_name: &str,
    instance: Option<&str>,
    settings: &TelemetrySettings,
) -> Result<Telemetry, InitError> {
    let instance = instance.map_or_else(own_instance, str::to_owned);
    let provider = trace::provider(service_name, &instance, &settings.trace)?;
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let env = log_filter(directives.as_deref())?;
    silence::report(service_name, directives.as_deref(), settings.log.log_format);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let standard_error = log::start(settings.log.log_format)?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(standard_error)
        .with_ansi(colour)
        .with_target(false);
    let lines = match settings.log.log_format {
        LogFormat::Human => lines.fmt_fields(log::HumanFields).boxed(),
        LogFormat::Json => lines.event_format(log::JsonLine).boxed(),
    };
    // Each layer has its own filter: one for all at `warn` would disable the spans and with them every header.
    let lines = lines.with_filter(
        filter::filter_fn(|meta| meta.is_event() && !exporter::is_export_line(meta)).and(env),
    );
    let spans = tracing_opentelemetry::layer()
        .with_tracer(trace::tracer(&provider))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(filter::filter_fn(|meta| {
            // Of log lines, spans have warnings and errors: the rest is in their attributes.
            let least = if meta.is_span() {
                Level::INFO
            } else {
                Level::WARN
            };
            *meta.level() <= least && meta.target().starts_with("importguard")
        }));
    tracing_subscriber::registry()
        .with(spans)
        .with(lines)
        .with(exporter::CountRejected.with_filter(filter::filter_fn(exporter::is_partial_success)))
        .try_init()?;
    span::set_tracer(trace::tracer(&provider));
    std::panic::set_hook(Box::new(log::panicked));
    Ok(Telemetry { provider })
}

/// The NATS client tells of each attempt to connect at `info`; what matters of that, the recorder says once. Whoever names
/// the client in `RUST_LOG` gets its lines.
fn log_filter(directives: Option<&str>) -> Result<EnvFilter, filter::ParseError> {
    let directives = directives.filter(|text| !text.is_empty()).unwrap_or("info");
    EnvFilter::try_new(format!("async_nats=warn,{directives}"))
}

impl Telemetry {
    /// Sends the spans that wait for their batch, and gives up after `within`.
    pub async fn shutdown(self, within: Duration) {
        // The exporter needs a worker of the runtime while this thread waits for it.
        let flushed =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(within)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last spans may not have reached the OTLP endpoint");
        }
    }
}

/// Writes what a process fails with to standard error, in the form of its log lines.
pub fn log_failure(error: &str) {
    // This writer counts what it cannot write.
    let _ = log::StandardError.write_all(log::failure(error).as_bytes());
}

/// What tells this process from others on this host and elsewhere.
fn own_instance() -> String {
    format!("{}-{}", instance(), std::process::id())
}

/// This process's name in events and answers where no setting gives one: the host's, which is the pod's in Kubernetes.
pub fn instance() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// For the end of each binary's `--help`: what is set by environment variables that are not importguard's own.
pub const ENVIRONMENT_HELP: &str = "\
Standard environment variables:
  RUST_LOG                       which log lines are written, for example warn or info,importguard_gateway=debug (default: info)
  NO_COLOR                       no colours, also on a terminal
  OTEL_EXPORTER_OTLP_ENDPOINT    where traces are sent, for example http://127.0.0.1:4317; none are sent without it
  OTEL_EXPORTER_OTLP_PROTOCOL    grpc (default) or http/protobuf
  OTEL_EXPORTER_OTLP_HEADERS     headers for the endpoint, as name=value,…; _COMPRESSION, _TIMEOUT, _CERTIFICATE,
                                 _CLIENT_CERTIFICATE, _CLIENT_KEY and _INSECURE work as OpenTelemetry defines them
  OTEL_SERVICE_NAME              the service's name in traces
  OTEL_RESOURCE_ATTRIBUTES       further attributes of this process, as name=value,…
  OTEL_TRACES_SAMPLER            which traces are sampled (default: parentbased_always_on), with OTEL_TRACES_SAMPLER_ARG
  OTEL_BSP_SCHEDULE_DELAY        milliseconds between exports (default: 5000); OTEL_BSP_MAX_QUEUE_SIZE and
                                 OTEL_BSP_MAX_EXPORT_BATCH_SIZE bound what waits and what is sent at once
  OTEL_SDK_DISABLED              true: no traces are sent; OTEL_TRACES_EXPORTER=none does the same";
