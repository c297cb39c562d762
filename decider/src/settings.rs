use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

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

    /// How long an orderly end may take before what is still open is cut
    #[arg(
        id = "decider_shutdown_timeout",
        long = "decider-shutdown-timeout",
        env = "IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = humantime::parse_duration
    )]
    pub shutdown_timeout: Duration,
}
