use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// What is counted about deciders.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    deciders: IntGaugeVec,
    retries: IntCounterVec,
}

/// Why a second decider was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// The first could not be reached, or the connection broke.
    Unavailable,
    /// The first was silent for too long.
    Silent,
}

impl Retry {
    const fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Silent => "silent",
        }
    }
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            deciders: IntGaugeVec::new(
                Opts::new(
                    "importguard_deciders",
                    "Addresses of deciders by state: known, and of those usable.",
                ),
                &["state"],
            )?,
            retries: IntCounterVec::new(
                Opts::new(
                    "importguard_decider_retries_total",
                    "Requests that were put to a second decider, because the first was unavailable or silent.",
                ),
                &["reason"],
            )?,
        };
        for retry in [Retry::Unavailable, Retry::Silent] {
            metrics.retries.with_label_values(&[retry.name()]);
        }
        registry.register(Box::new(metrics.deciders.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        Ok(metrics)
    }

    pub(super) fn deciders(&self, known: usize, usable: usize) {
        for (state, count) in [("known", known), ("usable", usable)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.deciders.with_label_values(&[state]).set(count);
        }
    }

    pub(super) fn retried(&self, retry: Retry) {
        self.retries.with_label_values(&[retry.name()]).inc();
    }
}
