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
        // One for each who asks: two at once would both add what is new. What could be made once can be made again.
        let Ok(log) = Log::new() else {
            return Vec::new();
        };
        log.left_out.inc_by(left_out());
        log.collect()
    }
}
