use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use importguard_telemetry::metrics::{ByLabel, Label, register};
use parking_lot::Mutex;
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use serde_json::{Value, json};
use strum::{AsRefStr, EnumIter, IntoEnumIterator};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{error, info};

use super::{
    DecideSettings,
    decider::{Decider, State},
    discovery::Discovery,
};

/// Minimum interval between two checks, however many calls fail.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// DNS re-resolution interval while all known deciders are healthy: the TTL of CoreDNS's answers about a cluster, unless it is configured.
/// Names are also resolved after each failed call and health check.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);

/// Picks a decider for each call: the healthy one with the fewest calls in flight.
pub(super) struct Balancer {
    deciders: ArcSwap<Vec<Arc<Decider>>>,
    /// Start of the next pick, for round-robin between equally loaded deciders.
    next: AtomicUsize,
    /// Names that cannot be resolved, and why.
    unresolved: Mutex<Vec<String>>,
    /// Request an immediate resolution or health check.
    resolve: Notify,
    check: Notify,
    check_interval: Duration,
    check_timeout: Duration,
    pub(super) metrics: Metrics,
}

impl Balancer {
    /// Resolves the deciders' names for the first time, so that no callback finds none known before. Must be called inside a tokio runtime.
    pub(super) async fn start(
        discovery: &mut Discovery,
        settings: &DecideSettings,
        metrics: Metrics,
    ) -> Self {
        discovery.resolve().await;
        let balancer = Self {
            deciders: ArcSwap::default(),
            next: AtomicUsize::new(0),
            unresolved: Mutex::new(discovery.errors()),
            resolve: Notify::new(),
            check: Notify::new(),
            check_interval: settings.decider_check_interval,
            check_timeout: settings.decider_timeout,
            metrics,
        };
        balancer.update(discovery).await;
        balancer
    }

    /// Resolves names and checks health for as long as it is polled.
    pub(super) async fn run(&self, mut discovery: Discovery) -> Infallible {
        let resolving = async {
            loop {
                next_check(RESOLVE_INTERVAL, &self.resolve).await;
                discovery.resolve().await;
                *self.unresolved.lock() = discovery.errors();
                self.update(&discovery).await;
            }
        };
        let checking = async {
            loop {
                self.check(&self.deciders.load_full()).await;
                self.retire();
                if !self.all_usable() {
                    // A decider that stops is often replaced by one at another address, which a DNS cache may hide for a while.
                    self.resolve.notify_one();
                }
                next_check(self.check_interval, &self.check).await;
            }
        };
        let (never, _): (Infallible, Infallible) = tokio::join!(resolving, checking);
        never
    }

    /// The decider for a call, except `others`. If none is healthy, an unhealthy one: it may have recovered since the last check.
    pub(super) fn pick(&self, others: &[Arc<Decider>]) -> Option<Arc<Decider>> {
        let deciders = self.deciders.load();
        // A retry takes no turn: with two deciders, the same one would always be the first.
        let turn = match others {
            [] => self.next.fetch_add(1, Relaxed),
            _ => self.next.load(Relaxed),
        };
        let start = turn % deciders.len().max(1);
        let (before, after) = deciders.split_at_checked(start)?;
        let candidates = after.iter().chain(before);
        candidates
            .filter(|decider| others.iter().all(|it| decider.address() != it.address()))
            .min_by_key(|decider| (!decider.is_usable(), decider.in_flight()))
            .cloned()
    }

    /// Whether a healthy decider other than `decider` is known.
    pub(super) fn has_other_usable(&self, decider: &Decider) -> bool {
        let deciders = self.deciders.load();
        let mut usable = deciders.iter().filter(|it| it.is_usable());
        usable.any(|it| it.address() != decider.address())
    }

    /// Ejects `decider` after a failed call until a health check succeeds, and resolves its name again.
    pub(super) fn failed(&self, decider: &Decider, why: &str) {
        decider.enter(Some(why.to_owned()));
        self.count();
        self.refresh();
    }

    /// Requests an immediate health check and resolution.
    pub(super) fn refresh(&self) {
        self.check.notify_one();
        self.resolve.notify_one();
    }

    /// Why no decider is known.
    pub(super) fn why_none(&self) -> String {
        match self.unresolved.lock().as_slice() {
            // Their addresses are being stored at this moment.
            [] => "their names have just been resolved".to_owned(),
            errors => errors.join("; "),
        }
    }

    /// The deciders' state, for `/readyz`.
    pub(super) fn describe(&self) -> Value {
        let deciders = self.deciders.load();
        let not_usable = |decider: &&Arc<Decider>| !decider.is_usable();
        let why = |decider: &Arc<Decider>| {
            let why = match decider.state() {
                State::Usable | State::New => "not checked yet".to_owned(),
                State::Ejected { why, .. } => why,
            };
            json!({ "address": decider.address(), "why": why })
        };
        let rejecting = rejecting(&deciders);
        let replaced = rejecting.len();
        let ejected: Vec<_> = deciders.iter().filter(not_usable).map(why).collect();
        json!({
            "known": deciders.len() - replaced,
            "usable": deciders.len() - ejected.len(),
            "ejected": ejected,
            "unresolved": *self.unresolved.lock(),
            "certificateRejected": rejecting.into_iter().map(why).collect::<Vec<_>>(),
        })
    }

