//! Propagation of traces and OpenIM's operationID: W3C Trace Context (levels 1 and 2) and Baggage over HTTP, gRPC metadata and NATS
//! headers.
//!
//! Inside a process the operationID is in the OpenTelemetry context of the request's span, from which child spans, log lines and
//! outgoing headers take it. Between processes it is sent next to the trace context: as an HTTP header, a NATS header or gRPC
//! metadata. Messages also carry it as baggage, for subscribers whose tools copy baggage to spans. Incoming baggage is ignored.
//!
//! The headers are parsed and written here because the SDK's propagator continues traces that it must not (malformed version 00,
//! repeated headers), reads only one `tracestate` header, and drops the random flag.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderName, HeaderValue};
use importguard_core::{IdError, OperationId};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The operationID's name in gRPC metadata, in lower case as HTTP/2 requires.
const OPERATION_ID: HeaderName = HeaderName::from_static("operationid");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The length of `traceparent` in version 00.
const TRACE_PARENT_BYTES: usize = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".len();

/// Set if the trace ID is random (Trace Context, level 2, section 3.2.2.5.2).
const RANDOM: TraceFlags = TraceFlags::new(0x02);

/// Parts of an incoming context that the SDK's span context cannot hold.
#[derive(Debug)]
struct Carried {
    operation_id: Option<OperationId>,
    /// The `tracestate` to propagate: the SDK's type rejects keys that level 2 allows.
    trace_state: Option<Arc<str>>,
    /// The caller's flag. IDs that are created here are random too, but do not say so: older versions of OpenTelemetry for Go, such as
    /// 1.36, discard a `traceparent` with this flag and the sampled one.
    random: bool,
}

/// The trace context of a message, as header values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageHeaders {
    /// W3C Trace Context; absent outside a trace.
    pub traceparent: Option<String>,
    /// W3C Trace Context: vendor-specific data, at most 512 bytes.
    pub tracestate: Option<String>,
    /// W3C Baggage with the operationID.
    pub baggage: Option<String>,
}

/// A context with the caller's span, if `headers` name one, and the operationID.
pub(crate) fn incoming(headers: &HeaderMap, operation_id: Option<&OperationId>) -> Context {
    let parent = trace_parent(headers);
    let trace_state = parent.as_ref().and_then(|_| trace_state(headers));
    let carried = Carried {
        operation_id: operation_id.cloned(),
        random: parent.is_some_and(|(_, _, flags)| flags & RANDOM == RANDOM),
        trace_state: trace_state.as_deref().map(Arc::from),
    };
    let cx = Context::new().with_value(carried);
    match parent {
        None => cx,
        Some((trace_id, span_id, flags)) => {
            let state = trace_state.and_then(|state| state.parse().ok());
            let state = state.unwrap_or_default();
            cx.with_remote_span_context(SpanContext::new(trace_id, span_id, flags, true, state))
        }
    }
}

/// The operationID in gRPC metadata.
pub fn metadata_operation_id(headers: &HeaderMap) -> Result<OperationId, IdError> {
    let value = headers.get(OPERATION_ID).ok_or(IdError::Empty)?;
    OperationId::parse(value.to_str().map_err(|_| IdError::NotVisibleAscii)?)
}

/// The current context as headers for the next hop: `traceparent`, `tracestate` and `operationid`.
pub fn outgoing() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(3);
    Context::map_current(|cx| {
        // All three are visible ASCII, and so valid header values.
        let mut insert = |name, value: Option<&str>| {
            if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
                headers.insert(name, value);
            }
        };
        insert(TRACE_PARENT, traceparent(cx).as_deref());
        insert(TRACE_STATE, tracestate(cx));
        insert(OPERATION_ID, operation_id(cx).map(OperationId::as_str));
    });
    headers
}

/// The current context as message headers.
pub fn message_headers() -> MessageHeaders {
    Context::map_current(|cx| MessageHeaders {
        traceparent: traceparent(cx),
        tracestate: tracestate(cx).map(str::to_owned),
        baggage: operation_id(cx).map(baggage),
    })
}

/// The operationID in `cx`.
pub(crate) fn operation_id(cx: &Context) -> Option<&OperationId> {
    cx.get::<Carried>()?.operation_id.as_ref()
}

fn tracestate(cx: &Context) -> Option<&str> {
    cx.get::<Carried>()?.trace_state.as_deref()
}

