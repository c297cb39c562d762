use prometheus::{
    IntCounter, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::log::left_out;

crate::families! {
    struct Log {
        /// Log lines that were left out because standard error was not read fast enough.
        left_out: IntCounter = "importguard_log_lines_left_out_total";
    }
}

pub(super) fn register(registry: &Registry) -> prometheus::Result<()> {
    registry.register(Box::new(OnDemand(Log::new()?)))
}

/// Looks when it is asked.
struct OnDemand(Log);

impl Collector for OnDemand {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let counted = &self.0.left_out;
        counted.inc_by((left_out() as u64).saturating_sub(counted.get()));
        self.0.collect()
    }
}
