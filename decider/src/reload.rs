//! Last good wins: the policy's files are looked at again and again, a changed policy is built off to the side and swapped in at
//! once, and a broken one changes nothing but what is told about it.

use std::{io, path::PathBuf, time::Duration};

use importguard_files::Files;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{debug, error, info, warn};

use crate::{
    background::in_background,
    in_force::{Active, InForce, Swap},
    load::{Loaded, load},
    metrics::Metrics,
    policy::{Diagnostics, Policy},
};

/// Keeps the policy in force the one that its files hold.
pub(crate) struct Reloader {
    path: PathBuf,
    max_friends: usize,
    every: Duration,
    in_force: InForce,
    metrics: Metrics,
    /// What the last attempt read.
    attempted: Files,
    /// The same files at the last look.
    looked_at: Files,
}

impl Reloader {
    /// Loads the policy for the first time; what is wrong with it is an error here and never again. Blocks while lists are
    /// read.
    pub(crate) fn start(
        path: PathBuf,
        max_friends: usize,
        every: Duration,
        metrics: Metrics,
    ) -> Result<(Self, InForce), Diagnostics> {
        let Loaded { files, policy } = load(&path, max_friends);
        let policy = policy?;
        info!(
            policy = policy.name(),
            digest = policy.digest(),
            lists = policy.lists().count(),
            "policy {} is in force",
            path.display()
        );
        let in_force = InForce::new(Active {
            rule_durations: metrics.applied(&policy, None),
            policy,
        });
        let reloader = Self {
            path,
            max_friends,
            every,
            in_force: in_force.clone(),
            metrics,
            looked_at: files.clone(),
            attempted: files,
        };
        Ok((reloader, in_force))
    }

    /// Watches for as long as it is polled. SIGHUP forces a reload. Fails where the operating system refuses a signal handler.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        let mut hangup: Signal = signal(SignalKind::hangup())?;
        let mut looks = interval(self.every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let forced = tokio::select! {
                _ = looks.tick() => false,
                _ = hangup.recv() => true,
            };
            if forced {
                info!("SIGHUP received: reading the policy again");
            }
            // A failed look or load (its thread panicked) is tried again at the next tick; the policy in force stays.
            let files = self.attempted.clone();
            let Ok(now) = spawn_blocking(move || files.look_again()).await else {
                continue;
            };
            if forced || self.due(&now) {
                self.reload().await;
            } else {
                self.looked_at = now;
            }
        }
    }

    /// Due is what changed since the last attempt and has held still since the last look: a file that is being written is left
    /// alone.
    fn due(&self, now: &Files) -> bool {
        *now != self.attempted && *now == self.looked_at
    }

    async fn reload(&mut self) {
        let (path, max_friends) = (self.path.clone(), self.max_friends);
        let read = in_background("reload", move || {
            let loaded = load(&path, max_friends);
            let now = loaded.files.look_again();
            (loaded, now)
        });
        let (loaded, now) = match read.await {
            Ok(read) => read,
            Err(error) => {
                warn!(%error, "the policy could not be read; it will be tried again");
                return;
            }
        };
        if now != loaded.files {
            debug!("the policy's files changed while they were read; reading them again");
            self.looked_at = now;
            return;
        }
        self.attempted = loaded.files.clone();
        self.looked_at = loaded.files;
        self.apply(loaded.policy);
    }

    fn apply(&self, policy: Result<Policy, Diagnostics>) {
        match policy {
            Ok(policy) => {
                let (name, digest) = (policy.name().to_owned(), policy.digest().to_owned());
                let active = Active {
                    rule_durations: self
                        .metrics
                        .applied(&policy, Some(&self.in_force.load().policy)),
                    policy,
                };
                match self.in_force.replace(active) {
                    Swap::Applied => {
                        info!(policy = name, %digest, "the changed policy is in force");
                    }
                    Swap::Unchanged => info!(
                        policy = name,
                        %digest,
                        "the policy was read again and is the same"
                    ),
                }
            }
            Err(diagnostics) => {
                self.metrics.failed();
                let digest = self.in_force.load().policy.digest().to_owned();
                error!(
                    %digest,
                    mistakes = diagnostics.count(),
                    "the changed policy {} cannot be used; the last good one stays in force",
                    self.path.display()
                );
                for mistake in diagnostics.iter() {
                    error!("{}", mistake.on_one_line());
                }
                self.in_force.failed(&diagnostics);
            }
        }
    }
}
