use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::future::{join, join_all};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{DecideSettings, pods::Pods, resolve::Resolver};

/// The least time between two looks, however many calls fail meanwhile.
const BREATH: Duration = Duration::from_millis(100);

/// Keeps what is known of the deciders true: where they are, and how they are.
#[derive(Debug)]
pub(crate) struct Keeper {
    pods: Arc<Pods>,
    resolver: Resolver,
    resolve_every: Duration,
    check_every: Duration,
    /// How long a decider may take to say how it is.
    patience: Duration,
}

impl Keeper {
    pub(super) fn new(pods: Arc<Pods>, resolver: Resolver, settings: &DecideSettings) -> Self {
        Self {
            pods,
            resolver,
            resolve_every: settings.decider_resolve_interval,
            check_every: settings.decider_check_interval,
            patience: settings.decider_timeout,
        }
    }

    /// Looks for as long as it is polled.
    pub(crate) async fn run(self) -> Infallible {
        let Self {
            pods, mut resolver, ..
        } = self;
        let resolving = async {
            loop {
                due(self.resolve_every, &pods.resolve).await;
                resolver.refresh().await;
            }
        };
        let checking = async {
            loop {
                join_all(pods.all().iter().map(|pod| pod.check(self.patience))).await;
                pods.count();
                due(self.check_every, &pods.check).await;
            }
        };
        let (never, _): (Infallible, Infallible) = join(resolving, checking).await;
        never
    }
}

/// Returns when `every` is over, or earlier if somebody has a reason.
async fn due(every: Duration, reason: &Notify) {
    sleep(BREATH).await;
    // An elapsed time is one of the two ways in which this ends.
    let _ = timeout(every.saturating_sub(BREATH), reason.notified()).await;
}
