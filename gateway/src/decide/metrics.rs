use importguard_telemetry::families;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

families! {
    /// What is counted about deciders.
    pub(super) struct Metrics {
        /// Addresses of deciders by state: known, and of those usable.
        deciders: IntGaugeVec = "importguard_deciders", ["state"];
        /// Requests that were asked again: of a second decider because the first was silent, or because it was unavailable, then of itself where there is no other.
        retries: IntCounterVec = "importguard_decider_retries_total", ["reason"];
        /// Deciders that reject this gateway's new client certificate, or whose certificate its new authorities do not vouch for, and are still asked on the old connection.
        rejecting: IntGauge = "importguard_decider_certificate_rejected";
    }
}

/// Why a request was asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// The decider could not be reached, or the connection broke.
    Unavailable,
    /// The decider was silent for too long.
    Silent,
}

impl Retry {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Silent => "silent",
        }
    }
}

impl Metrics {
    /// Has every series there from the start, so that a rate knows of the first one.
    pub(super) fn begin(&self) {
        for retry in [Retry::Unavailable, Retry::Silent] {
            self.retries.with_label_values(&[retry.as_str()]);
        }
        self.deciders(0, 0);
    }

    pub(super) fn deciders(&self, known: usize, usable: usize) {
        for (state, count) in [("known", known), ("usable", usable)] {
            let gauge = self.deciders.with_label_values(&[state]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Returns how many there were before.
    pub(super) fn rejecting(&self, count: usize) -> usize {
        let before = self.rejecting.get();
        self.rejecting.set(i64::try_from(count).unwrap_or(i64::MAX));
        usize::try_from(before).unwrap_or_default()
    }

    pub(super) fn retried(&self, retry: Retry) {
        self.retries.with_label_values(&[retry.as_str()]).inc();
    }
}
