//! The basis of both processes' metrics: a registry with the process metrics, labels, histograms with exemplars, and the text formats
//! that Prometheus scrapes. User IDs and operationIDs are never labels.

mod exposition;
mod policy;
mod process;

use std::{
    ffi::{OsStr, OsString},
    fmt::{self, Debug, Write},
    hash::Hash,
    ops::Deref,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context,
    trace::{SpanId, TraceContextExt, TraceId},
};
use prometheus_client::{
    encoding::{
        DescriptorEncoder, EncodeGaugeValue, EncodeLabel, EncodeLabelSet, EncodeLabelValue,
        EncodeMetric, LabelSetEncoder, LabelValueEncoder,
    },
    metrics::{
        MetricType, TypedMetric,
        exemplar::HistogramWithExemplars,
        family::{Family, MetricConstructor},
        gauge::ConstGauge,
        info::Info,
    },
    registry::{Metric, Registry},
};

pub use self::{
    exposition::{Exposition, encode},
    policy::PolicyInfo,
};

/// The metrics of a process, to which gateway and decider add theirs.
#[derive(Debug)]
pub struct ProcessMetrics {
    /// The metrics served at `/metrics`.
    pub registry: Registry,
    /// `importguard_policy_info`, which gateway and decider share if they are one process.
    pub policies: PolicyInfo,
}

impl ProcessMetrics {
    /// A registry with the process metrics. Must be called when the process starts, which is the start time that it reports. Fails if
    /// `OTEL_METRICS_EXPORTER` selects another exporter than Prometheus.
    pub fn new() -> Result<Self, UnsupportedExporterError> {
        check_exporter(std::env::var_os("OTEL_METRICS_EXPORTER").as_deref())?;
        let mut registry = Registry::default();
        let build = Info::new([
            ("version", env!("CARGO_PKG_VERSION")),
            ("arch", std::env::consts::ARCH),
        ]);
        registry.register(
            "importguard_build",
            "The version of importguard and the architecture that it was built for",
            build,
        );
        registry.register_collector(Box::new(process::Process::new()));
        let policies = PolicyInfo::default();
        registry.register_collector(Box::new(policies.clone()));
        Ok(Self { registry, policies })
    }
}

/// Registers `metric` and returns it. `name` has no `_total` suffix, `help` no full stop; both are added.
pub fn register<M: Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    metric: M,
) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Writes a gauge from within a collector.
///
/// # Errors
/// If the text cannot be written.
pub fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> fmt::Result {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

/// Adds a series to `family` for each of `labels`: a rate can only see the first increment of a series that existed before.
pub fn with_series<L, M, C>(
    family: Family<L, M, C>,
    labels: impl IntoIterator<Item = L>,
) -> Family<L, M, C>
where
    L: Clone + Hash + Eq,
    C: MetricConstructor<M>,
{
    for labels in labels {
        drop(family.get_or_create(&labels));
    }
    family
}

/// A domain value as a label value: compared and hashed by value, and converted to text only when scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Label<T>(pub T);

impl<T: AsRef<str>> EncodeLabelValue for Label<T> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.0.as_ref())
    }
}

/// The name of the label, and a value.
type Labels<V> = [(&'static str, V); 1];

/// Metrics that differ in one label.
#[derive(Clone, Debug)]
pub struct ByLabel<V, M> {
    label: &'static str,
    family: Family<Labels<V>, M, fn() -> M>,
}

impl<V, M> ByLabel<V, M>
where
    V: Clone + Debug + Eq + Hash + EncodeLabelValue + Send + Sync + 'static,
    M: Debug + EncodeMetric + TypedMetric + Send + Sync + 'static,
{
    /// Registers a metric, made by `new`, for each of `values` of `label`, as [`with_series`] does. `name` and `help` are as in
    /// [`register`].
    pub fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        new: fn() -> M,
        label: &'static str,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values = values.into_iter().map(|value| [(label, value)]);
        let family = with_series(Family::new_with_constructor(new), values);
        Self {
            label,
            family: register(registry, name, help, family),
        }
    }

    /// The metric for `value`.
    pub fn get(&self, value: V) -> impl Deref<Target = M> {
        self.family.get_or_create(&[(self.label, value)])
    }
}

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

/// `OTEL_METRICS_EXPORTER` selects an exporter that importguard does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "OTEL_METRICS_EXPORTER={} is not supported: metrics are not pushed but served at /metrics on IMPORTGUARD_ADMIN_LISTEN; \
     unset the variable (or set prometheus or none), and scrape them, for example with the OpenTelemetry Collector's prometheus \
     receiver",
    .0.display()
)]
pub struct UnsupportedExporterError(OsString);

/// Checks the value of `OTEL_METRICS_EXPORTER`. An empty one counts as unset, as OpenTelemetry's specification says.
fn check_exporter(exporter: Option<&OsStr>) -> Result<(), UnsupportedExporterError> {
    match exporter {
        Some(exporter)
            if !["", "none", "prometheus"]
                .iter()
                .any(|known| exporter == *known) =>
        {
            Err(UnsupportedExporterError(exporter.to_owned()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, TraceFlags, TraceState};

    use super::*;

    #[test]
    fn only_prometheus_and_no_exporter_are_supported() {
        for supported in [None, Some(""), Some("none"), Some("prometheus")] {
            assert_eq!(
                check_exporter(supported.map(OsStr::new)),
                Ok(()),
                "{supported:?}"
            );
        }
        for unsupported in ["otlp", "console", "prometheus,otlp", "None"] {
            let error = check_exporter(Some(OsStr::new(unsupported))).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("OTEL_METRICS_EXPORTER={unsupported} "))
            );
        }
    }

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
