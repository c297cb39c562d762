//! Spans: the server span of a request, and its child spans.
//!
//! The server span is created by the SDK directly, as its IDs are always needed, for log lines and outgoing headers. Child spans are
//! `tracing` spans, created only if the trace is sampled: `bench/README.md` has what that saves.

use std::{borrow::Cow, fmt::Display, sync::OnceLock, time::SystemTime};

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

/// Sets the tracer that creates spans. Only the first call has an effect.
pub(crate) fn set_tracer(tracer: SdkTracer) {
    let _ = TRACER.set(tracer);
}

/// Without set-up, as in a unit test, spans have IDs and are not recorded.
fn tracer() -> &'static SdkTracer {
    TRACER.get_or_init(|| {
        let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        trace::tracer(&SdkTracerProvider::builder().with_sampler(sampler).build())
    })
}

/// The span of a request that this process serves. It ends when it is dropped, or by [`end_at`](Self::end_at).
#[derive(Debug)]
pub struct ServerSpan(Context);

impl ServerSpan {
    /// Starts the span of a request with these `headers`, which `began` then, as a child of the caller's span if they name one. Spans
    /// and log lines in its scope have the operationID.
    pub fn start(
        headers: &HeaderMap,
        operation_id: Option<&OperationId>,
        name: impl Into<Cow<'static, str>>,
        began: SystemTime,
    ) -> Self {
        let parent = propagation::incoming(headers, operation_id);
        let builder = tracer().span_builder(name).with_kind(SpanKind::Server);
        let builder = builder.with_start_time(began);
        let span = builder.start_with_context(tracer(), &parent);
        Self(parent.with_span(span))
    }

    /// The span in whose scope this is called, so that work which continues elsewhere is part of the same request.
    pub fn current() -> Self {
        Self(Context::current())
    }

    /// Sets attributes. `attributes` is only called if the span is recorded.
    pub fn set<A: IntoIterator<Item = KeyValue>>(&self, attributes: impl FnOnce() -> A) {
        let span = self.0.span();
        if span.is_recording() {
            span.set_attributes(attributes());
        }
    }

    /// Marks the request as failed by an error of this process or of a dependency.
    pub fn fail(&self, why: impl Into<Cow<'static, str>>) {
        self.0.span().set_status(Status::error(why));
    }

    /// Ends it, with a time in the past as its end.
    pub fn end_at(&self, time: SystemTime) {
        self.0.span().end_with_timestamp(time);
    }

    /// Runs `scope` inside this span.
    pub fn in_scope<T>(&self, scope: impl FnOnce() -> T) -> T {
        let _attached = self.0.clone().attach();
        scope()
    }

    /// Wraps `future` so that each poll runs inside this span.
    pub fn instrument<F: Future>(&self, future: F) -> WithContext<F> {
        future.with_context(self.0.clone())
    }
}

/// Whether the current span is sampled and recorded.
pub fn sampled() -> bool {
    Context::map_current(|cx| cx.span().span_context().is_sampled() && cx.span().is_recording())
}

/// The span that `make` creates, if the current one is sampled and recorded.
pub fn child(make: impl FnOnce() -> Span) -> Span {
    if sampled() { make() } else { Span::none() }
}

/// Sets attributes on the current span. `attributes` is only called if it is recorded.
pub fn set<A: IntoIterator<Item = KeyValue>>(attributes: impl FnOnce() -> A) {
    Context::map_current(|cx| {
        if cx.span().is_recording() {
            cx.span().set_attributes(attributes());
        }
    });
}

/// Marks a span as failed. `error_type` must have few distinct values.
pub fn failed(span: &Span, error_type: &str, error: &dyn Display) {
    if !span.is_none() {
        span.set_attribute("error.type", error_type.to_owned());
        span.set_status(Status::error(error.to_string()));
    }
}

/// Adds an event to the current span, if it is recorded; not a log line.
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

/// An HTTP method for a span's name, and for the attribute `http.request.method`, as OpenTelemetry's conventions define them for known
/// and other methods.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_span_can_be_entered_on_another_thread() {
        let id = OperationId::parse("op").unwrap();
        let headers = HeaderMap::new();
        let span = ServerSpan::start(&headers, Some(&id), "span", SystemTime::now());
        let current = span.in_scope(ServerSpan::current);
        let headers = || current.in_scope(propagation::outgoing);
        let elsewhere = std::thread::scope(|scope| scope.spawn(headers).join().unwrap());
        assert_eq!(elsewhere, span.in_scope(propagation::outgoing));
        assert_eq!(elsewhere["operationid"], "op");
    }
}
