use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request::Parts};
use importguard_telemetry::propagation;

/// Hop-by-hop headers (RFC 9110, section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The headers of the trace context. The operationID header is OpenIM's own and stays unchanged.
const TRACE: [HeaderName; 2] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// How often a request may pass through importguard: one gateway may forward to another.
const MAX_PASSES: usize = 3;

/// Whether a request was forwarded so often that it goes round in circles (RFC 9110, section 7.6.3).
pub(super) fn is_loop(headers: &HeaderMap) -> bool {
    let passes = headers.get_all(header::VIA).iter();
    let passes = passes.filter_map(|value| value.to_str().ok());
    let passes = passes.flat_map(|value| value.split(','));
    passes
        .filter(|pass| pass.trim().ends_with(" importguard"))
        .count()
        >= MAX_PASSES
}

/// The headers of a forwarded request: OpenIM's end-to-end headers and the trace context. `Host` is replaced by the backend's; `Expect`
/// is removed, as importguard itself has fulfilled it; `Authorization` is only forwarded if `with_authorization`.
pub(super) fn request(head: &Parts, with_authorization: bool) -> HeaderMap {
    let mut headers = end_to_end(head.headers.clone());
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    if !with_authorization {
        headers.remove(header::AUTHORIZATION);
    }
    let mut trace = propagation::outgoing();
    for name in TRACE {
        // A malformed value is not forwarded.
        headers.remove(&name);
        if let Some(value) = trace.remove(&name) {
            headers.insert(name, value);
        }
    }
    let received = match head.version {
        Version::HTTP_2 => "2.0 importguard",
        _ => "1.1 importguard",
    };
    headers.append(header::VIA, HeaderValue::from_static(received));
    headers
}

/// The headers without hop-by-hop headers, and without the length of a body that comes in chunks (RFC 9112, section 6.3).
pub(super) fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hop_by_hop_headers_are_removed() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Mine"),
            ("connection", "x-too"),
            ("keep-alive", "timeout=5"),
            ("x-mine", "1"),
            ("x-too", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("operationid", "op"),
            ("operationid", "twice"),
        ] {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_static(value));
        }
        let left = end_to_end(headers);
        let names: Vec<_> = left.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["operationid", "operationid"]);
    }
}