fn traceparent(cx: &Context) -> Option<String> {
    let span = cx.span();
    let span = span.span_context();
    if !span.is_valid() {
        return None;
    }
    let random = cx.get::<Carried>().is_some_and(|carried| carried.random);
    let flags = span.trace_flags() & TraceFlags::SAMPLED;
    let flags = if random { flags | RANDOM } else { flags };
    let mut header = String::with_capacity(TRACE_PARENT_BYTES);
    // Takes a twentieth of the instructions of the IDs' own `Display`.
    header.push_str("00-");
    HEXLOWER.encode_append(&span.trace_id().to_bytes(), &mut header);
    header.push('-');
    HEXLOWER.encode_append(&span.span_id().to_bytes(), &mut header);
    header.push('-');
    HEXLOWER.encode_append(&[flags.to_u8()], &mut header);
    Some(header)
}

/// Parses `traceparent` (Trace Context, section 3.2): one header, lower case; version 00 has a fixed length, later versions may append
/// fields after another dash.
fn trace_parent(headers: &HeaderMap) -> Option<(TraceId, SpanId, TraceFlags)> {
    let mut all = headers.get_all(TRACE_PARENT).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return None;
    };
    let value = value.to_str().ok()?.trim_matches([' ', '\t']);
    let (known, later) = value.split_at_checked(TRACE_PARENT_BYTES)?;
    let is_hex = |text: &str| {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.bytes().all(lower)
    };
    let mut parts = known.split('-');
    let (version, trace_id, span_id, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version, trace_id, span_id, flags].map(str::len);
    let later = later.is_empty() || (version != "00" && later.starts_with('-'));
    if lengths != [2, 32, 16, 2] || version == "ff" || !later || !known.split('-').all(is_hex) {
        return None;
    }
    let trace_id = TraceId::from_hex(trace_id).ok()?;
    let span_id = SpanId::from_hex(span_id).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let valid = trace_id != TraceId::INVALID && span_id != SpanId::INVALID;
    valid.then_some((trace_id, span_id, flags & (TraceFlags::SAMPLED | RANDOM)))
}

/// Parses `tracestate` (Trace Context, section 3.3): several headers form one list of at most 32 members; an invalid member invalidates
/// the whole list. The result is bounded, as callers choose its content.
fn trace_state(headers: &HeaderMap) -> Option<String> {
    let mut members = Vec::new();
    for value in headers.get_all(TRACE_STATE) {
        let listed = value.to_str().ok()?.split(',');
        let listed = listed.map(|member| member.trim_matches([' ', '\t']));
        members.extend(listed.filter(|member| !member.is_empty()));
    }
    let valid = members.len() <= 32 && members.iter().all(|member| is_member(member));
    if !valid {
        return None;
    }
    Some(bounded(&members)).filter(|state| !state.is_empty())
}

/// Whether it is a list member, `key=value` (level 2, section 3.3.1.3).
fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else {
        return false;
    };
    let starts = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let in_key = |byte: u8| starts(byte) || b"_-*/@".contains(&byte);
    let in_value = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=' && byte != b',';
    (1..=256).contains(&key.len())
        && key.bytes().next().is_some_and(starts)
        && key.bytes().all(in_key)
        && (1..=256).contains(&value.len())
        && value.bytes().all(in_value)
}

/// Limits the list to 512 bytes (section 3.3.1.5): first drops members of more than 128 bytes, then the last ones.
fn bounded(members: &[&str]) -> String {
    const MAX_BYTES: usize = 512;
    const LARGE_MEMBER: usize = 128;
    let all = members.join(",");
    if all.len() <= MAX_BYTES {
        return all;
    }
    let mut bounded = String::with_capacity(MAX_BYTES);
    for member in members.iter().filter(|member| member.len() <= LARGE_MEMBER) {
        if bounded.len() + 1 + member.len() > MAX_BYTES {
            break;
        }
        if !bounded.is_empty() {
            bounded.push(',');
        }
        bounded.push_str(member);
    }
    bounded
}

