use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    process::{Command, Output, Stdio},
};

use tokio::time::timeout;

use crate::{Binary, MountedSecret, NatsServer, OtlpReceiver, PolicyDir, SOON, Service};

/// Where a process has its admin listener.
pub(crate) const ADMIN: &str = "IMPORTGUARD_ADMIN_LISTEN";

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

    /// Longer timeouts for callbacks and deciders unless they are set already, for tests that are not about them, on a machine that is
    /// busy with other tests.
    #[must_use]
    pub fn with_long_timeouts(self) -> Self {
        self.or_set("IMPORTGUARD_DECIDER_TIMEOUT", || "10s".to_owned())
            .or_set("IMPORTGUARD_BODY_READ_TIMEOUT", || "15s".to_owned())
            .or_set("IMPORTGUARD_REQUEST_BUDGET", || "30s".to_owned())
    }

    /// Time for NATS to acknowledge each event, for tests in which none may go by way of the spool.
    #[must_use]
    pub fn with_long_ack_timeout(self) -> Self {
        self.set("IMPORTGUARD_ACK_TIMEOUT", "5s")
            .set("IMPORTGUARD_REQUEST_BUDGET", "20s")
    }

    /// Makes the gateway call `decider`.
    #[must_use]
    pub fn decider(self, decider: &Service) -> Self {
        self.set("IMPORTGUARD_DECIDER_URL", decider.grpc_url())
    }

    /// Publishes events to `nats`.
    #[must_use]
    pub fn nats(self, nats: &NatsServer) -> Self {
        self.set("NATS_URL", nats.url())
    }

    /// Decides by `policy`.
    #[must_use]
    pub fn policy(self, policy: &PolicyDir) -> Self {
        self.set("IMPORTGUARD_POLICY", policy.path().display().to_string())
    }

    /// Makes the gateway accept only TLS, with the certificate in `secret`.
    #[must_use]
    pub fn tls(self, secret: &MountedSecret) -> Self {
        self.set("IMPORTGUARD_TLS_CERT_FILE", secret.setting("tls.crt"))
            .set("IMPORTGUARD_TLS_KEY_FILE", secret.setting("tls.key"))
    }

    /// Makes a decider accept only TLS, with the certificate in `secret`, and only clients of its CA.
    #[must_use]
    pub fn requiring_clients(self, secret: &MountedSecret) -> Self {
        self.set(
            "IMPORTGUARD_DECIDER_TLS_CERT_FILE",
            secret.setting("tls.crt"),
        )
        .set(
            "IMPORTGUARD_DECIDER_TLS_KEY_FILE",
            secret.setting("tls.key"),
        )
        .set(
            "IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE",
            secret.setting("ca.crt"),
        )
    }

    /// Makes the gateway call the deciders at `urls` over mutual TLS, with the certificate and the CA in `secret`.
    #[must_use]
    pub fn to_deciders(self, secret: &MountedSecret, urls: impl Into<String>) -> Self {
        self.set("IMPORTGUARD_DECIDER_URL", urls)
            .set("IMPORTGUARD_DECIDER_CA_FILE", secret.setting("ca.crt"))
            .set(
                "IMPORTGUARD_DECIDER_CLIENT_CERT_FILE",
                secret.setting("tls.crt"),
            )
            .set(
                "IMPORTGUARD_DECIDER_CLIENT_KEY_FILE",
                secret.setting("tls.key"),
            )
    }

    /// Exports spans to `receiver` with little delay.
    #[must_use]
    pub fn traces_to(self, receiver: &OtlpReceiver) -> Self {
        self.set("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url())
            .set("OTEL_BSP_SCHEDULE_DELAY", "100")
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// `program` with this environment, and without inherited variables of importguard.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.apply(&mut command);
        command
    }

    /// Runs `importguard` with this environment and these arguments to its end, which may be when it gives up on NATS.
    pub async fn run(&self, arguments: impl IntoIterator<Item: AsRef<OsStr>>) -> Output {
        let mut command = tokio::process::Command::from(self.command(Binary::AllInOne.path()));
        command
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(SOON * 3, command.output()).await;
        output
            .expect("importguard ends")
            .expect("importguard can be started")
    }

    /// Makes this the environment of `command`, without inherited variables of importguard.
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
