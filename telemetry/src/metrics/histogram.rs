use std::{
    fmt,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context,
    trace::{SpanId, TraceContextExt, TraceId},
};
use prometheus_client::{
    encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder},
    metrics::{exemplar::HistogramWithExemplars, family::Family},
};

/// A histogram of durations in seconds whose buckets link to traces.
pub type DurationHistogram = HistogramWithExemplars<TraceExemplar>;

/// A family of duration histograms.
pub type HistogramFamily<L> = Family<L, DurationHistogram, fn() -> DurationHistogram>;

/// The span in which a value was observed.
#[derive(Clone, Copy, Debug)]
pub struct TraceExemplar {
    trace_id: TraceId,
    span_id: SpanId,
}

impl TraceExemplar {
    /// The current span, if it is sampled: others are not exported.
    fn current() -> Option<Self> {
        Context::map_current(|cx| {
            let span = cx.span();
            let ids = span.span_context();
            (ids.is_valid() && ids.is_sampled()).then(|| Self {
                trace_id: ids.trace_id(),
                span_id: ids.span_id(),
            })
        })
    }
}

impl EncodeLabelSet for TraceExemplar {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("trace_id", self.trace_id.to_string()).encode(encoder.encode_label())?;
        ("span_id", self.span_id.to_string()).encode(encoder.encode_label())
    }
}

/// Adds a duration to `histogram`, with the current span as its bucket's exemplar if that is sampled.
pub fn observe(histogram: &DurationHistogram, took: Duration) {
    let exemplar = TraceExemplar::current();
    let now = exemplar.map(|_| SystemTime::now());
    histogram.observe(took.as_secs_f64(), exemplar, now);
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, TraceFlags, TraceState};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics::{encode, register};

    fn observed(flags: TraceFlags) -> String {
        let mut registry = Registry::default();
        let histogram = DurationHistogram::new([0.5].into_iter());
        let histogram = register(&mut registry, "example_seconds", "Seconds", histogram);
        let ids = SpanContext::new(
            TraceId::from(0xabc),
            SpanId::from(0xdef),
            flags,
            false,
            TraceState::default(),
        );
        let span = Context::new().with_remote_span_context(ids);
        let _attached = span.attach();
        observe(&histogram, Duration::from_millis(250));
        let accept = ["application/openmetrics-text"];
        encode(&registry, accept).unwrap().text
    }

    #[test]
    fn a_bucket_links_to_the_sampled_span_in_which_it_was_observed() {
        let text = observed(TraceFlags::SAMPLED);
        let bucket = "example_seconds_bucket{le=\"0.5\"} 1 # \
            {trace_id=\"00000000000000000000000000000abc\",span_id=\"0000000000000def\"} 0.25 ";
        assert!(text.contains(bucket), "{text}");
    }

    #[test]
    fn a_bucket_links_to_no_span_that_is_not_sampled() {
        let text = observed(TraceFlags::default());
        assert!(
            text.contains("example_seconds_bucket{le=\"0.5\"} 1\n"),
            "{text}"
        );
    }
}
