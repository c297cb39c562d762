use prometheus::{
    IntCounter, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{exporter, log};

crate::families! {
    struct Lost {
        /// Log lines that were left out because standard error was not read fast enough.
        lines: IntCounter = "importguard_log_lines_left_out_total";
        /// Spans that were lost because the OTLP endpoint did not take them.
        spans: IntCounter = "importguard_spans_lost_total";
    }
}

pub(super) fn register(registry: &Registry) -> prometheus::Result<()> {
    registry.register(Box::new(OnDemand(Lost::new()?)))
}

/// Looks when it is asked.
struct OnDemand(Lost);

impl Collector for OnDemand {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // One for each who asks: two at once would both add what is new. What could be made once can be made again.
        let Ok(lost) = Lost::new() else {
            return Vec::new();
        };
        lost.lines.inc_by(log::dropped());
        lost.spans.inc_by(exporter::lost());
        lost.collect()
    }
}
