//! How a trace and OpenIM's operationID travel: W3C `traceparent` and `baggage` over HTTP, gRPC metadata and NATS headers.
//!
//! Inside a process the operationID lives in the OpenTelemetry context of the span that serves the callback; every
//! child span, log line and outgoing header takes it from there. On the wire it is the one baggage entry
//! `operationID`. Baggage that arrives is ignored: each hop states the id itself (HTTP header, gRPC message).

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use importguard_proto::OperationId;
use opentelemetry::{
    Context,
    propagation::TextMapPropagator,
    trace::{SpanContext, TraceContextExt},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// The operationID's name in gRPC metadata, which is lower case by HTTP/2's rule.
const OPERATION_ID_HEADER: HeaderName = HeaderName::from_static("operationid");
const BAGGAGE_HEADER: HeaderName = HeaderName::from_static("baggage");

/// The caller's span that `headers` name, if they do, as a context that has the operationID and hands it on.
pub(crate) fn incoming(headers: &HeaderMap, operation_id: Option<&OperationId>) -> Context {
    let remote = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &HeaderExtractor(headers));
    match operation_id {
        Some(id) => remote.with_value(id.clone()),
        None => remote,
    }
}

/// The current span's context as headers for the next hop: `traceparent`, `tracestate`, `baggage` and `operationid`.
pub fn outgoing() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    Context::map_current(|cx| {
        TraceContextPropagator::new().inject_context(cx, &mut HeaderInjector(&mut headers));
        if let Some(id) = operation_id(cx) {
            insert(&mut headers, BAGGAGE_HEADER, &baggage(id));
            insert(&mut headers, OPERATION_ID_HEADER, id.as_str());
        }
    });
    headers
}

/// The current span's context as message headers hold it.
pub fn message_headers() -> MessageHeaders {
    Context::map_current(|cx| MessageHeaders {
        traceparent: traceparent(cx.span().span_context()),
        baggage: operation_id(cx).map(baggage),
    })
}

/// The trace headers of a NATS message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageHeaders {
    /// W3C Trace Context, level 1; absent outside of any trace.
    pub traceparent: Option<String>,
    /// W3C Baggage with the operationID.
    pub baggage: Option<String>,
}

/// The operationID that `cx` belongs to.
pub(crate) fn operation_id(cx: &Context) -> Option<&OperationId> {
    cx.get::<OperationId>()
}

fn traceparent(span: &SpanContext) -> Option<String> {
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8() & 1
        )
    })
}

/// W3C Baggage, section 3.3.1: what is not an unreserved character is percent-encoded, `%` and `=` included, because
/// readers decode the one and split at the other.
fn baggage(id: &OperationId) -> String {
    let mut entry = String::with_capacity("operationID=".len() + id.as_str().len());
    entry.push_str("operationID=");
    for byte in id.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            entry.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(entry, "%{byte:02X}");
        }
    }
    entry
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // An OperationId is visible ASCII, and so is its baggage; both are header values as they are.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baggage_survives_signs_that_readers_split_at_or_decode() {
        let id = OperationId::parse("a%41=b,c;d-1").unwrap();
        assert_eq!(baggage(&id), "operationID=a%2541%3Db%2Cc%3Bd-1");
    }

    #[test]
    fn no_trace_means_no_traceparent() {
        assert_eq!(traceparent(&SpanContext::empty_context()), None);
    }
}
