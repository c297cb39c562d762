use std::{
    fs,
    ops::{Deref, DerefMut},
    path::Path,
};

use tempfile::TempDir;

use crate::{Binary, Process, SOON, Settings, admin, eventually, free_port, settings::ADMIN};

/// A process of `importguard detect`, with its settings for a restart.
#[derive(Debug)]
pub struct Detector {
    process: Process,
    settings: Settings,
    dir: TempDir,
}

impl Detector {
    /// Starts a detector with these rules (`[{ id: … }]`), without waiting for it.
    pub fn spawn(rules: &str, settings: Settings) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let file = dir.path().join("detector.yaml");
        let source = format!("apiVersion: importguard/v1\nrules: {rules}\n");
        fs::write(&file, source).expect("the rules can be written");
        Self::spawn_in(dir, &file, settings)
    }

    fn spawn_in(dir: TempDir, rules: &Path, settings: Settings) -> Self {
        let settings = settings
            .set("IMPORTGUARD_DETECT_RULES", rules.display().to_string())
            .or_set(ADMIN, || format!("127.0.0.1:{}", free_port()))
            .or_set("RUST_LOG", || "info".to_owned());
        let process = launch(&settings, &dir);
        Self {
            process,
            settings,
            dir,
        }
    }

    /// A detector that reads events.
    pub async fn start(rules: &str, settings: Settings) -> Self {
        let detector = Self::spawn(rules, settings);
        detector.ready().await;
        detector
    }

    /// A detector that reads events, with a file of rules.
    pub async fn start_with(rules: &Path, settings: Settings) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let detector = Self::spawn_in(dir, rules, settings);
        detector.ready().await;
        detector
    }

    /// Waits until it reads events.
    pub async fn ready(&self) {
        eventually("the detector reads", SOON, async || {
            self.admin("/readyz").await
        })
        .await;
    }

    /// Starts it again, with other settings where `settings` has some.
    pub fn restart(&mut self, settings: &[(&str, &str)]) {
        assert!(self.process.ended().is_some(), "it is still running");
        for (name, value) in settings {
            self.settings = self.settings.clone().set(name, *value);
        }
        self.process = launch(&self.settings, &self.dir);
    }

    /// The response of the admin listener. Fails unless it is a success.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        admin::page(self.address(), path).await
    }

    /// The value of a series of its metrics.
    pub async fn metric(&self, series: &str) -> anyhow::Result<f64> {
        admin::metric(self.address(), series).await
    }

    /// Waits until the value of a series is right.
    pub async fn wait_for_metric(&self, series: &str, right: impl Fn(f64) -> bool) {
        admin::wait_for_metric(self.address(), series, right).await;
    }

    /// Waits until a series has at least this value.
    pub async fn counts(&self, series: &str, least: f64) {
        self.wait_for_metric(series, |value| value >= least).await;
    }

    fn address(&self) -> &str {
        self.settings.get(ADMIN).expect("it has one")
    }
}

impl Deref for Detector {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Detector {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn launch(settings: &Settings, dir: &TempDir) -> Process {
    let mut command = settings.command(Binary::AllInOne.path());
    command.arg("detect").current_dir(dir.path());
    Process::spawn("detector", command, dir.path())
}