    /// Updates the deciders to what `discovery` last found. New ones are checked first, so that no call waits for a connection. A decider
    /// on the old client certificate stays until the one on the new certificate is healthy.
    async fn update(&self, discovery: &Discovery) {
        let known = self.deciders.load_full();
        let new = discovery.new_deciders(&known);
        let (mut deciders, gone): (Vec<_>, Vec<_>) = known
            .iter()
            .cloned()
            .partition(|decider| discovery.has(decider.address()));
        if new.is_empty() && gone.is_empty() {
            return;
        }
        for decider in gone {
            info!("decider {decider} removed: its name no longer resolves to it");
        }
        if !known.is_empty() {
            self.check(&new).await;
        }
        deciders.extend(new);
        self.deciders.store(Arc::new(deciders));
        self.retire();
    }

    /// Whether deciders are known, and all of them are healthy.
    fn all_usable(&self) -> bool {
        let deciders = self.deciders.load();
        !deciders.is_empty() && deciders.iter().all(|it| it.is_usable())
    }

    async fn check(&self, deciders: &[Arc<Decider>]) {
        let checks = deciders.iter();
        join_all(checks.map(|decider| decider.check(self.check_timeout))).await;
    }

    /// Removes deciders on an old client certificate, except those that still work where the new certificate does not.
    fn retire(&self) {
        let deciders = self.deciders.load_full();
        let is_kept = |decider: &&Arc<Decider>| {
            let mut later = deciders
                .iter()
                .skip_while(|later| !Arc::ptr_eq(later, decider));
            !later.any(|later| {
                decider.is_replaced_by(later) && (later.is_usable() || !decider.is_usable())
            })
        };
        let kept: Vec<_> = deciders.iter().filter(is_kept).cloned().collect();
        if kept.len() < deciders.len() {
            self.deciders.store(Arc::new(kept));
        }
        self.count();
    }

    /// Updates the metrics.
    fn count(&self) {
        let deciders = self.deciders.load();
        let usable = deciders.iter().filter(|it| it.is_usable()).count();
        let rejecting = rejecting(&deciders);
        self.metrics
            .deciders(deciders.len() - rejecting.len(), usable);
        let before = self.metrics.rejecting(rejecting.len());
        if let (Some(decider), 0) = (rejecting.first(), before)
            && let State::Ejected { why, .. } = decider.state()
        {
            error!(
                "new client certificate rejected by decider {decider} ({why}); still using the old connection, which will not survive a restart: check IMPORTGUARD_DECIDER_CLIENT_CERT_FILE and IMPORTGUARD_DECIDER_CA_FILE"
            );
        }
    }
}

/// The deciders that reject the new client certificate and still accept the old one.
fn rejecting(deciders: &[Arc<Decider>]) -> Vec<&Arc<Decider>> {
    let replaces = |index: usize, decider: &Decider| {
        let mut earlier = deciders.iter().take(index);
        earlier.any(|earlier| earlier.is_replaced_by(decider))
    };
    let later = deciders.iter().enumerate();
    let rejecting = later.filter(|(index, decider)| replaces(*index, decider));
    rejecting.map(|(_, decider)| decider).collect()
}

/// Waits for the interval `every`, or less if `reason` is notified.
async fn next_check(every: Duration, reason: &Notify) {
    sleep(MIN_INTERVAL).await;
    // The interval has elapsed, or `reason` was notified.
    let _ = timeout(every.saturating_sub(MIN_INTERVAL), reason.notified()).await;
}

/// Metrics of deciders.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    deciders: ByLabel<&'static str, Gauge>,
    retries: ByLabel<Label<Retry>, Counter>,
    rejecting: Gauge,
}

/// Why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, AsRefStr, EnumIter)]
#[strum(serialize_all = "camelCase")]
pub(super) enum Retry {
    /// The decider could not be reached, or the connection broke.
    Unavailable,
    /// The decider did not respond within the retry time.
    Silent,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            deciders: ByLabel::register(
                registry,
                "importguard_deciders",
                "Addresses of deciders by state: known, and of those usable",
                Gauge::default,
                "state",
                ["known", "usable"],
            ),
            retries: ByLabel::register(
                registry,
                "importguard_decider_retries",
                "Calls that were repeated: at a second decider because the first was silent or unavailable, or at the same one where there is no other",
                Counter::default,
                "reason",
                Retry::iter().map(Label),
            ),
            rejecting: register(
                registry,
                "importguard_decider_certificate_rejected",
                "Deciders that reject the gateway's new client certificate, or whose certificate its new CAs did not issue, and that are still called over the old connection",
                Gauge::default(),
            ),
        }
    }

    pub(super) fn deciders(&self, known: usize, usable: usize) {
        for (state, count) in [("known", known), ("usable", usable)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.deciders.get(state).set(count);
        }
    }

    /// Sets the number of such deciders, and returns the previous one.
    pub(super) fn rejecting(&self, count: usize) -> usize {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        usize::try_from(self.rejecting.set(count)).unwrap_or_default()
    }

    pub(super) fn retried(&self, retry: Retry) {
        self.retries.get(Label(retry)).inc();
    }
}
