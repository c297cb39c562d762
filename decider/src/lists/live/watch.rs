//! Keeps the live lists up to date.

mod follow;

use std::{
    path::PathBuf,
    sync::{Arc, Once},
    thread,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use async_nats::jetstream::{self, context::ContextBuilder};
use importguard_nats::{NatsServers, NatsSettings, NatsSettingsError};
use importguard_runtime::{FileWatches, ThreadSettings, block_on};
use serde_json::Value;
use tokio::{task::spawn_blocking, time::sleep};

use self::follow::Follower;
use super::{
    LiveLists, LiveSettings, Status,
    snapshot::{Snapshot, SnapshotError},
};

/// How long NATS is given to answer. Less than `IMPORTGUARD_LISTS_MAX_AGE`, so that one lost answer is no outage.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the connection may be silent before it is tested; a lost one is found in twice that.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// The longest pause between attempts to connect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// The pause before the watch is set up again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The longest such pause: a hundred deciders then ask a hundred times a second.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The live lists, which a task keeps up to date. Clones share it.
#[derive(Clone, Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    status: Status,
}

#[derive(Debug)]
struct Shared {
    lists: ArcSwap<LiveLists>,
    started: Once,
    max_age: Duration,
    snapshots: Option<PathBuf>,
    nats: NatsSettings,
}

/// Why live lists cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// NATS's settings are unusable.
    #[error(transparent)]
    NatsSettings(#[from] NatsSettingsError),
    /// The client refuses its settings.
    #[error("cannot set up the connection to NATS: {0}")]
    Nats(#[from] async_nats::ConnectError),
}

impl Watch {
    /// Live lists that are watched as soon as [`need`](Self::need) says that the policy has some.
    pub fn new(settings: &LiveSettings, nats: NatsSettings) -> Self {
        Self {
            shared: Arc::new(Shared {
                lists: ArcSwap::default(),
                started: Once::new(),
                max_age: settings.lists_max_age,
                snapshots: settings.lists_snapshot.clone(),
                nats,
            }),
            status: Status::new(settings),
        }
    }

    /// Whether the policy has live lists. From the first time on they are watched, by a thread of their own: a million entries are
    /// read while calls are answered.
    pub fn need(&self, needed: bool) {
        self.status.need(needed);
        if !needed {
            return;
        }
        self.shared.started.call_once(|| {
            let watch = self.clone();
            let run = move || {
                let ended = block_on(ThreadSettings::ONE, watch.clone().run());
                if let Err(error) = ended {
                    watch.status.interrupted(error.to_string());
                }
            };
            let started = thread::Builder::new()
                .name("live-lists".to_owned())
                .spawn(run);
            if let Err(error) = started {
                self.status.interrupted(error.to_string());
            }
        });
    }

    /// Waits until the lists are current, for at most `IMPORTGUARD_LISTS_MAX_AGE`, or until there is no bucket to wait for.
    pub async fn settle(&self) {
        let deadline = Instant::now() + self.shared.max_age;
        while !self.status.is_settled() && Instant::now() < deadline {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The lists as they are now.
    pub fn load(&self) -> Arc<LiveLists> {
        self.shared.lists.load_full()
    }

    /// How current they are.
    pub const fn status(&self) -> &Status {
        &self.status
    }

    /// For `/readyz`.
    pub fn describe(&self) -> Value {
        let lists = self.load();
        self.status.describe(lists.revision(), lists.entries())
    }

    fn publish(&self, lists: &LiveLists) {
        self.shared.lists.store(Arc::new(lists.clone()));
    }

    async fn run(self) {
        let mut follower = Follower::new(self.clone(), self.snapshot().await);
        let jetstream = loop {
            match self.connect().await {
                Ok(jetstream) => break jetstream,
                Err(error) => self.status.interrupted(error.to_string()),
            }
            sleep(MAX_RETRY_DELAY).await;
        };
        let mut delay = RETRY_DELAY;
        loop {
            let before = follower.revision();
            let cause = follower.follow(&jetstream).await;
            self.status.interrupted(cause);
            delay = match follower.revision() == before {
                true => (delay * 2).min(MAX_RETRY_DELAY),
                false => RETRY_DELAY,
            };
            sleep(delay).await;
        }
    }

    /// The snapshot on disk, whose lists are used at once.
    async fn snapshot(&self) -> Option<Snapshot> {
        let directory = self.shared.snapshots.clone()?;
        let read = spawn_blocking(move || Snapshot::read(&directory))
            .await
            .ok()?;
        match read {
            Ok(snapshot) => {
                let snapshot = snapshot?;
                self.publish(&snapshot.lists);
                self.status.loaded(snapshot.confirmed);
                tracing::info!(
                    revision = snapshot.lists.revision(),
                    entries = snapshot.lists.entries(),
                    "read the snapshot of live lists, which is {} old",
                    snapshot.confirmed.map_or_else(|| "unknown".to_owned(), age)
                );
                Some(snapshot)
            }
            Err(error) => {
                tracing::warn!("{error}");
                None
            }
        }
    }

    /// Connects in the background: NATS may be away.
    async fn connect(&self) -> Result<jetstream::Context, StartError> {
        let mut files = FileWatches::without_metrics();
        let nats = &self.shared.nats;
        let servers = nats.servers("importguard-decider", &mut files).await?;
        tokio::spawn(async move { files.run_without_sighup().await });
        if let Some(warning) = servers.warning {
            tracing::warn!("{warning}");
        }
        let status = self.status.clone();
        let NatsServers {
            options, addresses, ..
        } = servers.on_failure(move |cause| status.interrupted(cause));
        let client = options
            .retry_on_initial_connect()
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(reconnect_delay)
            .connect(addresses)
            .await?;
        Ok(ContextBuilder::new().timeout(REQUEST_TIMEOUT).build(client))
    }

    /// Writes a snapshot in the background.
    fn save(&self, snapshot: Snapshot) {
        let Some(directory) = self.shared.snapshots.clone() else {
            return;
        };
        spawn_blocking(move || {
            let written: Result<(), SnapshotError> = snapshot.write(&directory);
            if let Err(error) = written {
                tracing::error!("{error}");
            }
        });
    }
}

fn age(at: SystemTime) -> String {
    let age = at.elapsed().unwrap_or_default();
    humantime::format_duration(Duration::from_secs(age.as_secs())).to_string()
}

fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts).unwrap_or(u32::MAX);
    Duration::from_millis(2_u64.saturating_pow(doublings)).min(MAX_RECONNECT_DELAY)
}
