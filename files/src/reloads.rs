use std::{convert::Infallible, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde_json::{Map, Value, json};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::{error, info, warn};

use crate::{Reading, Watch};

/// How often files are looked at: a look is one system call, and a rotation that takes a second is an instant one.
const EVERY: Duration = Duration::from_secs(1);

/// The secrets and certificates of a process, read again when they change: what becomes of that shows in metrics, the log and
/// readiness.
pub struct Reloads {
    watches: FuturesUnordered<BoxFuture<'static, Infallible>>,
    troubles: Vec<Trouble>,
    metrics: Metrics,
    again: watch::Sender<()>,
}

/// What is wrong with the files of a setting, if something is.
struct Trouble {
    setting: &'static str,
    look: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

#[derive(Clone, Default)]
struct Metrics {
    reloads: Family<ReloadLabels, Counter>,
    valid: Family<SettingLabels, Gauge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    outcome: &'static str,
    setting: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SettingLabels {
    setting: &'static str,
}

impl Reloads {
    /// Nothing yet. Registers the metrics, so there is one in each registry.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Metrics::default();
        registry.register(
            "importguard_file_reloads",
            "Changes of files by setting and outcome: applied or failed",
            metrics.reloads.clone(),
        );
        registry.register(
            "importguard_file_valid",
            "1 where a setting's files are valid, 0 where they are not and the last valid ones stay active",
            metrics.valid.clone(),
        );
        Self {
            watches: FuturesUnordered::new(),
            troubles: Vec::new(),
            metrics,
            again: watch::Sender::new(()),
        }
    }

    /// Has the files of `setting` read again when they change.
    pub fn add<T, E, F>(&mut self, setting: &'static str, watch: Watch<T, F>)
    where
        T: Send + Sync + 'static,
        E: ToString + Send + 'static,
        F: Fn() -> Result<T, E> + Clone + Send + 'static,
    {
        let last_good = watch.last_good();
        let metrics = self.metrics.clone();
        for outcome in ["applied", "failed"] {
            drop(
                metrics
                    .reloads
                    .get_or_create(&ReloadLabels { outcome, setting }),
            );
        }
        metrics
            .valid
            .get_or_create(&SettingLabels { setting })
            .set(1);
        let told = move |reading| metrics.tell(setting, &reading);
        self.watches
            .push(Box::pin(watch.run(EVERY, self.again.subscribe(), told)));
        self.troubles.push(Trouble {
            setting,
            look: Box::new(move || last_good.trouble()),
        });
    }

    /// How the files stand, for readiness: a setting's last error, or "good". Separate from the watching.
    pub fn take_status(&mut self) -> impl Fn() -> Map<String, Value> + Send + Sync + 'static {
        let troubles = std::mem::take(&mut self.troubles);
        move || {
            let status = |trouble: &Trouble| match (trouble.look)() {
                None => json!({ "state": "good" }),
                Some(error) => json!({ "state": "lastGood", "lastError": error }),
            };
            troubles
                .iter()
                .map(|trouble| (trouble.setting.to_owned(), status(trouble)))
                .collect()
        }
    }

    /// Watches for as long as it is polled. SIGHUP has all files read again at once.
    pub async fn run(mut self) -> Infallible {
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| warn!("SIGHUP has no effect on secrets and certificates: {error}"))
            .ok();
        loop {
            tokio::select! {
                Some(never) = self.watches.next() => match never {},
                () = received(&mut hangup) => {
                    info!("SIGHUP received: reading secrets and certificates again");
                    self.again.send_replace(());
                }
            }
        }
    }
}

/// Ready when the signal arrives; never where there is no handler for it.
async fn received(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

impl Metrics {
    fn tell(&self, setting: &'static str, reading: &Reading) {
        let (outcome, valid) = match reading {
            Reading::Applied => ("applied", 1),
            Reading::Failed(_) => ("failed", 0),
        };
        self.reloads
            .get_or_create(&ReloadLabels { outcome, setting })
            .inc();
        self.valid
            .get_or_create(&SettingLabels { setting })
            .set(valid);
        match reading {
            Reading::Applied => {
                info!("the changed files of {setting} are in force");
            }
            Reading::Failed(why) => {
                error!(
                    "the changed files of {setting} cannot be used, the last good ones stay in force: {why}"
                );
            }
        }
    }
}
