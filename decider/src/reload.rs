//! The active policy. It is reloaded when the policy file or one of its lists changes; if that fails, it stays active.

use std::{
    fmt::Display,
    mem,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use importguard_core::ListRevision;
use importguard_runtime::{FileWatcher, FileWatches, LastGood, Reload, Snapshot};
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use serde_json::{Value, json};
use tracing::{error, info};

use crate::{
    PolicySettings,
    lists::live::Watch,
    load::snapshot,
    metrics::Metrics,
    policy::{BriefDiagnostics, Diagnostic, Diagnostics, Policy},
    timestamp::rfc3339,
};

/// The active policy, and the duration histogram of each of its rules.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) policy: Policy,
    pub(crate) rule_durations: OnceLock<Vec<Histogram>>,
    /// Why live lists that the active policy did not have had not been read when it was loaded, if they had not.
    pub(crate) unread: Option<Diagnostics>,
}

impl Active {
    /// The duration histograms of its rules, in rule order. The first call adds them to `metrics`, so the policy must be active.
    pub(crate) fn rule_durations(&self, metrics: &Metrics) -> &[Histogram] {
        self.rule_durations
            .get_or_init(|| metrics.rule_durations(&self.policy))
    }
}

/// Loads the policy for imports of up to `max_friends` friends, and registers it with `watches` for reloading.
///
/// # Errors
/// If it is invalid.
pub(crate) async fn watch(
    settings: &PolicySettings,
    max_friends: usize,
    metrics: Metrics,
    live: Watch,
    watches: &mut FileWatches,
) -> Result<LastGood<Active>, BriefDiagnostics> {
    let file = settings.policy.clone();
    let (watched, is_reload) = (live.clone(), AtomicBool::new(false));
    let read = move || {
        let Snapshot { files, content, .. } = snapshot(&file, max_friends);
        // At startup, the decider waits for its live lists before it serves.
        let is_reload = is_reload.swap(true, Ordering::Relaxed);
        let content = content.map_err(BriefDiagnostics).map(|policy| Active {
            rule_durations: OnceLock::new(),
            unread: match is_reload && watched.lacks(live_lists(&policy)) {
                true => watched.read_first().err().map(|why| unread(&file, &why)),
                false => None,
            },
            policy,
        });
        let retry = matches!(&content, Ok(active) if active.unread.is_some());
        Snapshot {
            files,
            content,
            retry,
        }
    };
    let watcher = FileWatcher::open(read).await?;
    let watcher = watcher
        .keep_if(|one, other| is_same(&one.policy, &other.policy))
        .hold_back_if(|active, new| {
            let doubts = new.policy.doubts(&active.policy);
            let all = doubts.into_iter().chain(new.unread.clone());
            all.reduce(Diagnostics::and).map(BriefDiagnostics)
        });
    let active = watcher.last_good();
    let first = active.load();
    let policy = &first.policy;
    info!(
        policy = policy.name(),
        digest = policy.digest(),
        content_digest = policy.content_digest(),
        lists = policy.lists().count(),
        "policy {} is active",
        settings.policy.display()
    );
    metrics.applied(policy, None);
    first.rule_durations(&metrics);
    live.need(live_lists(policy));
    let file = settings.policy.display().to_string();
    let reloaded = active.clone();
    let reported = Mutex::new(first);
    watches.watch(watcher, settings.reload_interval, move |reload| {
        let active = reloaded.load();
        live.need(live_lists(&active.policy));
        let mut reported = reported.lock();
        let previous = mem::replace(&mut *reported, active.clone());
        report(&reload, &active.policy, &previous.policy, &file, &metrics);
        active.rule_durations(&metrics);
    });
    Ok(active)
}

/// The names of the policy's live lists in the bucket.
fn live_lists(policy: &Policy) -> impl Iterator<Item = &str> {
    policy.live_lists().map(|(name, _)| name)
}

/// The policy must not be activated yet: nobody would be on its live lists.
fn unread(file: &Path, why: &str) -> Diagnostics {
    Diagnostics::one(Diagnostic::of_file(
        Arc::from(file.display().to_string()),
        format!("its live lists have not been read: {why}"),
        "it is activated when they have been; check NATS_URL, the permissions, and the bucket of live lists; SIGHUP activates it without them",
    ))
}

/// Reports a reload of `file`, after which `active` is the active policy, in log and metrics.
fn report(
    reload: &Reload<BriefDiagnostics>,
    active: &Policy,
    previous: &Policy,
    file: &str,
    metrics: &Metrics,
) {
    let (policy, digest) = (active.name(), active.digest());
    match reload {
        Reload::Applied => {
            metrics.applied(active, Some(previous));
            info!(
                policy,
                digest,
                content_digest = active.content_digest(),
                previous_content_digest = previous.content_digest(),
                "reloaded policy {policy}: {}",
                active.changes_since(previous)
            );
        }
        Reload::Unchanged => {
            metrics.applied(active, Some(previous));
            info!(policy, digest, "reloaded policy {policy}: unchanged");
        }
        Reload::Failed(errors) => {
            metrics.failed(false);
            log_errors(digest, errors, format_args!("policy {file} is invalid"));
        }
        Reload::HeldBack(doubts) => {
            metrics.failed(true);
            let summary = format_args!("policy {file} is held back");
            log_errors(digest, doubts, summary);
        }
    }
}

/// Logs why the files were not applied, one line per reason.
fn log_errors(digest: &str, BriefDiagnostics(errors): &BriefDiagnostics, summary: impl Display) {
    error!(
        digest,
        errors = errors.count(),
        "{summary}; the last valid policy stays active"
    );
    for error in errors.iter() {
        error!("{}", error.on_one_line());
    }
}

/// For `/readyz`: the active policy, its activation time and lists, and the errors of a newer one, if any.
pub(crate) fn describe(active: &LastGood<Active>) -> Value {
    let (active, status) = active.with_status();
    let policy = &active.policy;
    let lists: Vec<_> = policy.lists().map(list).collect();
    let mut state = json!({
        "name": policy.name(),
        "digest": policy.digest(),
        "contentDigest": policy.content_digest(),
        "since": rfc3339(status.since),
        "lists": lists,
    });
    if let Some(failure) = status.failure {
        state["error"] = json!({ "since": rfc3339(failure.since), "text": failure.error });
    }
    state
}

fn is_same(one: &Policy, other: &Policy) -> bool {
    one.digest() == other.digest() && one.lists().eq(other.lists())
}

fn list(revision: &ListRevision) -> Value {
    json!({ "name": revision.name, "digest": revision.digest, "size": revision.size })
}
