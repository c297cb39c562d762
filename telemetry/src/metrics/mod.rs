//! The basis of both processes' metrics: a registry with the process metrics, labels, histograms with exemplars, and the text formats
//! that Prometheus scrapes. User IDs and operationIDs are never labels.

mod by_label;
mod exposition;
mod histogram;
mod policy;
mod process;

use std::{
    ffi::{OsStr, OsString},
    fmt::{self, Write},
    hash::Hash,
};

use prometheus_client::{
    encoding::{
        DescriptorEncoder, EncodeGaugeValue, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
    },
    metrics::{
        MetricType,
        family::{Family, MetricConstructor},
        gauge::ConstGauge,
        info::Info,
    },
    registry::{Metric, Registry},
};

pub use self::{
    by_label::ByLabel,
    exposition::{Exposition, encode},
    histogram::{DurationHistogram, HistogramFamily, observe},
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
}
