//! Observability of both processes: traces, logs, metrics, and the propagation of OpenIM's operationID.
//! Set up once per process by [`init`]; domain code only uses the `tracing` macros.

mod environment;
mod errors;
mod exporter;
mod file;
mod log;
pub mod metrics;
mod per_second;
pub mod propagation;
mod silence;
pub mod span;
mod trace;

use std::{io::IsTerminal, time::Duration};

use clap::{Args, ValueEnum};
pub use environment::EnvironmentError;
pub use errors::whole_text;
pub use file::read_file;
pub use log::{flush as flush_log, is_invisible};
use opentelemetry_sdk::trace::SdkTracerProvider;
pub use per_second::{Flood, PerSecond, Summary};
pub use trace::{KeepSlow, KeepSlowError, TraceSettings};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{self, FilterExt},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// How log lines are written. `RUST_LOG` selects them (default `info`).
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

/// The settings of logs and traces.
#[derive(Args, Clone, Debug)]
pub struct TelemetrySettings {
    /// Log lines.
    #[command(flatten)]
    pub log: LogSettings,
    /// Spans.
    #[command(flatten)]
    pub trace: TraceSettings,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For a terminal
    Human,
    /// One JSON object per line
    Json,
}

/// Telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// An OpenTelemetry variable has an unsupported value.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The exporter rejected its settings.
    #[error("cannot set up the OTLP exporter: {0}; check the OTEL_EXPORTER_OTLP_ variables")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A file with a certificate or a key for the OTLP endpoint is not PEM.
    // The library's error would repeat lines of the file.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE, _CLIENT_CERTIFICATE or _CLIENT_KEY is not PEM")]
    Pem,
    /// The system's root certificates cannot be read.
    #[error(
        "cannot read the system's root certificates: {0}; set OTEL_EXPORTER_OTLP_CERTIFICATE to a file with CA certificates"
    )]
    Roots(std::io::Error),
    /// TLS with the OTLP endpoint cannot be configured.
    #[error(
        "cannot set up TLS with the OTLP endpoint: {0}; check OTEL_EXPORTER_OTLP_CERTIFICATE and _CLIENT_KEY"
    )]
    Tls(#[from] rustls::Error),
    /// `RUST_LOG` is invalid.
    #[error("RUST_LOG is invalid: {0}; write for example RUST_LOG=info,importguard_gateway=debug")]
    Filter(#[from] filter::ParseError),
    /// The thread that writes log lines cannot be started.
    #[error("cannot start the log thread: {0}")]
    Log(#[from] std::io::Error),
    /// Another subscriber is already installed.
    #[error("telemetry is already set up in this process: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Keeps the exporter alive; [`Telemetry::shutdown`] exports the remaining spans.
#[must_use = "spans in the last batch are lost unless `shutdown` is awaited"]
pub struct Telemetry {
    provider: SdkTracerProvider,
}

/// Starts traces and logs for this process. `service_name` is the default of `OTEL_SERVICE_NAME`, `instance` identifies this process
/// among those of the service. Traces are exported if `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) is set; IDs are created
/// and propagated in any case. Must be called inside a tokio runtime.
pub fn init(
    service_name: &str,
    instance: Option<&str>,
    settings: &TelemetrySettings,
) -> Result<Telemetry, InitError> {
    // From here on, errors are in the log's format, too.
    log::start(settings.log.log_format)?;
    let instance = instance.map_or_else(own_instance, str::to_owned);
    let provider = trace::provider(service_name, &instance, &settings.trace)?;
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let env = log_filter(directives.as_deref())?;
    silence::report(service_name, directives.as_deref(), settings.log.log_format);
    // An empty NO_COLOR counts as unset (https://no-color.org).
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colour = std::io::stderr().is_terminal() && !no_colour;
    let lines = match settings.log.log_format {
        LogFormat::Human => tracing_subscriber::fmt::layer()
            .with_writer(|| &log::WRITER)
            .with_ansi(colour)
            .with_target(false)
            .fmt_fields(log::HumanFields)
            .boxed(),
        LogFormat::Json => log::JsonLines.boxed(),
    };
    // Each layer has its own filter: a common one at `warn` would disable the spans, and with them propagation.
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
            // Spans record only warnings and errors as events; their attributes have the rest.
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

/// Without the lines of two libraries: the NATS client logs each connection attempt and each failure of one, which the recorder reports
/// once; h2 logs each invalid frame, of which any peer can send a hundred thousand a second. `RUST_LOG` can select them by name.
fn log_filter(directives: Option<&str>) -> Result<EnvFilter, filter::ParseError> {
    let directives = directives.filter(|text| !text.is_empty()).unwrap_or("info");
    EnvFilter::try_new(format!("async_nats=off,h2=off,{directives}"))
}

impl Telemetry {
    /// Exports the remaining spans, and gives up after `within`.
    pub async fn shutdown(self, within: Duration) {
        // The exporter needs a worker thread of the runtime while this waits for it.
        let flushed =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(within)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last spans may not have reached the OTLP endpoint");
        }
    }
}

/// Writes the error that ends the process to standard error, in the log's format.
pub fn log_failure(error: &str) {
    log::WRITER.push(&log::failure(error));
}

/// Identifies this process on this host and elsewhere.
fn own_instance() -> String {
    format!("{}-{}", instance(), std::process::id())
}

/// The default instance name of this process: the host name, which in Kubernetes is the pod's name.
pub fn instance() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// The end of each binary's `--help`: standard environment variables.
pub const ENVIRONMENT_HELP: &str = "\
Standard environment variables:
  RUST_LOG                        selects log lines, for example warn or info,importguard_gateway=debug (default: info)
  NO_COLOR                        disables colours
  OTEL_EXPORTER_OTLP_ENDPOINT     endpoint for traces, for example http://127.0.0.1:4317; without it, none are exported
  OTEL_EXPORTER_OTLP_PROTOCOL     grpc (default) or http/protobuf
  OTEL_EXPORTER_OTLP_HEADERS      request headers, as name=value,…
  OTEL_EXPORTER_OTLP_COMPRESSION  none (default) or gzip
  OTEL_EXPORTER_OTLP_CERTIFICATE  file with CA certificates for an https endpoint (default: the system's)
  OTEL_SERVICE_NAME               service name in traces
  OTEL_RESOURCE_ATTRIBUTES        more resource attributes, as name=value,…
  OTEL_TRACES_SAMPLER             sampler (default: parentbased_always_on), with OTEL_TRACES_SAMPLER_ARG
  OTEL_BSP_SCHEDULE_DELAY         milliseconds between exports (default: 5000)
  OTEL_BSP_MAX_QUEUE_SIZE         spans that may wait for an export (default: 2048)
  OTEL_SDK_DISABLED               true disables the export of traces, as OTEL_TRACES_EXPORTER=none does";
