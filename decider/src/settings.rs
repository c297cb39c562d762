use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;
use importguard_runtime::settings::{address, count, duration, duration_or_zero};
use rustls::pki_types::ServerName;

use crate::lists::live::LiveSettings;

/// All settings of a decider.
#[derive(Args, Clone, Debug)]
#[group(skip)] // Its name would collide with the gateway's in one process.
pub struct Settings {
    /// The policy and its files.
    #[command(flatten)]
    pub policy: PolicySettings,
    /// The gRPC listener.
    #[command(flatten)]
    pub grpc: GrpcSettings,
    /// Live lists.
    #[command(flatten)]
    pub live: LiveSettings,
}

/// Which policy is evaluated.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Policy")]
pub struct PolicySettings {
    /// Policy file; the paths of its lists are relative to its directory
    #[arg(
        long,
        env = "IMPORTGUARD_POLICY",
        value_name = "FILE",
        default_value = "policy/policy.yaml"
    )]
    pub policy: PathBuf,

    /// How often the policy and its lists are checked for changes. SIGHUP reloads them immediately, and confirms a policy or list that
    /// was held back because it had lost its rules or many of its IDs
    #[arg(
        long,
        env = "IMPORTGUARD_RELOAD_INTERVAL",
        value_name = "DURATION",
        default_value = "1s",
        value_parser = duration
    )]
    pub reload_interval: Duration,
}

/// The gRPC listener.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Decider's listener")]
pub struct GrpcSettings {
    /// Listen address for gateways (gRPC)
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:50051",
        value_parser = address
    )]
    pub decider_listen: SocketAddr,

    /// Name of this decider in responses and events [default: the host name]
    #[arg(long, env = "IMPORTGUARD_DECIDER_INSTANCE", value_name = "NAME")]
    pub decider_instance: Option<String>,

    /// How long calls are still accepted after SIGTERM, while /readyz and the health service already report not serving; 0s to stop
    /// accepting at once
    // Twice the gateways' health-check interval, so that all of them have left before calls are no longer accepted.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_SHUTDOWN_GRACE",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = duration_or_zero
    )]
    pub decider_shutdown_grace: Duration,

    /// Total time allowed for graceful shutdown, including IMPORTGUARD_DECIDER_SHUTDOWN_GRACE; remaining connections are then
    /// closed
    #[arg(
        id = "decider_shutdown_timeout",
        long = "decider-shutdown-timeout",
        env = "IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = duration
    )]
    pub shutdown_timeout: Duration,

    /// Its limits.
    #[command(flatten)]
    pub bounds: BoundsSettings,

    /// The decider's side of TLS.
    #[command(flatten)]
    pub tls: TlsSettings,
}

/// Limits of the decider. A call beyond one gets a gRPC status that names it, and so a gateway's fallback.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Decider's limits")]
pub struct BoundsSettings {
    /// Maximum number of open connections, at most 1000000. When it is reached, a new connection replaces the one that has been
    /// silent for longest
    // A gateway has one, and two while certificates are replaced.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_MAX_CONNECTIONS",
        value_name = "COUNT",
        default_value_t = 512,
        value_parser = count::<usize>(1..=1_000_000)
    )]
    pub decider_max_connections: usize,

    /// Maximum number of friends in a request; larger requests fail with INVALID_ARGUMENT, and with OUT_OF_RANGE beyond 264 bytes
    /// per friend. At least the gateways' IMPORTGUARD_MAX_FRIENDS, and at most 100000000. A policy that would cost too much for so
    /// many is rejected
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_MAX_FRIENDS",
        value_name = "COUNT",
        default_value_t = crate::policy::DEFAULT_MAX_FRIENDS,
        value_parser = count::<usize>(1..=100_000_000)
    )]
    pub decider_max_friends: usize,

    /// Whether to serve gRPC reflection, which tools such as grpcurl use
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_REFLECTION",
        value_name = "BOOL",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub decider_reflection: bool,

    /// Maximum time for a call, including the arrival of its request; it then fails with CANCELLED. A shorter deadline of the caller
    /// applies as well
    // By then OpenIM itself has given up: its default timeout is 5 seconds.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_REQUEST_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = duration
    )]
    pub decider_request_timeout: Duration,

    /// How long a connection may be silent before it is closed; three pings are sent meanwhile
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_IDLE_TIMEOUT",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = duration
    )]
    pub decider_idle_timeout: Duration,

    /// Maximum age of a connection. The decider then closes it after the calls in flight, so that gateways pick up replaced
    /// certificates and new deciders
    // A twelfth of a day, the shortest lifetime in which meshes commonly issue certificates.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_MAX_CONNECTION_AGE",
        value_name = "DURATION",
        default_value = "2h",
        value_parser = duration
    )]
    pub decider_max_connection_age: Duration,
}

/// The decider's side of TLS.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS for gateways")]
#[group(skip)] // Its name would collide with the gateway's in one process.
pub struct TlsSettings {
    /// PEM file with the server certificate and its intermediates. When set, the decider accepts only TLS. Reloaded when it
    /// changes, as are the key and the client CA certificates
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_TLS_CERT_FILE",
        value_name = "FILE",
        requires = "decider_tls_key_file"
    )]
    pub decider_tls_cert_file: Option<PathBuf>,

    /// PEM file with the private key of the server certificate
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_TLS_KEY_FILE",
        value_name = "FILE",
        requires = "decider_tls_cert_file"
    )]
    pub decider_tls_key_file: Option<PathBuf>,

    /// PEM file with the CA certificates to verify gateways with. When set, gateways must present a certificate (mTLS)
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE",
        value_name = "FILE",
        requires = "decider_tls_cert_file"
    )]
    pub decider_tls_client_ca_file: Option<PathBuf>,

    /// Accepted names in gateways' certificates (DNS names or IP addresses), comma-separated; a certificate must contain one of them
    /// [default: any certificate signed by the CA]
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_TLS_CLIENT_NAMES",
        value_name = "NAME,…",
        value_delimiter = ',',
        value_parser = |name: &str| ServerName::try_from(name.to_owned()),
        requires = "decider_tls_client_ca_file"
    )]
    pub decider_tls_client_names: Vec<ServerName<'static>>,
}
