use importguard_telemetry::{
    families,
    metrics::{Each, Label},
};
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec};

families! {
    /// What is counted about deciders.
    pub(super) struct Metrics {
        /// Addresses of deciders by state: known, and of those usable.
        deciders: Each<IntGaugeVec, State> = "importguard_deciders", ["state"];
        /// Requests that were asked again: of a second decider because the first was silent, or because it was unavailable, then of itself where there is no other.
        retries: Each<IntCounterVec, Retry> = "importguard_decider_retries_total", ["reason"];
        /// Deciders that reject this gateway's new client certificate, or whose certificate its new authorities do not vouch for, and are still asked on the old connection.
        rejecting: IntGauge = "importguard_decider_certificate_rejected";
    }
}

/// What is known of a decider's address.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Known,
    Usable,
}

impl Label for State {
    const ALL: &'static [Self] = &[Self::Known, Self::Usable];

    fn index(self) -> usize {
        self as usize
    }

    fn text(self) -> &'static str {
        match self {
            Self::Known => "known",
            Self::Usable => "usable",
        }
    }
}

/// Why a second decider was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// The first could not be reached, or the connection broke.
    Unavailable,
    /// The first was silent for too long.
    Silent,
}

impl Label for Retry {
    const ALL: &'static [Self] = &[Self::Unavailable, Self::Silent];

    fn index(self) -> usize {
        self as usize
    }

    fn text(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Silent => "silent",
        }
    }
}

impl Metrics {
    pub(super) fn deciders(&self, known: usize, usable: usize) {
        for (state, count) in [(State::Known, known), (State::Usable, usable)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.deciders.of(state).set(count);
        }
    }

    /// Returns how many there were before.
    pub(super) fn rejecting(&self, count: usize) -> usize {
        let before = self.rejecting.get();
        self.rejecting.set(i64::try_from(count).unwrap_or(i64::MAX));
        usize::try_from(before).unwrap_or_default()
    }

    pub(super) fn retried(&self, retry: Retry) {
        self.retries.of(retry).inc();
    }
}
