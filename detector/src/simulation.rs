//! Simulates the rules, for dry runs.

use std::{sync::Arc, time::SystemTime};

use time::OffsetDateTime;

use crate::{
    decision::RecordedDecision,
    engine::{Engine, Made},
    rules::Rules,
    settings::Settings,
};

/// An entry that the detector would add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Would {
    /// The time of the decision that reaches the rule's threshold.
    pub at: OffsetDateTime,
    /// The owner.
    pub owner: String,
    /// The list that the owner would be added to.
    pub list: String,
    /// When the entry would expire.
    pub until: OffsetDateTime,
    /// The reason of the entry.
    pub evidence: String,
}

/// Observes decisions without changing lists.
pub struct Simulation {
    rules: Arc<Rules>,
    engine: Engine,
}

impl Simulation {
    /// Creates a simulation that has observed no decisions and starts with empty lists.
    pub fn new(rules: Rules, settings: &Settings) -> Self {
        let rules = Arc::new(rules);
        let engine = Engine::new(rules.clone(), settings.memory, Made::default());
        Self { rules, engine }
    }

    /// Observes an event that NATS stored at `stored`, and returns the entries that the detector would add. If `act` is `false`, the event
    /// only counts, and there are no entries. Returns `None` if it is not an event about a decision with user IDs.
    pub fn observe(&mut self, payload: &[u8], stored: SystemTime, act: bool) -> Option<Vec<Would>> {
        let decision = RecordedDecision::read(payload).ok()?;
        if !act {
            self.engine.replay(&decision, stored.into());
            return Some(Vec::new());
        }
        let observed = self.engine.observe(&decision, stored.into());
        let detections = observed.detections.into_iter().filter_map(|detection| {
            let rule = self.rules.get(detection.rule)?;
            if self.engine.is_listed(&detection) {
                return None;
            }
            self.engine.list(&detection, detection.until);
            Some(Would {
                at: detection.at,
                owner: detection.owner.as_str().to_owned(),
                list: rule.list.to_string(),
                until: detection.until,
                evidence: rule.evidence(),
            })
        });
        Some(detections.collect())
    }
}
