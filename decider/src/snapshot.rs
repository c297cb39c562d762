use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::policy::Policy;

/// The policy that holds now. Reading it never waits; a call keeps the one it began with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CurrentPolicy(Arc<ArcSwap<Policy>>);

impl CurrentPolicy {
    pub(crate) fn new(policy: Policy) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(policy)))
    }

    pub(crate) fn load(&self) -> Arc<Policy> {
        self.0.load_full()
    }
}
