//! Which spans are recorded and exported.
//!
//! A sampler decides when a trace begins, before anybody knows how it ends. So a request that the sampler leaves out is recorded
//! all the same, without children, and exported if it failed, was rejected or took long.

use std::{str::FromStr, sync::Arc, time::Duration};

use clap::Args;
use opentelemetry::{
    Context, InstrumentationScope, KeyValue, Value,
    trace::{Link, SpanContext, SpanKind, Status, TraceContextExt, TraceId, TracerProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult,
        SdkTracer, SdkTracerProvider, ShouldSample, Span, SpanData, SpanProcessor,
    },
};

use crate::{
    InitError, PerSecond,
    environment::Environment,
    exporter::{Queue, exporter},
    propagation,
};

/// How many spans that were not sampled are exported in a second, at a kilobyte each: enough to see what is wrong, and no flood
/// of spans from a flood of requests.
const KEPT_PER_SECOND: u32 = 100;

/// Which spans are exported beyond those that `OTEL_TRACES_SAMPLER` samples.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Traces")]
pub struct TraceSettings {
    /// Export a callback's span even if it was not sampled, when it failed, was rejected, or took at least this long; `never`
    /// exports none of them
    // The default of IMPORTGUARD_DECIDER_TIMEOUT, and a tenth of the time for which OpenIM waits.
    #[arg(
        long,
        env = "IMPORTGUARD_TRACE_SLOW",
        value_name = "DURATION",
        default_value = "500ms"
    )]
    pub trace_slow: KeepSlow,
}

/// From when on a span is slow enough to be exported although it was not sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepSlow {
    /// From this duration on.
    After(Duration),
    /// Only sampled spans are exported, whatever became of the others.
    Never,
}

/// Why a text is no [`KeepSlow`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}; write a duration such as 500ms, or never")]
pub struct KeepSlowError(humantime::DurationError);

impl FromStr for KeepSlow {
    type Err = KeepSlowError;

    fn from_str(text: &str) -> Result<Self, KeepSlowError> {
        match text {
            "never" => Ok(Self::Never),
            _ => humantime::parse_duration(text)
                .map(Self::After)
                .map_err(KeepSlowError),
        }
    }
}

/// A provider that exports spans where the environment names an OTLP endpoint. Without one, spans have their IDs and are handed
/// on, and the caller decides about sampling.
pub(crate) fn provider(
    service_name: &str,
    instance: &str,
    settings: &TraceSettings,
) -> Result<SdkTracerProvider, InitError> {
    let environment = Environment::of_process();
    let builder = SdkTracerProvider::builder()
        .with_resource(resource(environment.resource(service_name)?, instance));
    let sampler = environment.sampler()?;
    let Some(otlp) = environment.otlp()? else {
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        return Ok(builder.with_sampler(sampler).build());
    };
    let queue = Arc::new(Queue::new(otlp.max_queue_size));
    let batch = BatchSpanProcessor::builder(exporter(&otlp, Arc::clone(&queue))?)
        .with_batch_config(
            BatchConfigBuilder::default()
                .with_max_queue_size(otlp.max_queue_size)
                .build(),
        )
        .build();
    let export = Export {
        batch,
        queue,
        slow: settings.trace_slow,
        kept: PerSecond::new(KEPT_PER_SECOND),
    };
    let builder = match settings.trace_slow {
        KeepSlow::After(_) => builder.with_sampler(RecordUnsampled(sampler)),
        KeepSlow::Never => builder.with_sampler(sampler),
    };
    Ok(builder.with_span_processor(export).build())
}

pub(crate) fn tracer(provider: &SdkTracerProvider) -> SdkTracer {
    let scope =
        InstrumentationScope::builder("importguard").with_version(env!("CARGO_PKG_VERSION"));
    provider.tracer_with_scope(scope.build())
}

/// What the environment says wins over what is known here.
fn resource(attributes: Vec<(String, String)>, instance: &str) -> Resource {
    let known = [
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ];
    let attributes = attributes
        .into_iter()
        .map(|(name, value)| KeyValue::new(name, value));
    Resource::builder()
        .with_attributes(known)
        .with_attributes(attributes)
        .build()
}

/// Has the spans of requests that a sampler drops recorded without being sampled: whether they matter is known at their end. A
/// caller who says that its trace is not sampled is obeyed.
#[derive(Clone, Debug)]
struct RecordUnsampled(Sampler);

impl ShouldSample for RecordUnsampled {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self
            .0
            .should_sample(parent, trace_id, name, kind, attributes, links);
        let unwanted = parent.is_some_and(|parent| {
            let span = parent.span();
            span.span_context().is_valid() && !span.span_context().is_sampled()
        });
        if result.decision == SamplingDecision::Drop && *kind == SpanKind::Server && !unwanted {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}

/// Puts the operationID on each span and exports those that were sampled or turned out to matter.
#[derive(Debug)]
struct Export {
    batch: BatchSpanProcessor,
    queue: Arc<Queue>,
    slow: KeepSlow,
    kept: PerSecond,
}

impl SpanProcessor for Export {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        use opentelemetry::trace::Span as _;
        if let Some(id) = propagation::operation_id(cx) {
            span.set_attribute(KeyValue::new("openim.operation_id", id.as_str().to_owned()));
        }
    }

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            if !matters(&span, self.slow) || !self.kept.take() {
                return;
            }
            // What is not sampled is not exported.
            span.span_context = sampled(&span.span_context);
        }
        if self.queue.enter() {
            self.batch.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batch.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batch.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batch.set_resource(resource);
    }
}

/// Whether a request failed, was rejected or took long.
fn matters(span: &SpanData, slow: KeepSlow) -> bool {
    let rejected = |attribute: &KeyValue| match (attribute.key.as_str(), &attribute.value) {
        ("http.response.status_code", Value::I64(status)) => *status >= 400,
        ("rpc.response.status_code", status) => status.as_str() != "OK",
        _ => false,
    };
    let took = span.end_time.duration_since(span.start_time);
    matches!(slow, KeepSlow::After(slow) if took.is_ok_and(|took| took >= slow))
        || matches!(span.status, Status::Error { .. })
        || span.attributes.iter().any(rejected)
}

fn sampled(ids: &SpanContext) -> SpanContext {
    SpanContext::new(
        ids.trace_id(),
        ids.span_id(),
        ids.trace_flags().with_sampled(true),
        ids.is_remote(),
        ids.trace_state().clone(),
    )
}
