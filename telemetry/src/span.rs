//! What is told on spans, built only where somebody will read it: without an OTLP endpoint, and for what sampling leaves out, a
//! span is no more than its ids.

use std::fmt::Display;

use http::Method;
use opentelemetry::{
    Context,
    trace::{Status, TraceContextExt},
};
pub use opentelemetry::{KeyValue, trace::SpanKind};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Whether the span that is entered is recorded. Its attributes are set only then.
pub fn recorded() -> bool {
    Context::map_current(|cx| cx.has_active_span() && cx.span().is_recording())
}

/// The span that `make` makes, if the one that is entered is recorded: what belongs to the others is recorded no more than they
/// are.
pub fn child(make: impl FnOnce() -> Span) -> Span {
    if recorded() { make() } else { Span::none() }
}

/// Marks a span as failed: of which kind, of which there must be few, and why.
pub fn failed(span: &Span, error_type: &str, why: &dyn Display) {
    if !span.is_none() {
        span.set_attribute("error.type", error_type.to_owned());
        span.set_status(Status::error(why.to_string()));
    }
}

/// Puts an event on the span that is entered, if that is recorded. It is no log line.
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

/// An HTTP method in a span's name and in its attribute `http.request.method`: a caller can make up any, and OpenTelemetry's
/// conventions know these.
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