/// All characters that Baggage percent-encodes: all but the unreserved ones (section 3.3.1). `%` is one, which readers decode, and `=`, at
/// which they split.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The operationID as W3C Baggage.
fn baggage(id: &OperationId) -> String {
    format!("operationID={}", utf8_percent_encode(id.as_str(), ENCODED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn headers(all: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = all
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        let mut headers = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    /// The `traceparent` and `tracestate` that a request with these headers propagates.
    fn propagated(all: &[(HeaderName, &str)]) -> (String, Option<String>) {
        let _attached = incoming(&headers(all), None).attach();
        let sent = outgoing();
        let text = |name| {
            sent.get(name)
                .map(|value: &HeaderValue| value.to_str().unwrap().to_owned())
        };
        (text(TRACE_PARENT).unwrap_or_default(), text(TRACE_STATE))
    }

    fn state(values: &[&str]) -> Option<String> {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let mut all = vec![(TRACE_PARENT, &*parent)];
        all.extend(values.iter().map(|value| (TRACE_STATE, *value)));
        propagated(&all).1
    }

    #[test]
    fn special_characters_in_baggage_are_escaped() {
        let id = OperationId::parse("a%41=b,c;d-1").unwrap();
        assert_eq!(baggage(&id), "operationID=a%2541%3Db%2Cc%3Bd-1");
    }

    #[test]
    fn a_well_formed_parent_is_continued_with_its_sampled_and_random_flags() {
        for (flags, sent) in [
            ("00", "00"),
            ("01", "01"),
            ("02", "02"),
            ("03", "03"),
            ("ff", "03"),
        ] {
            let came = format!("00-{TRACE}-{SPAN}-{flags}");
            assert_eq!(
                propagated(&[(TRACE_PARENT, &came)]).0,
                format!("00-{TRACE}-{SPAN}-{sent}")
            );
        }
        for later in ["", "-", "-what-the-future-will-be-like"] {
            let came = format!("cc-{TRACE}-{SPAN}-01{later}");
            assert_eq!(
                propagated(&[(TRACE_PARENT, &came)]).0,
                format!("00-{TRACE}-{SPAN}-01")
            );
        }
        let padded = format!("\t 00-{TRACE}-{SPAN}-01 \t");
        assert_eq!(
            propagated(&[(TRACE_PARENT, &padded)]).0,
            format!("00-{TRACE}-{SPAN}-01")
        );
    }

    #[test]
    fn a_malformed_parent_is_not_continued() {
        let zeros = "0".repeat(32);
        for came in [
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01.x"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("00-{TRACE}0-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}0-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[16..]),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("000-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!(".0-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like"),
            format!("00-{TRACE}-{SPAN}"),
            "é".repeat(28),
            String::new(),
        ] {
            assert_eq!(
                propagated(&[(TRACE_PARENT, &came), (TRACE_STATE, "a=1")]),
                (String::new(), None),
                "{came}"
            );
        }
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let twice = [(TRACE_PARENT, &*parent), (TRACE_PARENT, &*parent)];
        assert_eq!(propagated(&twice).0, "", "a repeated header");
    }

    #[test]
    fn several_tracestate_headers_are_one_list() {
        assert_eq!(
            state(&["foo=1,bar=2", "", "rojo=1 \t,\t congo=2"]).unwrap(),
            "foo=1,bar=2,rojo=1,congo=2"
        );
        for allowed in [
            "foo@=1,bar=2",
            "foo@@bar=1",
            "0tenant@vendor=x y",
            &format!("{}=1", "z".repeat(256)),
        ] {
            assert_eq!(state(&[allowed]).as_deref(), Some(allowed));
        }
        let members = |count: usize| {
            (0..count)
                .map(|number| format!("k{number}=v"))
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(state(&[&members(32)]), Some(members(32)));
        assert_eq!(state(&[&members(33)]), None);
    }

    #[test]
    fn a_tracestate_with_a_malformed_member_is_discarded() {
        for malformed in [
            "foo =1",
            "FOO=1",
            "foo.bar=1",
            "@foo=1,bar=2",
            "foo=bar=baz",
            "foo=,bar=3",
            "foo",
            &format!("{}=1", "z".repeat(257)),
        ] {
            assert_eq!(state(&["first=1", malformed]), None, "{malformed}");
        }
    }

    #[test]
    fn a_long_tracestate_loses_large_members_and_then_its_last_ones() {
        let member =
            |name: &str, bytes: usize| format!("{name}={}", "x".repeat(bytes - name.len() - 1));
        let fits = [member("a", 250), member("b", 250), member("c", 10)].join(",");
        assert_eq!(fits.len(), 512);
        assert_eq!(state(&[&fits]), Some(fits));
        let (small, large) = (member("s", 128), member("l", 129));
        let many = [&*large, &small, &small, &large, &small, "last=1"].join(",");
        assert_eq!(
            state(&[&many]).unwrap(),
            [&*small, &small, &small, "last=1"].join(",")
        );
        let all = [&*small; 5].join(",");
        assert_eq!(state(&[&all]).unwrap(), [&*small; 3].join(","));
        let huge = [&*member("a", 250), &member("b", 250), &member("c", 250)].join(",");
        assert_eq!(state(&[&huge]), None);
    }

    #[test]
    fn no_trace_means_no_traceparent() {
        assert_eq!(traceparent(&Context::new()), None);
    }
}
