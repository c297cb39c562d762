//! What both processes' metrics are made with: a registry that has the process's own metrics already, labels, histograms whose
//! buckets link to traces, and the text that Prometheus scrapes. No user ID and no operationID is ever a label.

mod exporter;
mod exposition;
mod histogram;
mod label;
mod policy;
mod process;

use std::hash::Hash;

use prometheus_client::{
    metrics::{
        family::{Family, MetricConstructor},
        info::Info,
    },
    registry::{Metric, Registry},
};

pub use self::{
    exporter::UnsupportedExporterError,
    exposition::{Exposition, encode},
    histogram::{DurationHistogram, HistogramFamily, observe},
    label::Label,
    policy::PolicyInfo,
};

/// The metrics of a process: its gateway and decider register theirs.
#[derive(Debug)]
pub struct ProcessMetrics {
    /// What `/metrics` serves.
    pub registry: Registry,
    /// `importguard_policy_info`, which gateway and decider share where they are one process.
    pub policies: PolicyInfo,
}

impl ProcessMetrics {
    /// A registry with the metrics of the process itself. To be called once, when the process starts: that is the start time that
    /// it reports. An error where `OTEL_METRICS_EXPORTER` asks for another exporter than Prometheus.
    pub fn new() -> Result<Self, UnsupportedExporterError> {
        exporter::check(std::env::var_os("OTEL_METRICS_EXPORTER").as_deref())?;
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

/// Registers `metric` and returns it. `name` is without the `_total` of counters, `help` without its full stop.
pub fn register<M: Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    metric: M,
) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// `family` with a series for each of `labels`: a rate has to know a series before its first increment.
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
