use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    metrics::Metrics,
    pod::{Pod, Standing},
};

/// The deciders that are known now.
#[derive(Debug)]
pub(super) struct Pods {
    set: ArcSwap<Vec<Arc<Pod>>>,
    /// Where the next look for the least busy one begins, so that those who are equally busy take turns.
    next: AtomicUsize,
    /// Names that cannot be resolved, and why.
    unresolved: Mutex<Vec<String>>,
    /// Wakes who resolves names.
    pub(super) resolve: Notify,
    /// Wakes who asks for health.
    pub(super) check: Notify,
    metrics: Metrics,
}

impl Pods {
    pub(super) fn new(metrics: Metrics) -> Self {
        metrics.deciders(0, 0);
        Self {
            set: ArcSwap::default(),
            next: AtomicUsize::new(0),
            unresolved: Mutex::default(),
            resolve: Notify::new(),
            check: Notify::new(),
            metrics,
        }
    }

    /// Whom to ask: who is usable and has the fewest calls in flight, but not `other`. Where nobody is usable, somebody who
    /// isn't: that may have changed since the last look.
    pub(super) fn pick(&self, other: Option<&Pod>) -> Option<Arc<Pod>> {
        let set = self.set.load();
        let start = self.next.fetch_add(1, Ordering::Relaxed) % set.len().max(1);
        let (before, after) = set.split_at_checked(start)?;
        after
            .iter()
            .chain(before)
            .filter(|pod| other.is_none_or(|other| pod.address() != other.address()))
            .min_by_key(|pod| (!pod.usable(), pod.in_flight()))
            .cloned()
    }

    /// Whether there is anybody else to ask.
    pub(super) fn several(&self) -> bool {
        self.set.load().len() > 1
    }

    /// All of them.
    pub(super) fn all(&self) -> Arc<Vec<Arc<Pod>>> {
        self.set.load_full()
    }

    /// Makes these all that are known.
    pub(super) fn replace(&self, pods: Vec<Arc<Pod>>) {
        self.set.store(Arc::new(pods));
        self.count();
    }

    /// A call to `pod` failed: until it is well again others are asked, and perhaps its name has other addresses now.
    pub(super) fn failed(&self, pod: &Pod, why: &str) {
        pod.stands(Standing::Aside(why.to_owned()));
        self.count();
        self.check.notify_one();
        self.resolve.notify_one();
    }

    /// A call has to wait for somebody, or finds nobody.
    pub(super) fn doubted(&self) {
        self.check.notify_one();
        self.resolve.notify_one();
    }

    /// Has the metrics tell how they stand.
    pub(super) fn count(&self) {
        let set = self.set.load();
        let usable = set.iter().filter(|pod| pod.usable()).count();
        self.metrics.deciders(set.len(), usable);
    }

    /// Remembers which names cannot be resolved.
    pub(super) fn unresolved(&self, troubles: Vec<String>) {
        *self.lock() = troubles;
    }

    /// Why nobody is known.
    pub(super) fn why_nobody(&self) -> String {
        match self.lock().first() {
            Some(trouble) => trouble.clone(),
            None => "their names are not resolved yet".to_owned(),
        }
    }

    /// How they stand, for readiness.
    pub(super) fn describe(&self) -> Value {
        let set = self.set.load();
        let aside: Vec<_> = set
            .iter()
            .filter_map(|pod| match pod.standing() {
                Standing::Usable => None,
                Standing::New => Some((pod, "it was not asked yet".to_owned())),
                Standing::Aside(why) => Some((pod, why)),
            })
            .map(|(pod, why)| json!({ "address": pod.address(), "why": why }))
            .collect();
        json!({
            "known": set.len(),
            "usable": set.len() - aside.len(),
            "aside": aside,
            "unresolved": *self.lock(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.unresolved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
