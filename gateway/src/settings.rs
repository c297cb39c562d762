use std::{net::SocketAddr, time::Duration};

use clap::Args;

use crate::{
    admission::AdmissionSettings,
    callback::{BasePath, Limits, OnMissingOperationId},
    decide::{DecideSettings, FallbackSettings},
    lock::LockSettings,
    record::RecordSettings,
    serve::{ServeSettings, TlsSettings},
    upstream::UpstreamSettings,
};

/// Everything a gateway can be told, one group per concern.
#[derive(Args, Clone, Debug)]
#[group(skip)] // Its name would collide with the other pod's in one process.
pub struct Settings {
    /// OpenIM's callbacks.
    #[command(flatten)]
    pub http: HttpSettings,
    /// The connections that they arrive on.
    #[command(flatten)]
    pub serve: ServeSettings,
    /// The public listener's certificate.
    #[command(flatten)]
    pub tls: TlsSettings,
    /// Who is let in.
    #[command(flatten)]
    pub lock: LockSettings,
    /// How much is done at once.
    #[command(flatten)]
    pub admission: AdmissionSettings,
    /// The question to the decider.
    #[command(flatten)]
    pub decide: DecideSettings,
    /// The answers where nobody can decide.
    #[command(flatten)]
    pub fallback: FallbackSettings,
    /// Where OpenIM's other callbacks go.
    #[command(flatten)]
    pub upstream: UpstreamSettings,
    /// Events, NATS and the spool.
    #[command(flatten)]
    pub record: RecordSettings,
}

/// Where and how OpenIM is listened to.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Callbacks")]
pub struct HttpSettings {
    /// Where OpenIM's callbacks arrive
    #[arg(
        long,
        env = "IMPORTGUARD_HTTP_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    pub http_listen: SocketAddr,

    /// The path below which callbacks arrive; it may hold a secret
    #[arg(
        long,
        env = "IMPORTGUARD_BASE_PATH",
        value_name = "PATH",
        default_value = "/",
        hide_env_values = true
    )]
    pub base_path: BasePath,

    /// What happens to a callback without a usable operationID
    #[arg(
        long,
        env = "IMPORTGUARD_OPERATION_ID",
        value_name = "MODE",
        default_value = "require"
    )]
    pub operation_id: OnMissingOperationId,

    /// How long a callback may take, from its arrival to its answer; OpenIM waits 5 seconds by default
    #[arg(
        long,
        env = "IMPORTGUARD_REQUEST_BUDGET",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = humantime::parse_duration
    )]
    pub request_budget: Duration,

    /// How large a callback's body may be, in bytes
    // 10,000 ids of 64 bytes, OpenIM's column width, with quotes and commas are 670 kB; three times that leaves room for
    // white space and escapes.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_BODY_BYTES",
        value_name = "BYTES",
        default_value_t = 2_097_152
    )]
    pub max_body_bytes: usize,

    /// How many friends a callback may hold
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_FRIENDS",
        value_name = "COUNT",
        default_value_t = 10_000
    )]
    pub max_friends: usize,

    /// How long a user's id may be, in bytes; OpenIM's own database takes 64 characters
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_ID_BYTES",
        value_name = "BYTES",
        default_value_t = 256
    )]
    pub max_id_bytes: usize,

    /// How long a callback's body may take to arrive
    // Half of the budget: the other half is for deciding, recording and answering.
    #[arg(
        long,
        env = "IMPORTGUARD_BODY_READ_TIMEOUT",
        value_name = "DURATION",
        default_value = "1s",
        value_parser = humantime::parse_duration
    )]
    pub body_read_timeout: Duration,

    /// How long an orderly end may take in all before what is still open is cut; a part of it is IMPORTGUARD_SHUTDOWN_GRACE
    #[arg(
        long,
        env = "IMPORTGUARD_SHUTDOWN_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub shutdown_timeout: Duration,

    /// This gateway's name in events [default: the host's name]
    #[arg(long, env = "IMPORTGUARD_INSTANCE", value_name = "NAME")]
    pub instance: Option<String>,
}

impl HttpSettings {
    /// How large a request may be.
    pub fn limits(&self) -> Limits {
        Limits {
            body_bytes: self.max_body_bytes,
            friends: self.max_friends,
            id_bytes: self.max_id_bytes,
        }
    }
}
