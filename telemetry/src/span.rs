//! Spans: the one of a request that this process serves, and those of what is done for it.
//!
//! The first is made by the SDK directly, as its IDs are needed in any case, for log lines and outgoing headers. The others are
//! spans of `tracing`, made only where the trace is sampled: `bench/README.md` has what that saves.

use std::{fmt::Display, sync::OnceLock, time::SystemTime};

use http::{HeaderMap, Method};
use importguard_core::OperationId;
use opentelemetry::{
    Context,
    context::{FutureExt, WithContext},
    trace::{Status, TraceContextExt, Tracer},
};
pub use opentelemetry::{KeyValue, trace::SpanKind};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{propagation, trace};

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Has spans made by this tracer. The first one that is set stays.
pub(crate) fn set_tracer(tracer: SdkTracer) {
    let _ = TRACER.set(tracer);
}

/// Where nothing was set up, as in a unit test: IDs, and nothing recorded.
fn tracer() -> &'static SdkTracer {
    TRACER.get_or_init(|| {
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        trace::tracer(&SdkTracerProvider::builder().with_sampler(sampler).build())
    })
}

/// The span of a request that this process serves. It ends when it is dropped, or when it was [ended](Self::end_at).
#[derive(Debug)]
pub struct ServerSpan(Context);

impl ServerSpan {
    /// Begins serving a request that came with `headers`, as a part of its caller's trace if they name one. What happens in this
    /// span belongs to the operation.
    pub fn start(headers: &HeaderMap, operation_id: Option<&OperationId>, name: String) -> Self {
        let parent = propagation::incoming(headers, operation_id);
        let builder = tracer().span_builder(name).with_kind(SpanKind::Server);
        let span = builder.start_with_context(tracer(), &parent);
        Self(parent.with_span(span))
    }

    /// Sets attributes, which are only made if the span is recorded.
    pub fn set<A: IntoIterator<Item = KeyValue>>(&self, attributes: impl FnOnce() -> A) {
        let span = self.0.span();
        if span.is_recording() {
            span.set_attributes(attributes());
        }
    }

    /// Marks the request as failed by a fault of this process or of what it depends on.
    pub fn fail(&self, why: &'static str) {
        self.0.span().set_status(Status::error(why));
    }

    /// Ends it at a moment that has passed.
    pub fn end_at(&self, time: SystemTime) {
        self.0.span().end_with_timestamp(time);
    }

    /// Runs `what` as a part of this.
    pub fn in_scope<T>(&self, what: impl FnOnce() -> T) -> T {
        let _attached = self.0.clone().attach();
        what()
    }

    /// `future`, at every poll a part of this.
    pub fn instrument<F: Future>(&self, future: F) -> WithContext<F> {
        future.with_context(self.0.clone())
    }
}

/// Whether the current span is sampled: then everybody along the trace records their part.
pub fn sampled() -> bool {
    Context::map_current(|cx| cx.span().span_context().is_sampled() && cx.span().is_recording())
}

/// The span that `make` makes, if the current one is sampled and recorded here.
pub fn child(make: impl FnOnce() -> Span) -> Span {
    if sampled() { make() } else { Span::none() }
}

/// Sets attributes on the current span, which are only made if it is recorded.
pub fn set<A: IntoIterator<Item = KeyValue>>(attributes: impl FnOnce() -> A) {
    Context::map_current(|cx| {
        if cx.span().is_recording() {
            cx.span().set_attributes(attributes());
        }
    });
}

/// Marks a span as failed: `error_type` is one of few kinds.
pub fn failed(span: &Span, error_type: &str, why: &dyn Display) {
    if !span.is_none() {
        span.set_attribute("error.type", error_type.to_owned());
        span.set_status(Status::error(why.to_string()));
    }
}

/// Adds an event to the current span, if that is recorded. It is no log line.
pub fn event(name: &'static str, attributes: &[(&'static str, &str)]) {
    Context::map_current(|cx| {
        let span = cx.span();
        if span.is_recording() {
            let attributes = attributes
                .iter()
                .map(|&(name, value)| KeyValue::new(name, value.to_owned()));
            span.add_event(name, attributes.collect());
        }
    });
}

/// An HTTP method as it stands in a span's name, and as the attribute `http.request.method`: callers can make up any method, and
/// OpenTelemetry's conventions know these.
pub fn method(method: &Method) -> (&str, &str) {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::CONNECT
        | Method::OPTIONS
        | Method::TRACE
        | Method::PATCH => (method.as_str(), method.as_str()),
        _ => ("HTTP", "_OTHER"),
    }
}
