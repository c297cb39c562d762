//! Which spans are recorded and exported.
//!
//! A sampler decides when a trace begins, before its outcome is known. So the server span of a request that was not sampled is still
//! recorded, without children, and exported if the request failed, was rejected or was slow.

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

/// Maximum number of unsampled spans exported per second, at a kilobyte each: enough to diagnose a problem, and no flood of spans from
/// a flood of requests.
const UNSAMPLED_PER_SECOND: u32 = 100;

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

/// When an unsampled span is slow enough to be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepSlow {
    /// From this duration on.
    After(Duration),
    /// Never: only sampled spans are exported.
    Never,
}

/// An invalid [`KeepSlow`].
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

/// A provider that exports spans if the environment names an OTLP endpoint. Without one, spans have IDs and are propagated with the
/// caller's sampling decision.
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
        kept: PerSecond::new(UNSAMPLED_PER_SECOND),
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

/// The resource; attributes from the environment take precedence.
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

/// Records the server spans that a sampler drops, without sampling them: whether they matter is known when they end. A caller's
/// decision not to sample is respected.
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
        let rejected_by_caller = parent.is_some_and(|parent| {
            let span = parent.span();
            span.span_context().is_valid() && !span.span_context().is_sampled()
        });
        if result.decision == SamplingDecision::Drop
            && *kind == SpanKind::Server
            && !rejected_by_caller
        {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}

/// Adds the operationID to each span, and exports those that were sampled or that matter.
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
            // The exporter only exports sampled spans.
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

/// Whether a request failed, was rejected or was slow.
fn matters(span: &SpanData, slow: KeepSlow) -> bool {
    let rejected = |attribute: &KeyValue| match (attribute.key.as_str(), &attribute.value) {
        ("http.response.status_code", Value::I64(status)) => *status >= 400,
        // An after-callback is answered with 200 even if it is rejected.
        ("importguard.rejection.code", _) => true,
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
