use std::{
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Binary, PolicyDir, Process, SOON, Settings, admin, eventually, free_port, settings::ADMIN,
};

/// How many times to retry with other ports if one was taken meanwhile.
const ATTEMPTS: usize = 3;

const HTTP: &str = "IMPORTGUARD_HTTP_LISTEN";
const GRPC: &str = "IMPORTGUARD_DECIDER_LISTEN";

/// A process of importguard, with its settings for a restart.
#[derive(Debug)]
pub struct Service {
    process: Process,
    binary: Binary,
    settings: Settings,
    policy: PolicyDir,
    dir: TempDir,
}

impl Service {
    /// A running gateway; by default with long timeouts, and without a decider and NATS.
    pub async fn gateway(settings: Settings) -> Self {
        Self::start(Binary::Gateway, settings.with_long_timeouts()).await
    }

    /// A ready decider; by default with the usual policy.
    pub async fn decider(settings: Settings) -> Self {
        let mut decider = Self::start(Binary::Decider, settings).await;
        decider.ready().await;
        decider
    }

    /// A ready `importguard serve`; by default with the usual policy, long timeouts, and without NATS.
    pub async fn all_in_one(settings: Settings) -> Self {
        Self::start(Binary::AllInOne, settings.with_long_timeouts()).await
    }

    /// Like [`Self::gateway`], with this standard error.
    pub async fn gateway_with_stderr(settings: Settings, stderr: impl Fn() -> Stdio) -> Self {
        let settings = settings.with_long_timeouts();
        Self::listening(Binary::Gateway, || {
            Self::spawn_as(Binary::Gateway, settings.clone(), |command, dir| {
                Process::spawn_with_stderr(stderr(), "gateway", command, dir)
            })
        })
        .await
    }

    /// Like [`Self::gateway`], after the shell command `limits` (`ulimit -Sn 256`).
    pub async fn gateway_with_limits(limits: &str, settings: Settings) -> Self {
        let settings = settings.with_long_timeouts();
        Self::listening(Binary::Gateway, || {
            Self::spawn_with_limits(limits, Binary::Gateway, settings.clone())
        })
        .await
    }

    /// Like [`Self::all_in_one`], as the command that `wrap` makes of the one to start it: under another program.
    pub async fn all_in_one_under(settings: Settings, wrap: impl Fn(Command) -> Command) -> Self {
        Self::listening(Binary::AllInOne, || {
            Self::spawn_as(Binary::AllInOne, settings.clone(), |command, dir| {
                Process::spawn(Binary::AllInOne.name(), wrap(command), dir)
            })
        })
        .await
    }

    /// Like [`Self::spawn`], after the shell command `limits`.
    pub fn spawn_with_limits(limits: &str, binary: Binary, settings: Settings) -> Self {
        Self::spawn_as(binary, settings, |command, dir| {
            Process::spawn(binary.name(), within(limits, &command), dir)
        })
    }

    /// Starts `binary` and waits until it is ready.
    async fn start(binary: Binary, settings: Settings) -> Self {
        Self::listening(binary, || Self::spawn(binary, settings.clone())).await
    }

    async fn listening(binary: Binary, mut spawn: impl FnMut() -> Self) -> Self {
        for _ in 0..ATTEMPTS {
            let mut service = spawn();
            if service.listens().await {
                return service;
            }
        }
        panic!("{}: its ports were taken {ATTEMPTS} times", binary.name());
    }

    /// Starts `binary` without waiting for it.
    pub fn spawn(binary: Binary, settings: Settings) -> Self {
        Self::spawn_as(binary, settings, |command, dir| {
            Process::spawn(binary.name(), command, dir)
        })
    }

