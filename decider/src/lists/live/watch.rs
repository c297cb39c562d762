//! Keeps the live lists up to date.

mod follow;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, Once},
    thread,
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use async_nats::jetstream::{self, context::ContextBuilder};
use importguard_nats::NatsSettings;
use importguard_runtime::{SharedWatches, ThreadSettings, block_on};
use serde_json::Value;
use tokio::{task::spawn_blocking, time::sleep};

use self::follow::Follower;
use super::{
    LiveLists, LiveSettings, Status,
    snapshot::{Snapshot, SnapshotError},
};

/// Request timeout. Less than the default of `IMPORTGUARD_LISTS_MAX_AGE`, so that the lists stay current if one response is lost.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the connection may be idle before the client sends a PING: less than for others, because lists are stale while it hangs.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// How long a reload waits for the lists at most before it is held back and tried again: further changes of the policy wait meanwhile, and
/// a read of files that takes 30 seconds is reported as a fault of their file system.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How often it is checked whether the lists have been read.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The initial delay before a retry of the watch.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// The maximum delay before a retry: a hundred deciders then send a hundred requests per second.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The live lists, kept up to date by a background thread. Clones share the same state.
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
    files: SharedWatches,
}

impl Watch {
    /// Creates a watch that starts as soon as [`need`](Self::need) is called with a list. From then on, it also watches the files of
    /// `nats`, as one of the process's watchers, which share `files`.
    pub fn new(settings: &LiveSettings, nats: NatsSettings, files: SharedWatches) -> Self {
        Self {
            shared: Arc::new(Shared {
                lists: ArcSwap::default(),
                started: Once::new(),
                max_age: settings.lists_max_age,
                snapshots: settings.lists_snapshot.clone(),
                nats,
                files,
            }),
            status: Status::new(settings),
        }
    }

    /// Sets the policy's live lists. The first call with one starts the watch on its own thread, so that requests are served while a
    /// million entries are read.
    pub fn need<'l>(&self, lists: impl Iterator<Item = &'l str>) {
        let lists: BTreeSet<_> = lists.map(str::to_owned).collect();
        let is_needed = !lists.is_empty();
        self.status.need(lists);
        if is_needed {
            self.start();
        }
    }

    /// Whether one of `lists` is not a live list of the active policy.
    pub fn lacks<'l>(&self, mut lists: impl Iterator<Item = &'l str>) -> bool {
        let needed = self.status.needed();
        lists.any(|list| !needed.contains(list))
    }

    /// Starts watching, and blocks until the lists have been read or there is no bucket to read, for at most
    /// `IMPORTGUARD_LISTS_MAX_AGE` or ten seconds.
    ///
    /// # Errors
    /// Why nothing was read.
    pub fn read_first(&self) -> Result<(), String> {
        self.start();
        let deadline = Instant::now() + self.shared.max_age.min(READ_TIMEOUT);
        while !self.status.is_known() {
            if Instant::now() >= deadline {
                return Err(self.status.cause());
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn start(&self) {
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

    /// Waits until the lists are current or the bucket is known to be missing, for at most `IMPORTGUARD_LISTS_MAX_AGE`.
    pub async fn settle(&self) {
        let deadline = Instant::now() + self.shared.max_age;
        while !self.status.is_settled() && Instant::now() < deadline {
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the latest state of the lists.
    pub fn load(&self) -> Arc<LiveLists> {
        self.shared.lists.load_full()
    }

    /// Returns how current the lists are.
    pub const fn status(&self) -> &Status {
        &self.status
    }

    /// Describes the lists for `/readyz`.
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
                Err(cause) => self.status.interrupted(cause),
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

    /// Reads the snapshot on disk, and makes its lists available immediately.
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

    /// Connects in the background, because NATS may be unreachable. Fails if the settings are invalid.
    async fn connect(&self) -> Result<jetstream::Context, String> {
        let mut files = self.shared.files.watches();
        let nats = &self.shared.nats;
        let servers = nats.servers("importguard-decider", &mut files).await;
        let servers = servers.map_err(|error| error.to_string())?;
        tokio::spawn(async move { files.run_without_sighup().await });
        if let Some(warning) = servers.warning {
            tracing::warn!("{warning}");
        }
        let status = self.status.clone();
        let mut servers = servers.on_failure(move |cause| status.interrupted(cause));
        servers.options = servers.options.ping_interval(PING_INTERVAL);
        let client = servers.connect_in_background().await;
        let client =
            client.map_err(|error| format!("cannot set up the connection to NATS: {error}"))?;
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
