use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    decide::{DecideSettings, FallbackSettings},
    openim::{BasePath, Limits, OnMissingOperationId},
    recorder::RecordSettings,
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
    pub authentication: AuthenticationSettings,
    /// How much is done at once.
    #[command(flatten)]
    pub limits: LimitSettings,
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

/// How much the public listener puts up with.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct ServeSettings {
    /// How many connections may be open at once; for one more, the one is closed that has been without a request for longest
    // open-im-server opens at most 100 to one URL, so this is room for nine of them.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_CONNECTIONS",
        value_name = "COUNT",
        default_value_t = 900,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub max_connections: usize,

    /// How large a request line and its headers may be together, in bytes
    // OpenIM's own are below 1 KiB; proxies on the way add cookies, certificates and trace headers of a few KiB each.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_HEADER_BYTES",
        value_name = "BYTES",
        default_value_t = 16_384,
        value_parser = clap::value_parser!(u32).range(1_024..=1_048_576)
    )]
    pub max_header_bytes: u32,

    /// How long a connection's first byte may take, a TLS handshake, and a request's headers from their first byte
    // By then OpenIM itself has given up: its default time-out is 5 seconds.
    #[arg(
        long,
        env = "IMPORTGUARD_HEADER_READ_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub header_read_timeout: Duration,

    /// How long a connection may stay open without a request
    // Longer than the 90 seconds after which Go's client closes an idle connection itself: whoever closes first must not be
    // the side that a request may be on its way to.
    #[arg(
        long,
        env = "IMPORTGUARD_IDLE_TIMEOUT",
        value_name = "DURATION",
        default_value = "120s",
        value_parser = humantime::parse_duration
    )]
    pub idle_timeout: Duration,

    /// How long a caller may take to take its response
    // By then OpenIM itself has given up, as above.
    #[arg(
        long,
        env = "IMPORTGUARD_WRITE_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub write_timeout: Duration,

    /// How much may be under way at once, in bytes: bodies that arrive or wait, and responses that are not taken yet. Where there
    /// is no room, the connection that holds up its bytes for longest is closed; twice IMPORTGUARD_MAX_BODY_BYTES at least
    // A hundred callbacks at once with 10,000 ids of 25 bytes each; while one is worked on it takes about four times its bytes.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_BYTES_IN_FLIGHT",
        value_name = "BYTES",
        default_value_t = 33_554_432,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1_048_576..=4_294_967_295)
    )]
    pub max_bytes_in_flight: usize,

    /// How many requests an HTTP/2 connection may have open at once. Four of a new one are worked on, and one more for each response
    /// that was taken
    // The least that RFC 9113 recommends, and as many as open-im-server has connections in HTTP/1.1.
    #[arg(
        long,
        env = "IMPORTGUARD_HTTP2_MAX_STREAMS",
        value_name = "COUNT",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub http2_max_streams: u32,

    /// How long new connections are still taken after SIGTERM, while /readyz already says no
    // What it takes a load balancer or Kubernetes to notice on one node; the answers of that time ask to close their
    // connection.
    #[arg(
        long,
        env = "IMPORTGUARD_SHUTDOWN_GRACE",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = humantime::parse_duration
    )]
    pub shutdown_grace: Duration,
}

/// The public listener's certificate.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "TLS on the public listener")]
pub struct TlsSettings {
    /// A PEM file with the certificate and those that lead to its root; with it the public listener speaks TLS only. Read again
    /// when it changes, as a mounted Secret does
    #[arg(
        long,
        env = "IMPORTGUARD_TLS_CERT_FILE",
        value_name = "FILE",
        requires = "tls_key_file"
    )]
    pub tls_cert_file: Option<PathBuf>,

    /// A PEM file with the certificate's private key
    #[arg(
        long,
        env = "IMPORTGUARD_TLS_KEY_FILE",
        value_name = "FILE",
        requires = "tls_cert_file"
    )]
    pub tls_key_file: Option<PathBuf>,
}

/// Who is let in.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Lock: without any of these, whoever can connect is let in")]
pub struct AuthenticationSettings {
    /// A file with a line user:password for each pair that is let in by HTTP Basic authorization, which is what user:password@ in
    /// OpenIM's url becomes; read again when it changes
    #[arg(long, env = "IMPORTGUARD_BASIC_AUTH_FILE", value_name = "FILE")]
    pub basic_auth_file: Option<PathBuf>,

    /// A file with a line for each bearer token that is let in; read again when it changes
    #[arg(long, env = "IMPORTGUARD_BEARER_TOKEN_FILE", value_name = "FILE")]
    pub bearer_token_file: Option<PathBuf>,
}

/// How much is done at once.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Overload")]
pub struct LimitSettings {
    /// How many callbacks are worked on at once
    // open-im-server has at most 100 connections to one URL and asks one thing at a time on each: one server never waits.
    // Each may hold its body, the request read from it, the question and the event: 4 times IMPORTGUARD_MAX_BODY_BYTES,
    // 1 GiB in all at the very worst and some megabytes on a usual day.
    #[arg(
        long,
        env = "IMPORTGUARD_MAX_IN_FLIGHT",
        value_name = "COUNT",
        default_value_t = 128,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub max_in_flight: usize,

    /// How long a callback that has arrived may wait for that before IMPORTGUARD_ON_OVERLOAD answers it
    // A burst of three thousand, over HTTP/2 at once, is worked off in half of that; a second of the budget is left for those who
    // waited longest.
    #[arg(
        long,
        env = "IMPORTGUARD_QUEUE_TIMEOUT",
        value_name = "DURATION",
        default_value = "750ms",
        value_parser = humantime::parse_duration
    )]
    pub queue_timeout: Duration,

    /// How many callbacks a second are still read and recorded in an overload; the rest are only counted
    // At some 100 µs each, a hundredth of one core: recording must not be what the overload consists of.
    #[arg(
        long,
        env = "IMPORTGUARD_OVERLOAD_EVENTS",
        value_name = "COUNT",
        default_value_t = 100
    )]
    pub overload_events: u32,
}
