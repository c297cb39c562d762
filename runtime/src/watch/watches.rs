use std::{
    collections::{BTreeMap, btree_map::Entry},
    convert::Infallible,
    fmt::{self, Display},
    ops::Deref,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::{FileWatcher, LastGood, Reload, Snapshot};
use crate::{
    CertificateError,
    expiry::{CertificateFile, doubt},
    signals::Hangup,
};

/// How often files are checked: a check is one system call per file.
const INTERVAL: Duration = Duration::from_secs(1);

/// The file watchers of a process, or of one of its threads. SIGHUP makes all of them read their files immediately.
pub struct FileWatches {
    watches: FuturesUnordered<BoxFuture<'static, Infallible>>,
    shared: SharedWatches,
}

/// What all file watchers of a process share: metrics, readiness, and SIGHUP. For watchers on another thread.
#[derive(Clone)]
pub struct SharedWatches {
    metrics: Metrics,
    statuses: Statuses,
    reload: watch::Sender<()>,
}

/// The status of each setting that names files.
type Statuses = Arc<Mutex<BTreeMap<&'static str, Box<dyn Fn() -> Value + Send + Sync>>>>;

/// That a setting is reported. When it is dropped, with the watcher, a later watcher of the same files is reported in its place.
struct Reported {
    setting: &'static str,
    shared: SharedWatches,
}

/// What was read from files of certificates.
pub(crate) trait Certificates: Send + Sync + 'static {
    fn certificates(&self) -> &[CertificateFile];
}

#[derive(Clone, Default)]
struct Metrics {
    reloads: Family<ReloadLabels, Counter>,
    valid: Family<SettingLabels, Gauge>,
    expiry: Family<SettingLabels, Gauge>,
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

impl FileWatches {
    /// An empty set; registers its metrics.
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
        registry.register(
            "importguard_certificate_expiry_timestamp_seconds",
            "When the certificates in a setting's file expire: the first of a certificate and its intermediates, the last of CA certificates",
            metrics.expiry.clone(),
        );
        let shared = SharedWatches {
            metrics,
            statuses: Statuses::default(),
            reload: watch::Sender::new(()),
        };
        shared.watches()
    }

    /// An empty set whose metrics nobody scrapes: for a command, or for files that a part of a process reads on its own.
    pub fn without_metrics() -> Self {
        Self::new(&mut Registry::default())
    }

    /// What watchers on another thread need.
    pub fn shared(&self) -> SharedWatches {
        self.shared.clone()
    }

    /// Watches the files of `setting`, and returns their content. Reports reloads in log, metrics and [`status`](Self::status), once for
    /// each setting: gateway and decider of one process both read the files of NATS's.
    pub fn add<T, E>(&mut self, setting: &'static str, watcher: FileWatcher<T, E>) -> LastGood<T>
    where
        T: Send + Sync + 'static,
        E: Display + Send + 'static,
    {
        self.add_with_certificates(setting, watcher, |_| &[])
    }

    /// Reads `files` with `read`, and watches them as [`add`](Self::add) does. Reports their certificates, too, and holds back those that
    /// peers would reject.
    ///
    /// # Errors
    /// If they cannot be used.
    pub(crate) async fn add_certificates<T: Certificates>(
        &mut self,
        setting: &'static str,
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, CertificateError> + Send + Sync + 'static,
    ) -> Result<LastGood<T>, CertificateError> {
        // A certificate becomes valid, or the active one expires, while the files stay as they are.
        let snapshot = move || Snapshot {
            retry: true,
            ..Snapshot::take(&files, &read)
        };
        let watcher = FileWatcher::open(snapshot).await?;
        let watcher =
            watcher.hold_back_if(|active, new| doubt(active.certificates(), new.certificates()));
        Ok(self.add_with_certificates(setting, watcher, T::certificates))
    }

    fn add_with_certificates<T, E>(
        &mut self,
        setting: &'static str,
        watcher: FileWatcher<T, E>,
        certificates: fn(&T) -> &[CertificateFile],
    ) -> LastGood<T>
    where
        T: Send + Sync + 'static,
        E: Display + Send + 'static,
    {
        let content = watcher.last_good();
        let Some(reported) = self.shared.add_status(setting, &content, certificates) else {
            self.watch(watcher, INTERVAL, |_| {});
            return content;
        };
        let metrics = self.shared.metrics.clone();
        for outcome in ["applied", "failed"] {
            drop(metrics.reloads(outcome, setting));
        }
        metrics.valid(setting).set(1);
        metrics.certificates("loaded", certificates(&content.load()));
        let active = content.clone();
        let overdue = metrics.clone();
        let watcher = watcher.on_overdue(move |error| overdue.report_failure(setting, error));
        self.watch(watcher, INTERVAL, move |reload| {
            let active = active.load();
            let metrics = &reported.shared.metrics;
            metrics.report(setting, &reload, certificates(&active));
        });
        content
    }

    /// Checks a watcher's files every `interval`. Reloads are reported by `on_reload` only.
    pub fn watch<T, E>(
        &mut self,
        watcher: FileWatcher<T, E>,
        interval: Duration,
        on_reload: impl Fn(Reload<E>) + Send + 'static,
    ) where
        T: Send + Sync + 'static,
        E: Display + Send + 'static,
    {
        let reload = self.shared.reload.subscribe();
        self.watches
            .push(Box::pin(watcher.run(interval, reload, on_reload)));
    }

    /// The status of all settings of the process, for readiness: "good", or the last error, and the certificates.
    pub fn status(&self) -> impl Fn() -> Value + Send + Sync + 'static {
        let statuses = self.shared.statuses.clone();
        move || {
            let statuses = statuses.lock();
            let all = statuses.iter();
            let all = all.map(|(setting, status)| ((*setting).to_owned(), status()));
            Value::Object(all.collect())
        }
    }