    fn spawn_as(
        binary: Binary,
        settings: Settings,
        start: impl FnOnce(Command, &Path) -> Process,
    ) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let policy = PolicyDir::usual();
        let settings = settings
            .or_set(HTTP, free_address)
            .or_set(ADMIN, free_address)
            .or_set(GRPC, free_address)
            .or_set("NATS_URL", || format!("nats://{}", free_address()))
            .or_set("IMPORTGUARD_SPOOL", || {
                dir.path().join("spool").display().to_string()
            })
            .or_set("IMPORTGUARD_POLICY", || policy.path().display().to_string())
            .or_set("RUST_LOG", || "info".to_owned());
        let settings = match binary {
            // It has its own decider.
            Binary::AllInOne => settings,
            _ => settings.or_set("IMPORTGUARD_DECIDER_URL", || {
                format!("http://{}", free_address())
            }),
        };
        Self {
            process: start(command(binary, &settings, dir.path()), dir.path()),
            binary,
            settings,
            policy,
            dir,
        }
    }

    /// Starts it again with the same settings, after it has exited.
    pub async fn restart(&mut self) {
        assert!(self.process.ended().is_some(), "it is still running");
        let dir = self.dir.path();
        let command = command(self.binary, &self.settings, dir);
        self.process = Process::spawn(self.binary.name(), command, dir);
        assert!(self.listens().await, "its port was taken");
    }

    /// Waits until `/readyz` returns 200.
    pub async fn ready(&mut self) {
        let what = format!("{} is ready", self.binary.name());
        eventually(&what, SOON, async || self.admin("/readyz").await).await;
    }

    /// The URL for OpenIM's callbacks.
    pub fn url(&self) -> String {
        format!("http://{}", self.address(HTTP))
    }

    /// The URL of the decider's gRPC service.
    pub fn grpc_url(&self) -> String {
        format!("http://{}", self.address(GRPC))
    }

    /// The same with TLS.
    pub fn grpc_tls_url(&self) -> String {
        format!("https://{}", self.address(GRPC))
    }

    /// `host:port` of the public listener.
    pub fn http_address(&self) -> &str {
        self.address(HTTP)
    }

    /// `host:port` of the admin listener.
    pub fn admin_address(&self) -> &str {
        self.address(ADMIN)
    }

    /// The spool's directory.
    pub fn spool_dir(&self) -> PathBuf {
        self.address("IMPORTGUARD_SPOOL").into()
    }

    /// The usual policy, unless the settings named another.
    pub fn policy(&self) -> &PolicyDir {
        &self.policy
    }

    /// The response of the admin listener. Fails unless it is a success.
    pub async fn admin(&self, path: &str) -> anyhow::Result<String> {
        admin::page(self.admin_address(), path).await
    }

    /// The value of a series, including its labels, at `/metrics`.
    pub async fn metric(&self, series: &str) -> anyhow::Result<f64> {
        admin::metric(self.admin_address(), series).await
    }

    /// Waits until the value of a series is right, and returns it.
    pub async fn wait_for_metric(&self, series: &str, right: impl Fn(f64) -> bool) -> f64 {
        admin::wait_for_metric(self.admin_address(), series, right).await
    }

    /// The recorder's part of `/readyz`.
    pub async fn recorder(&self) -> anyhow::Result<Value> {
        let readiness: Value = serde_json::from_str(&self.admin("/readyz").await?)?;
        let recorder = readiness.get("recorder").context("no recorder")?;
        Ok(recorder.clone())
    }

    /// Waits until the recorder reports `state`, and returns its status.
    pub async fn wait_for_recorder(&self, state: &str) -> Value {
        eventually(&format!("the recorder is {state}"), SOON, async || {
            let recorder = self.recorder().await?;
            ensure!(recorder["state"] == state, "{recorder}");
            Ok(recorder)
        })
        .await
    }

    /// Waits until the recorder streams and its spool is empty: the events of all callbacks that were answered are in NATS.
    pub async fn settles(&self) {
        // What is parked is tried again once a minute.
        const AFTER_PARKING: Duration = Duration::from_secs(180);
        eventually("all events are in NATS", AFTER_PARKING, async || {
            let recorder = self.recorder().await?;
            let settled = recorder["spooledEvents"] == 0 && recorder["state"] == "streaming";
            ensure!(settled, "{recorder}");
            Ok(())
        })
        .await;
    }

    /// The number of events that took `path`, by the recorder's metrics.
    pub async fn events_by(&self, path: &str) -> anyhow::Result<f64> {
        let name = format!("importguard_recorder_events_total{{path=\"{path}\"}}");
        self.metric(&name).await
    }

    /// Waits until it is ready. Returns false if a port was taken.
    async fn listens(&mut self) -> bool {
        let what = format!("{} is ready", self.binary.name());
        eventually(&what, SOON, async || {
            if let Some(status) = self.process.ended() {
                let taken = self.process.output().contains("in use");
                assert!(taken, "{} ended with {status}", self.binary.name());
                return Ok(false);
            }
            self.admin("/readyz").await.map(|_| true)
        })
        .await
    }

    fn address(&self, name: &str) -> &str {
        self.settings.get(name).expect("every process has them")
    }
}

impl Deref for Service {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Service {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn command(binary: Binary, settings: &Settings, dir: &Path) -> Command {
    let mut command = Command::new(binary.path());
    command.current_dir(dir);
    settings.apply(&mut command);
    command
}

/// `command`, run in the same process by a shell after the command `limits`.
fn within(limits: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        shell.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}
