use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use importguard_core::ListRevision;
use prometheus_client::metrics::histogram::Histogram;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::policy::{Diagnostics, Policy};

/// The policy that holds now, and whether a newer one could not be used. Reading it never waits; a call keeps the one it began
/// with. Clones are handles to the same.
#[derive(Clone)]
pub(crate) struct InForce(Arc<Shared>);

/// The policy that holds, and where the time of each of its rules is observed.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) policy: Policy,
    /// In the order of the rules.
    pub(crate) rule_durations: Vec<Histogram>,
}

struct Shared {
    active: ArcSwap<Active>,
    history: Mutex<History>,
}

struct History {
    since: SystemTime,
    trouble: Option<Trouble>,
}

struct Trouble {
    since: SystemTime,
    text: String,
}

/// What became of a policy that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swap {
    /// It is in force.
    Applied,
    /// The one in force has the same content.
    Unchanged,
}

impl InForce {
    pub(crate) fn new(active: Active) -> Self {
        Self(Arc::new(Shared {
            active: ArcSwap::from_pointee(active),
            history: Mutex::new(History {
                since: SystemTime::now(),
                trouble: None,
            }),
        }))
    }

    pub(crate) fn load(&self) -> Arc<Active> {
        self.0.active.load_full()
    }

    /// Puts a good policy in force, unless it is the one that is.
    pub(crate) fn replace(&self, active: Active) -> Swap {
        let mut history = self.history();
        history.trouble = None;
        if same(&self.load().policy, &active.policy) {
            return Swap::Unchanged;
        }
        history.since = SystemTime::now();
        self.0.active.store(Arc::new(active));
        Swap::Applied
    }

    /// Remembers that the files hold a policy that cannot be used.
    pub(crate) fn failed(&self, diagnostics: &Diagnostics) {
        let mut history = self.history();
        let since = match &history.trouble {
            Some(trouble) => trouble.since,
            None => SystemTime::now(),
        };
        history.trouble = Some(Trouble {
            since,
            text: diagnostics.to_string(),
        });
    }

    /// What `/readyz` tells: the policy, since when, its lists, and what is wrong with a newer one, if anything.
    pub(crate) fn describe(&self) -> Value {
        let active = self.load();
        let policy = &active.policy;
        let history = self.history();
        let lists: Vec<_> = policy.lists().map(list).collect();
        let mut state = json!({
            "name": policy.name(),
            "digest": policy.digest(),
            "since": rfc3339(history.since),
            "lists": lists,
        });
        if let Some(trouble) = &history.trouble {
            state["error"] = json!({ "since": rfc3339(trouble.since), "text": trouble.text });
        }
        state
    }

    fn history(&self) -> MutexGuard<'_, History> {
        // What it guards is whole after any panic: single assignments.
        self.0
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn same(one: &Policy, other: &Policy) -> bool {
    one.digest() == other.digest() && one.lists().eq(other.lists())
}

fn list(revision: &ListRevision) -> Value {
    json!({ "name": revision.name, "digest": revision.digest, "size": revision.size })
}

fn rfc3339(at: SystemTime) -> String {
    // An instant of this era can be written.
    OffsetDateTime::from(at)
        .format(&Rfc3339)
        .unwrap_or_default()
}
