mod choice;
mod export;
mod keep;
mod served;

use clap::Args;
use opentelemetry::{Context, KeyValue, Value, trace::TracerProvider as _};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchSpanProcessor, Config, Sampler, SdkTracer, SdkTracerProvider, ShouldSample, Span,
        SpanData, SpanProcessor,
    },
};

pub(crate) use self::export::{is_told_here, lost};
use self::{
    choice::{ChosenIds, ChosenSampling},
    export::Exporter,
    keep::PER_SECOND,
    served::Tracing,
};
pub use self::{
    keep::{InvalidKeepSlow, KeepSlow},
    served::{Ending, Served, Serving},
};
use crate::{InitError, propagation};

/// Which spans are sent beyond those that `OTEL_TRACES_SAMPLER` samples.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub struct TraceSettings {
    /// Export a callback's span even if it was not sampled, when it failed, was rejected, or took at least this long; `never` to
    /// export only sampled spans. At most 100 such spans are exported per second
    // The default of IMPORTGUARD_DECIDER_TIMEOUT, and a tenth of OpenIM's timeout.
    #[arg(
        long,
        env = "IMPORTGUARD_TRACE_SLOW",
        value_name = "DURATION",
        default_value = "500ms"
    )]
    pub trace_slow: KeepSlow,
}

/// The attribute that every span of a callback carries.
const OPERATION_ID: &str = "openim.operation_id";

/// A provider with an OTLP exporter if the environment names an endpoint. Without one nobody reads our spans, so none is
/// recorded; the ids are handed on all the same.
pub(crate) fn provider(service_name: &'static str) -> Result<SdkTracerProvider, InitError> {
    let builder = SdkTracerProvider::builder()
        .with_resource(resource(service_name))
        .with_id_generator(ChosenIds::default())
        .with_sampler(ChosenSampling(sampler()))
        .with_span_processor(OperationIdOnEverySpan);
    if !exporting() {
        return Ok(builder.build());
    }
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let batches = BatchSpanProcessor::builder(Exporter::new(exporter)).build();
    Ok(builder.with_span_processor(batches).build())
}

/// Has every [`Served`] request traced by `provider`. To be called once, when spans have their subscriber.
pub(crate) fn install(provider: &SdkTracerProvider, settings: &TraceSettings) {
    served::install(Tracing {
        sampler: sampler(),
        tracer: exporting().then(|| tracer(provider)),
        slow: settings.trace_slow,
        rate: crate::PerSecond::new(PER_SECOND),
    });
}

pub(crate) fn tracer(provider: &SdkTracerProvider) -> SdkTracer {
    provider.tracer("importguard")
}

/// The SDK's: `OTEL_TRACES_SAMPLER`, parent-based and always on by default.
fn sampler() -> Box<dyn ShouldSample> {
    if exporting() {
        Config::default().sampler
    } else {
        Box::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
    }
}

fn exporting() -> bool {
    [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ]
    .iter()
    .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

fn resource(service_name: &'static str) -> Resource {
    let detected = Resource::builder().build();
    let named = detected
        .get(&"service.name".into())
        .is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let builder = Resource::builder().with_attribute(KeyValue::new(
        "service.version",
        Value::from(env!("CARGO_PKG_VERSION")),
    ));
    if named {
        builder.build()
    } else {
        builder.with_service_name(service_name).build()
    }
}

/// Copies the operationID of the callback being served onto each span that starts while it is.
#[derive(Debug)]
struct OperationIdOnEverySpan;

impl SpanProcessor for OperationIdOnEverySpan {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        use opentelemetry::trace::Span as _;
        if !span.is_recording() {
            return;
        }
        if let Some(id) = propagation::operation_id(cx) {
            span.set_attribute(KeyValue::new(OPERATION_ID, id.as_str().to_owned()));
        }
    }

    fn on_end(&self, _span: SpanData) {}

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: std::time::Duration) -> OTelSdkResult {
        Ok(())
    }
}
