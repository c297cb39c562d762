//! What is sent of the traces that the sampler leaves out.
//!
//! A sampler decides when a trace begins, before anybody knows how it ends. So where this process begins the trace, spans that
//! were not sampled are recorded all the same, and those that turn out to matter are sent when they end, each by itself.

use std::{
    str::FromStr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanContext, SpanKind, Status, TraceContextExt, TraceId},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SamplingDecision, SamplingResult, ShouldSample, Span, SpanData, SpanProcessor},
};

/// The attribute of a request that was rejected: what its caller was told. Its span is none of an error, as the caller's fault
/// is none in OpenTelemetry's conventions.
const REJECTION_CODE: &str = "importguard.rejection.code";

/// How many are sent in a second, at a kilobyte each: enough to see what is wrong, and no flood of spans from a flood of
/// requests.
const PER_SECOND: u32 = 100;

/// From when on a span is slow enough to be sent although it was not sampled, as those are that failed or were rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepSlow {
    /// From this duration on.
    After(Duration),
    /// Nothing is sent but what was sampled.
    Never,
}

/// Why a text is no [`KeepSlow`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}; write a duration such as 500ms, or never")]
pub struct InvalidKeepSlow(humantime::DurationError);

impl FromStr for KeepSlow {
    type Err = InvalidKeepSlow;

    fn from_str(text: &str) -> Result<Self, InvalidKeepSlow> {
        match text {
            "never" => Ok(Self::Never),
            _ => humantime::parse_duration(text)
                .map(Self::After)
                .map_err(InvalidKeepSlow),
        }
    }
}

/// Samples as another sampler does, and has what that leaves out recorded.
#[derive(Clone, Debug)]
pub(super) struct RecordTheRest(pub(super) Box<dyn ShouldSample>);

impl ShouldSample for RecordTheRest {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let chosen = self
            .0
            .should_sample(parent, trace_id, name, kind, attributes, links);
        match chosen.decision {
            SamplingDecision::Drop if begins_here(parent) => SamplingResult {
                decision: SamplingDecision::RecordOnly,
                ..chosen
            },
            _ => chosen,
        }
    }
}

/// Whether it is this process's own choice not to sample: a caller that says so is obeyed. Of what happens below a span that was
/// not sampled, that span tells enough.
fn begins_here(parent: Option<&Context>) -> bool {
    let Some(parent) = parent.filter(|cx| cx.span().span_context().is_valid()) else {
        return true;
    };
    let span = parent.span();
    span.span_context().is_remote() && span.span_context().is_sampled()
}

/// Passes on what was sampled, and of the rest what matters.
#[derive(Debug)]
pub(super) struct Keep<P> {
    next: P,
    slow: Duration,
    second: Mutex<Second>,
}

/// How many were sent in the second that began then.
#[derive(Debug)]
struct Second {
    began: Instant,
    sent: u32,
}

impl<P> Keep<P> {
    /// `slow` is from when on a span matters for its duration alone.
    pub(super) fn new(next: P, slow: Duration) -> Self {
        Self {
            next,
            slow,
            second: Mutex::new(Second {
                began: Instant::now(),
                sent: 0,
            }),
        }
    }

    fn matters(&self, span: &SpanData) -> bool {
        let took = span.end_time.duration_since(span.start_time);
        matches!(span.status, Status::Error { .. })
            || took.unwrap_or_default() >= self.slow
            || span
                .attributes
                .iter()
                .any(|attribute| attribute.key.as_str() == REJECTION_CODE)
    }

    fn one_more(&self) -> bool {
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        if second.began.elapsed() >= Duration::from_secs(1) {
            *second = Second {
                began: Instant::now(),
                sent: 0,
            };
        }
        let left = second.sent < PER_SECOND;
        second.sent += u32::from(left);
        left
    }
}

impl<P: SpanProcessor> SpanProcessor for Keep<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.next.on_start(span, cx);
    }

    fn on_end(&self, mut span: SpanData) {
        if !span.span_context.is_sampled() {
            if !(self.matters(&span) && self.one_more()) {
                return;
            }
            span.span_context = sampled(&span.span_context);
        }
        self.next.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

/// Exporters pass over what is not.
fn sampled(span: &SpanContext) -> SpanContext {
    SpanContext::new(
        span.trace_id(),
        span.span_id(),
        span.trace_flags().with_sampled(true),
        span.is_remote(),
        span.trace_state().clone(),
    )
}
