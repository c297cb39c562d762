use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;

use crate::policy::Progress;

/// Observes the duration of each rule since the end of the previous one, reading the clock once per rule.
pub(crate) struct RuleTimer<'a> {
    rules: &'a [Histogram],
    last: Instant,
}

impl<'a> RuleTimer<'a> {
    /// `rules` are the histograms of the policy that is evaluated.
    pub(crate) fn new(rules: &'a [Histogram]) -> Self {
        Self {
            rules,
            last: Instant::now(),
        }
    }
}

impl Progress for RuleTimer<'_> {
    fn before_rules(&mut self) {
        self.last = Instant::now();
    }

    fn after_rule(&mut self, index: usize) {
        let now = Instant::now();
        if let Some(rule) = self.rules.get(index) {
            rule.observe((now - self.last).as_secs_f64());
        }
        self.last = now;
    }
}
