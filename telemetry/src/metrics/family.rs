use prometheus::{
    Counter, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts,
};

/// A kind of metric that [`families!`](crate::families) can declare.
pub trait Family: Sized {
    /// Makes one. `labels` is empty for a family without; `buckets` are upper bounds, for histograms only.
    fn new(
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Option<&[f64]>,
    ) -> prometheus::Result<Self>;
}

macro_rules! plain {
    ($($kind:ty),+) => {$(
        impl Family for $kind {
            fn new(name: &str, help: &str, _: &[&str], _: Option<&[f64]>) -> prometheus::Result<Self> {
                Self::with_opts(Opts::new(name, help))
            }
        }
    )+};
}

macro_rules! labelled {
    ($($kind:ty),+) => {$(
        impl Family for $kind {
            fn new(name: &str, help: &str, labels: &[&str], _: Option<&[f64]>) -> prometheus::Result<Self> {
                Self::new(Opts::new(name, help), labels)
            }
        }
    )+};
}

plain!(Counter, IntCounter, Gauge, IntGauge);

labelled!(IntCounterVec, IntGaugeVec, GaugeVec);

impl Family for Histogram {
    fn new(
        name: &str,
        help: &str,
        _: &[&str],
        buckets: Option<&[f64]>,
    ) -> prometheus::Result<Self> {
        Self::with_opts(histogram(name, help, buckets))
    }
}

impl Family for HistogramVec {
    fn new(
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Option<&[f64]>,
    ) -> prometheus::Result<Self> {
        Self::new(histogram(name, help, buckets), labels)
    }
}

fn histogram(name: &str, help: &str, buckets: Option<&[f64]>) -> HistogramOpts {
    let opts = HistogramOpts::new(name, help);
    match buckets {
        Some(buckets) => opts.buckets(buckets.to_vec()),
        None => opts,
    }
}