    /// Like [`run`](Self::run), but does not receive SIGHUP: it ends a command, and in a process one thread receives it for all.
    pub async fn run_without_sighup(&mut self) -> Infallible {
        match self.watches.next().await {
            Some(never) => match never {},
            None => std::future::pending().await,
        }
    }

    /// Runs all watchers for as long as it is polled.
    pub async fn run(&mut self) -> Infallible {
        let mut hangup = Hangup::listen()
            .inspect_err(|error| warn!("SIGHUP will not reload files: {error}"))
            .unwrap_or_default();
        loop {
            tokio::select! {
                Some(never) = self.watches.next() => match never {},
                () = hangup.received() => {
                    info!("SIGHUP received: reloading all files");
                    self.shared.reload.send_replace(());
                }
            }
        }
    }
}

impl SharedWatches {
    /// An empty set, for another thread.
    pub fn watches(&self) -> FileWatches {
        FileWatches {
            watches: FuturesUnordered::new(),
            shared: self.clone(),
        }
    }

    /// Adds the status of `setting`, for as long as the result is kept; `None` if it has one.
    fn add_status<T: Send + Sync + 'static>(
        &self,
        setting: &'static str,
        active: &LastGood<T>,
        certificates: fn(&T) -> &[CertificateFile],
    ) -> Option<Reported> {
        let mut statuses = self.statuses.lock();
        let Entry::Vacant(entry) = statuses.entry(setting) else {
            return None;
        };
        let active = active.clone();
        entry.insert(Box::new(move || {
            let mut status = match active.error() {
                None => json!({ "state": "good" }),
                Some(error) => json!({ "state": "lastGood", "lastError": error }),
            };
            let content = active.load();
            if let files @ [_, ..] = certificates(&content) {
                status["certificates"] = files.iter().map(CertificateFile::describe).collect();
            }
            status
        }));
        Some(Reported {
            setting,
            shared: self.clone(),
        })
    }
}

impl Drop for Reported {
    fn drop(&mut self) {
        let setting = self.setting;
        self.shared.statuses.lock().remove(setting);
        let labels = SettingLabels { setting };
        self.shared.metrics.valid.remove(&labels);
    }
}

impl fmt::Debug for SharedWatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWatches").finish_non_exhaustive()
    }
}

impl Metrics {
    fn reloads(
        &self,
        outcome: &'static str,
        setting: &'static str,
    ) -> impl Deref<Target = Counter> {
        self.reloads
            .get_or_create(&ReloadLabels { outcome, setting })
    }

    fn valid(&self, setting: &'static str) -> impl Deref<Target = Gauge> {
        self.valid.get_or_create(&SettingLabels { setting })
    }

    /// Reports the certificates that were `loaded` or `reloaded`.
    fn certificates(&self, verb: &str, certificates: &[CertificateFile]) {
        for file in certificates {
            let setting = file.setting;
            let labels = SettingLabels { setting };
            self.expiry.get_or_create(&labels).set(file.expires());
            let (certificate_subject, expires) = (file.subject(), file.expiry());
            if !file.is_valid() {
                warn!(
                    setting,
                    certificate_subject, expires, "{verb} {setting} ({file})"
                );
            } else {
                info!(
                    setting,
                    certificate_subject, expires, "{verb} {setting} ({file})"
                );
            }
        }
    }

    fn report(
        &self,
        setting: &'static str,
        reload: &Reload<impl Display>,
        certificates: &[CertificateFile],
    ) {
        match reload {
            Reload::Unchanged => {
                self.valid(setting).set(1);
                info!("{setting} is unchanged");
            }
            Reload::Applied => {
                self.reloads("applied", setting).inc();
                self.valid(setting).set(1);
                if certificates.is_empty() {
                    info!("reloaded {setting}");
                } else {
                    self.certificates("reloaded", certificates);
                }
            }
            Reload::Failed(error) | Reload::HeldBack(error) => self.report_failure(setting, error),
        }
    }

    fn report_failure(&self, setting: &'static str, error: impl Display) {
        self.reloads("failed", setting).inc();
        self.valid(setting).set(0);
        error!("cannot reload {setting}, keeping the last good files: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, slice};

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn a_setting_that_two_parts_of_a_process_read_is_reported_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "old").unwrap();
        let mut registry = Registry::default();
        let mut watches = FileWatches::new(&mut registry);
        let mut contents = Vec::new();
        for _ in 0..2 {
            let file = file.clone();
            let read = move || Snapshot::take(slice::from_ref(&file), || fs::read_to_string(&file));
            contents.push(watches.add("FILE", FileWatcher::open(read).await.unwrap()));
        }
        fs::write(&file, "new").unwrap();
        watches.shared.reload.send_replace(());
        let reloaded = async {
            while contents.iter().any(|content| *content.load() != "new") {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            never = watches.run_without_sighup() => match never {},
            () = reloaded => {}
        }
        let mut metrics = String::new();
        prometheus_client::encoding::text::encode(&mut metrics, &registry).unwrap();
        let once = "importguard_file_reloads_total{outcome=\"applied\",setting=\"FILE\"} 1\n";
        assert!(metrics.contains(once), "{metrics}");
    }
}
