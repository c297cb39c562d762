//! The trace of one request that this process serves.
//!
//! Whether it is recorded is decided before a span is made of it. What is not recorded is no more than its ids: they are in the
//! OpenTelemetry context, from where log lines and outgoing headers take them, and cost next to nothing.

use std::{
    pin::Pin,
    sync::OnceLock,
    task::{self, Poll},
    time::{Instant, SystemTime},
};

use http::HeaderMap;
use importguard_core::OperationId;
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceFlags, Tracer,
    },
};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, SamplingDecision, SamplingResult, SdkTracer, ShouldSample,
};
use pin_project_lite::pin_project;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::{choice::Choice, keep::KeepSlow};
use crate::{PerSecond, propagation};

static TRACING: OnceLock<Tracing> = OnceLock::new();

/// How this process traces.
#[derive(Debug)]
pub(super) struct Tracing {
    pub(super) sampler: Box<dyn ShouldSample>,
    /// Where spans are sent from; absent where nobody takes them.
    pub(super) tracer: Option<SdkTracer>,
    pub(super) slow: KeepSlow,
    pub(super) rate: PerSecond,
}

/// Says once how this process traces.
pub(super) fn install(tracing: Tracing) {
    // There is one subscriber in a process, and whoever would be second has failed by now.
    let _ = TRACING.set(tracing);
}

/// One request that is being served: its span if it is recorded, else only its ids.
#[derive(Debug)]
pub struct Served {
    span: Span,
    context: Context,
    /// What a span could still be made of, where it is this process's own choice that none was.
    late: Option<Late>,
}

#[derive(Debug)]
struct Late {
    began: Instant,
    parent: Context,
}

/// How a request ended, as far as its trace is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending<'a> {
    /// As it should.
    Well,
    /// By its caller's fault.
    Rejected,
    /// By ours, in these words.
    Failed(&'a str),
}

impl Served {
    /// Begins serving a request that came with `headers`, as a part of its caller's trace if they name one. `span` makes the
    /// span, if it is to be recorded. All that happens meanwhile belongs to the operation.
    pub fn begin(
        headers: &HeaderMap,
        operation_id: Option<&OperationId>,
        span: impl FnOnce() -> Span,
    ) -> Self {
        let began = Instant::now();
        let parent = propagation::incoming(headers, operation_id);
        let choice = choose(&parent);
        let sampled = choice.sampling.decision == SamplingDecision::RecordAndSample;
        let tracing = TRACING.get().filter(|tracing| tracing.tracer.is_some());
        if sampled && tracing.is_some() {
            let span = span();
            // Fails only where no OpenTelemetry layer is installed: then there is nothing to record.
            let _ = span.set_parent(parent);
            let context = choice.holds_for(|| span.context());
            return Self {
                span,
                context,
                late: None,
            };
        }
        let ids = SpanContext::new(
            choice.trace_id,
            choice.span_id,
            TraceFlags::default().with_sampled(sampled),
            false,
            choice.sampling.trace_state,
        );
        Self {
            span: Span::none(),
            context: parent.with_remote_span_context(ids),
            late: (tracing.is_some() && ours_to_choose(&parent)).then_some(Late { began, parent }),
        }
    }

    /// Runs `what` as a part of this.
    pub fn in_scope<T>(&self, what: impl FnOnce() -> T) -> T {
        if self.span.is_none() {
            let _attached = self.context.clone().attach();
            what()
        } else {
            self.span.in_scope(what)
        }
    }

    /// `future`, at every poll a part of this.
    pub fn serve<F: Future>(&self, future: F) -> Serving<F> {
        Serving {
            future,
            span: self.span.clone(),
            context: self.context.clone(),
        }
    }

    /// Tells what became of the request, on its span. Where there is none, one is made if that matters: it failed, was rejected
    /// or took long. `name` and `attributes` are only asked for if somebody reads them.
    pub fn end<A: IntoIterator<Item = KeyValue>>(
        self,
        kind: SpanKind,
        ending: Ending<'_>,
        name: impl FnOnce() -> String,
        attributes: impl FnOnce() -> A,
    ) {
        match self.late {
            None if self.span.is_none() => {}
            None => {
                let span = self.context.span();
                span.update_name(name());
                for attribute in attributes() {
                    span.set_attribute(attribute);
                }
                if let Ending::Failed(why) = ending {
                    span.set_status(Status::error(why.to_owned()));
                }
            }
            Some(late) => {
                if late.matters(ending) {
                    late.send(
                        self.context.span().span_context(),
                        kind,
                        ending,
                        name(),
                        attributes(),
                    );
                }
            }
        }
    }
}

impl Late {
    fn matters(&self, ending: Ending<'_>) -> bool {
        let Some(tracing) = TRACING.get() else {
            return false;
        };
        let KeepSlow::After(slow) = tracing.slow else {
            return false;
        };
        (ending != Ending::Well || self.began.elapsed() >= slow) && tracing.rate.take()
    }

    fn send(
        &self,
        ids: &SpanContext,
        kind: SpanKind,
        ending: Ending<'_>,
        name: String,
        attributes: impl IntoIterator<Item = KeyValue>,
    ) {
        let Some(tracer) = TRACING.get().and_then(|tracing| tracing.tracer.as_ref()) else {
            return;
        };
        let builder = SpanBuilder {
            span_kind: Some(kind),
            start_time: SystemTime::now().checked_sub(self.began.elapsed()),
            attributes: Some(attributes.into_iter().collect()),
            ..SpanBuilder::from_name(name)
        };
        let choice = Choice {
            trace_id: ids.trace_id(),
            span_id: ids.span_id(),
            sampling: SamplingResult {
                decision: SamplingDecision::RecordAndSample,
                attributes: Vec::new(),
                trace_state: ids.trace_state().clone(),
            },
        };
        let mut span = choice.holds_for(|| tracer.build_with_context(builder, &self.parent));
        if let Ending::Failed(why) = ending {
            span.set_status(Status::error(why.to_owned()));
        }
        span.end();
    }
}

/// Ids for a new part of the trace of `parent`, or of a new one, and whether it is recorded.
fn choose(parent: &Context) -> Choice {
    let random = RandomIdGenerator::default();
    let span = parent.span();
    let caller = Some(span.span_context()).filter(|ids| ids.is_valid());
    let trace_id = caller.map_or_else(|| random.new_trace_id(), SpanContext::trace_id);
    let sampling = match TRACING.get() {
        // The attributes of a span are not known yet; none of OpenTelemetry's samplers asks for them.
        Some(tracing) => {
            let sampler = &tracing.sampler;
            sampler.should_sample(Some(parent), trace_id, "", &SpanKind::Server, &[], &[])
        }
        None => SamplingResult {
            decision: SamplingDecision::Drop,
            attributes: Vec::new(),
            trace_state: caller
                .map(|ids| ids.trace_state().clone())
                .unwrap_or_default(),
        },
    };
    Choice {
        trace_id,
        span_id: random.new_span_id(),
        sampling,
    }
}

/// Whether it is this process's own choice not to sample: a caller that says so is obeyed.
fn ours_to_choose(parent: &Context) -> bool {
    let span = parent.span();
    let caller = span.span_context();
    !caller.is_valid() || caller.is_sampled()
}

pin_project! {
    /// A future that is a part of a [`Served`] request.
    pub struct Serving<F> {
        #[pin]
        future: F,
        span: Span,
        context: Context,
    }
}

impl<F: Future> Future for Serving<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if this.span.is_none() {
            let _attached = this.context.clone().attach();
            this.future.poll(cx)
        } else {
            let _entered = this.span.enter();
            this.future.poll(cx)
        }
    }
}
