use std::{collections::BTreeMap, env, ffi::OsStr, process::Command};

use crate::{NatsServer, OtlpReceiver, PolicyDir, Service};

/// Prefixes of environment variables that are not inherited: a test sets them explicitly.
const OURS: [&str; 4] = ["IMPORTGUARD_", "NATS_", "OTEL_", "RUST_LOG"];

/// The environment of a process.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    variables: BTreeMap<String, String>,
}

impl Settings {
    /// Nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with `name` set.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// The same with `name` set unless it is already.
    #[must_use]
    pub fn or_set(mut self, name: &str, value: impl FnOnce() -> String) -> Self {
        self.variables.entry(name.to_owned()).or_insert_with(value);
        self
    }

    /// Has a gateway wait longer for its deciders than on a machine of its own: for tests about something else than how soon
    /// they answer, on one that is busy with other tests.
    #[must_use]
    pub fn patient(self) -> Self {
        self.set("IMPORTGUARD_DECIDER_TIMEOUT", "2s")
            .set("IMPORTGUARD_REQUEST_BUDGET", "4s")
    }

    /// Has the gateway ask `decider`.
    #[must_use]
    pub fn decider(self, decider: &Service) -> Self {
        self.set("IMPORTGUARD_DECIDER_URL", decider.grpc_url())
    }

    /// Has events go to `nats`.
    #[must_use]
    pub fn nats(self, nats: &NatsServer) -> Self {
        self.set("NATS_URL", nats.url())
    }

    /// Has decisions follow from `policy`.
    #[must_use]
    pub fn policy(self, policy: &PolicyDir) -> Self {
        self.set("IMPORTGUARD_POLICY", policy.path().display().to_string())
    }

    /// Has spans go to `receiver`, soon.
    #[must_use]
    pub fn traces_to(self, receiver: &OtlpReceiver) -> Self {
        self.set("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url())
            .set("OTEL_BSP_SCHEDULE_DELAY", "100")
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// `program` with this environment, and nothing of importguard's from outside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.apply(&mut command);
        command
    }

    /// Makes this the environment of `command`, with nothing of importguard's from outside.
    pub fn apply(&self, command: &mut Command) {
        for (name, _) in env::vars_os() {
            let inherited = name.to_string_lossy();
            if OURS.iter().any(|prefix| inherited.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.envs(&self.variables);
    }
}
