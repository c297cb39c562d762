use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, builder::RangedU64ValueParser};
use rustls::pki_types::ServerName;

/// Everything a decider can be told.
#[derive(Args, Clone, Debug)]
#[group(skip)] // Its name would collide with the other pod's in one process.
pub struct Settings {
    /// The policy and its files.
    #[command(flatten)]
    pub policy: PolicySettings,
    /// The question's listener.
    #[command(flatten)]
    pub grpc: GrpcSettings,
}

/// Which policy is evaluated.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Policy")]
pub struct PolicySettings {
    /// The policy's file; the paths of its lists are relative to its directory
    #[arg(
        long,
        env = "IMPORTGUARD_POLICY",
        value_name = "FILE",
        default_value = "policy/policy.yaml"
    )]
    pub policy: PathBuf,

    /// How often the policy and its lists are looked at for changes; SIGHUP has them read at once
    #[arg(
        long,
        env = "IMPORTGUARD_RELOAD_INTERVAL",
        value_name = "DURATION",
        default_value = "1s",
        value_parser = humantime::parse_duration
    )]
    pub reload_interval: Duration,
}

/// Where and how gateways are listened to.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Decider")]
pub struct GrpcSettings {
    /// Where gateways ask, over gRPC
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:50051"
    )]
    pub decider_listen: SocketAddr,

    /// This decider's name in answers and events [default: the host's name]
    #[arg(long, env = "IMPORTGUARD_DECIDER_INSTANCE", value_name = "NAME")]
    pub decider_instance: Option<String>,

    /// How long calls are still taken after SIGTERM, while /readyz and the health service already say no
    // Twice the time in which gateways ask for health, so that all of them have left before calls are no longer taken.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_SHUTDOWN_GRACE",
        value_name = "DURATION",
        default_value = "2s",
        value_parser = humantime::parse_duration
    )]
    pub decider_shutdown_grace: Duration,

    /// How long an orderly end may take in all before what is still open is cut; a part of it is
    /// IMPORTGUARD_DECIDER_SHUTDOWN_GRACE
    #[arg(
        id = "decider_shutdown_timeout",
        long = "decider-shutdown-timeout",
        env = "IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub shutdown_timeout: Duration,

    /// How much of it there may be.
    #[command(flatten)]
    pub bounds: BoundsSettings,

    /// The decider's side of TLS.
    #[command(flatten)]
    pub tls: TlsSettings,
}

/// How much the decider puts up with. A call beyond a bound gets a gRPC status that names it, and so a gateway's fallback.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Decider's bounds")]
pub struct BoundsSettings {
    /// How many connections may be open at once; for one more, the one is closed on which nothing has arrived for longest
    // A gateway has one, and two while certificates are exchanged.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_MAX_CONNECTIONS",
        value_name = "COUNT",
        default_value_t = 512,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub decider_max_connections: usize,

    /// How many calls a connection may have open at once; a gateway's next ones wait, for as long as its time-out lets them
    // Four times as many callbacks as a gateway works on at once by default.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_MAX_STREAMS",
        value_name = "COUNT",
        default_value_t = 512,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub decider_max_streams: u32,

    /// How large a question may be, in bytes (OUT_OF_RANGE)
    // Twice the gateway's default for a callback's body: the same ids with gRPC's framing are smaller than their JSON.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_MAX_MESSAGE_BYTES",
        value_name = "BYTES",
        default_value_t = 4_194_304,
        value_parser = RangedU64ValueParser::<usize>::new().range(1_024..=1_073_741_824)
    )]
    pub decider_max_message_bytes: usize,

    /// How many friends a question may hold (INVALID_ARGUMENT); at least as many as IMPORTGUARD_MAX_FRIENDS of the gateways.
    /// A policy whose rules cost too much for so many is refused
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_MAX_FRIENDS",
        value_name = "COUNT",
        default_value_t = crate::policy::DEFAULT_MAX_FRIENDS
    )]
    pub decider_max_friends: usize,

    /// Whether clients may ask which services and messages there are (gRPC reflection), as grpcurl does
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_REFLECTION",
        value_name = "BOOL",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub decider_reflection: bool,

    /// How large a call's headers may be together, in bytes
    // A gateway's are below 1.5 KiB: an operationID of at most 256 bytes, and 512 of a trace's state.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_MAX_HEADER_BYTES",
        value_name = "BYTES",
        default_value_t = 16_384,
        value_parser = clap::value_parser!(u32).range(1_024..=1_048_576)
    )]
    pub decider_max_header_bytes: u32,

    /// How long a call may take, its question's arrival included (CANCELLED); a shorter deadline of the caller's holds too
    // By then OpenIM itself has given up: its default time-out is 5 seconds.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_REQUEST_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = humantime::parse_duration
    )]
    pub decider_request_timeout: Duration,

    /// How long a connection may be silent before it is closed; it is pinged three times meanwhile
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_IDLE_TIMEOUT",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = humantime::parse_duration
    )]
    pub decider_idle_timeout: Duration,

    /// How old a connection may become before the decider asks for a new one, so that replaced certificates and new deciders are
    /// noticed; calls in flight are finished
    // A twelfth of a day, the shortest lifetime in which meshes commonly issue certificates.
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_MAX_CONNECTION_AGE",
        value_name = "DURATION",
        default_value = "2h",
        value_parser = humantime::parse_duration
    )]
    pub decider_max_connection_age: Duration,
}

/// What the decider shows gateways and believes of them.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS on the decider's listener")]
#[group(skip)] // Its name would collide with the other pod's in one process.
pub struct TlsSettings {
    /// A PEM file with the certificate and those that lead to its root; with it the decider speaks TLS only. This and the next
    /// two are read again when they change, as a mounted Secret does
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_TLS_CERT_FILE",
        value_name = "FILE",
        requires = "decider_tls_key_file"
    )]
    pub decider_tls_cert_file: Option<PathBuf>,

    /// A PEM file with the certificate's private key
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_TLS_KEY_FILE",
        value_name = "FILE",
        requires = "decider_tls_cert_file"
    )]
    pub decider_tls_key_file: Option<PathBuf>,

    /// A PEM file with the authorities that vouch for gateways; with it a gateway must show a certificate
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_TLS_CLIENT_CA_FILE",
        value_name = "FILE",
        requires = "decider_tls_cert_file"
    )]
    pub decider_tls_client_ca_file: Option<PathBuf>,

    /// Names of which a gateway's certificate must hold one, as DNS name or IP address; commas between several [default: any
    /// certificate that the authorities vouch for]
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
