use std::fmt;

/// A W3C `traceparent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// Whether the caller samples the trace.
    pub sampled: bool,
}

impl TraceParent {
    /// A context that is unique to `number`.
    pub fn numbered(number: u64) -> Self {
        Self {
            trace_id: format!("0af7651916cd43dd{number:016x}"),
            span_id: format!("{:016x}", number | 0xb7ad_0000_0000_0000),
            sampled: true,
        }
    }

    /// Reads a header's value strictly.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id, span_id, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |s: &str, length| {
            s.len() == length && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        let whole = parts.next().is_none()
            && version == "00"
            && lower_hex(trace_id, 32)
            && lower_hex(span_id, 16)
            && lower_hex(flags, 2);
        whole.then(|| Self {
            trace_id: trace_id.to_owned(),
            span_id: span_id.to_owned(),
            sampled: flags == "01",
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.sampled);
        write!(f, "00-{}-{}-{flags:02x}", self.trace_id, self.span_id)
    }
}
