//! How a trace and OpenIM's operationID travel: W3C `traceparent` and `baggage` over HTTP, gRPC metadata and NATS headers.
//!
//! Inside a process the operationID lives in the OpenTelemetry context of the span that serves the callback; every
//! child span, log line and outgoing header takes it from there. On the wire it travels beside the trace context: a header of
//! HTTP and of NATS messages, metadata of gRPC calls. Messages carry it as baggage, too, for subscribers whose tools copy that
//! onto spans. Baggage that arrives is ignored.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use importguard_core::{InvalidId, OperationId};
use opentelemetry::{
    Context,
    propagation::TextMapPropagator,
    trace::{SpanContext, TraceContextExt},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;

/// The operationID's name in gRPC metadata, which is lower case by HTTP/2's rule.
const OPERATION_ID_HEADER: HeaderName = HeaderName::from_static("operationid");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The caller's span that `headers` name, if they do, as a context that has the operationID and hands it on.
pub(crate) fn incoming(headers: &HeaderMap, operation_id: Option<&OperationId>) -> Context {
    let remote = TraceContextPropagator::new()
        .extract_with_context(&Context::new(), &HeaderExtractor(headers));
    match operation_id {
        Some(id) => remote.with_value(id.clone()),
        None => remote,
    }
}

/// The operationID that gRPC metadata carries.
pub fn metadata_operation_id(headers: &HeaderMap) -> Result<OperationId, InvalidId> {
    let value = headers.get(OPERATION_ID_HEADER).ok_or(InvalidId::Empty)?;
    OperationId::parse(value.to_str().map_err(|_| InvalidId::NotVisibleAscii)?)
}

/// The current span's context as headers for the next hop: `traceparent`, `tracestate` and `operationid`.
pub fn outgoing() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(3);
    Context::map_current(|cx| {
        TraceContextPropagator::new().inject_context(cx, &mut HeaderInjector(&mut headers));
        bound_trace_state(&mut headers);
        if let Some(id) = operation_id(cx) {
            // An OperationId is visible ASCII, and so a header's value as it is.
            if let Ok(id) = HeaderValue::from_str(id.as_str()) {
                headers.insert(OPERATION_ID_HEADER, id);
            }
        }
    });
    headers
}

/// W3C Trace Context, section 3.3.1.5: 512 bytes are handed on, members of more than 128 go first, then the rightmost. Callers
/// choose what is in it, and a decider's bounds are not theirs to exceed.
fn bound_trace_state(headers: &mut HeaderMap) {
    const MAX_BYTES: usize = 512;
    const LARGE_MEMBER: usize = 128;
    let state = headers
        .get(TRACE_STATE)
        .and_then(|state| state.to_str().ok());
    let Some(state) = state.filter(|state| state.len() > MAX_BYTES) else {
        return;
    };
    let small = state
        .split(',')
        .filter(|member| member.len() <= LARGE_MEMBER);
    let mut bounded = String::with_capacity(MAX_BYTES);
    for member in small {
        if bounded.len() + 1 + member.len() > MAX_BYTES {
            break;
        }
        if !bounded.is_empty() {
            bounded.push(',');
        }
        bounded.push_str(member);
    }
    match HeaderValue::from_str(&bounded) {
        Ok(bounded) if !bounded.is_empty() => headers.insert(TRACE_STATE, bounded),
        _ => headers.remove(TRACE_STATE),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baggage_survives_signs_that_readers_split_at_or_decode() {
        let id = OperationId::parse("a%41=b,c;d-1").unwrap();
        assert_eq!(baggage(&id), "operationID=a%2541%3Db%2Cc%3Bd-1");
    }

    #[test]
    fn a_trace_state_is_bounded_from_its_large_members_and_its_end() {
        let bounded = |state: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TRACE_STATE, HeaderValue::from_str(state).unwrap());
            bound_trace_state(&mut headers);
            let state = headers
                .get(TRACE_STATE)
                .map(|state| state.to_str().unwrap().to_owned());
            state.unwrap_or_default()
        };
        let member =
            |name: &str, bytes: usize| format!("{name}={}", "x".repeat(bytes - name.len() - 1));
        let fits = [member("a", 300), member("b", 211)].join(",");
        assert_eq!(fits.len(), 512);
        assert_eq!(bounded(&fits), fits);
        let (small, large) = (member("s", 128), member("l", 129));
        let many = [&*large, &small, &small, &large, &small, "last=1"].join(",");
        assert_eq!(
            bounded(&many),
            [&*small, &small, &small, "last=1"].join(",")
        );
        let all = [&*small; 5].join(",");
        assert_eq!(bounded(&all), [&*small; 3].join(","));
        assert_eq!(bounded(&member("huge", 16_000)), "");
    }

    #[test]
    fn no_trace_means_no_traceparent() {
        assert_eq!(traceparent(&SpanContext::empty_context()), None);
    }
}
