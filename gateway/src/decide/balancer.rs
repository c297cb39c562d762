use std::{
    convert::Infallible,
    iter::zip,
    net::SocketAddr,
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
    /// Deciders that reject the new client certificate and still accept the old one, and why.
    rejecting: Mutex<Vec<(SocketAddr, String)>>,
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
            rejecting: Mutex::default(),
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
                let deciders = self.deciders.load_full();
                join_all(deciders.iter().map(|it| it.check(self.check_timeout))).await;
                self.count();
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
        let entry = |address: SocketAddr, why: &str| json!({ "address": address, "why": why });
        let ejected = deciders.iter().filter(not_usable);
        let ejected = ejected.map(|decider| match decider.state() {
            State::Usable | State::New => entry(decider.address(), "not checked yet"),
            State::Ejected { why, .. } => entry(decider.address(), &why),
        });
        let ejected: Vec<_> = ejected.collect();
        let rejecting = self.rejecting.lock();
        let rejecting = rejecting.iter().map(|(address, why)| entry(*address, why));
        json!({
            "known": deciders.len(),
            "usable": deciders.len() - ejected.len(),
            "ejected": ejected,
            "unresolved": *self.unresolved.lock(),
            "certificateRejected": rejecting.collect::<Vec<_>>(),
        })
    }

    /// Updates the deciders to what `discovery` last found. New ones are checked first, so that no call waits for a connection. A decider
    /// on the old client certificate stays while it works and the one on the new certificate does not.
    async fn update(&self, discovery: &Discovery) {
        let known = self.deciders.load_full();
        let (mut deciders, gone): (Vec<_>, Vec<_>) = known
            .iter()
            .cloned()
            .partition(|decider| discovery.has(decider.address()));
        for decider in gone {
            info!("decider {decider} removed: its name no longer resolves to it");
        }
        let new = discovery.new_deciders(&known);
        let mut rejecting = Vec::new();
        if known.is_empty() {
            deciders = new;
        } else {
            let checks = new.iter().map(|it| it.health(self.check_timeout));
            for (decider, error) in zip(&new, join_all(checks).await) {
                let address = decider.address();
                let old = deciders.iter_mut().find(|it| it.address() == address);
                match (error, old) {
                    (Some(why), Some(old)) if old.is_usable() => rejecting.push((address, why)),
                    (error, old) => {
                        decider.enter(error);
                        match old {
                            Some(old) => *old = Arc::clone(decider),
                            None => deciders.push(Arc::clone(decider)),
                        }
                    }
                }
            }
        }
        self.deciders.store(Arc::new(deciders));
        if let (Some((address, why)), 0) =
            (rejecting.first(), self.metrics.rejecting(rejecting.len()))
        {
            error!(
                "new client certificate rejected by decider {address} ({why}); still using the old connection, which will not survive a restart: check IMPORTGUARD_DECIDER_CLIENT_CERT_FILE and IMPORTGUARD_DECIDER_CA_FILE"
            );
        }
        *self.rejecting.lock() = rejecting;
        self.count();
    }

    /// Whether deciders are known, and all of them are healthy.
    fn all_usable(&self) -> bool {
        let deciders = self.deciders.load();
        !deciders.is_empty() && deciders.iter().all(|it| it.is_usable())
    }

    /// Updates the metrics.
    fn count(&self) {
        let deciders = self.deciders.load();
        let usable = deciders.iter().filter(|it| it.is_usable()).count();
        self.metrics.deciders(deciders.len(), usable);
    }
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
