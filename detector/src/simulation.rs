//! What the rules would do, for dry runs.

use std::{sync::Arc, time::SystemTime};

use time::OffsetDateTime;

use crate::{
    decision::RecordedDecision,
    engine::{Engine, Made},
    rules::Rules,
    settings::Settings,
};

/// What would be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Would {
    /// The time of the decision that is one too many.
    pub at: OffsetDateTime,
    /// The owner.
    pub owner: String,
    /// The list that the owner would be put on.
    pub list: String,
    /// Until when.
    pub until: OffsetDateTime,
    /// Why.
    pub evidence: String,
}

/// Observes decisions, and does nothing.
pub struct Simulation {
    rules: Arc<Rules>,
    engine: Engine,
}

impl Simulation {
    /// Nothing was observed yet, and nobody is on a list.
    pub fn new(rules: Rules, settings: &Settings) -> Self {
        let rules = Arc::new(rules);
        let engine = Engine::new(rules.clone(), settings.memory, Made::default());
        Self { rules, engine }
    }

    /// What would be done about an event that NATS stored at `stored`; nothing with `act` false, when it only counts. None if it is not
    /// the event of a decision with user IDs.
    pub fn observe(&mut self, payload: &[u8], stored: SystemTime, act: bool) -> Option<Vec<Would>> {
        let decision = RecordedDecision::read(payload).ok()?;
        let observed = self.engine.observe(&decision, stored.into(), act);
        let detections = observed.detections.into_iter().filter_map(|detection| {
            let rule = self.rules.get(detection.rule)?;
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
