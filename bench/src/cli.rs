use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::floor::FloorGatewaySettings;

/// Compare importguard with two floors: the same hops (HTTP, gRPC, an event acknowledged by JetStream) and nothing else
///
/// nats-server, deciders, gateways and floors run as processes of their own on free ports of 127.0.0.1, with their files in a
/// temporary directory under target/. Every response is compared with the expected one.
#[derive(Parser)]
#[command(
    name = "importguard-bench",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Close other programs first. Without options the run takes about 5 minutes. bench/README.md has the method."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) compare: CompareSettings,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Measure how the cost of a decision grows with deciders and with a list's size
    Scale(CommonSettings),
    /// Measure callbacks before, during and after a backlog in the spool drains into NATS
    Drain(CommonSettings),
    /// Measure what it costs to wait for the disk: in the spool, and in nats-server
    Durability(CommonSettings),
    /// Measure live lists: entries in memory, a cold start, changes on three deciders, and callbacks beside many changes
    Lists(ListsSettings),
    /// Send twice as many callbacks as importguard can answer, and measure the recovery
    Overload(OverloadSettings),
    /// The processes that the bench starts itself
    #[command(subcommand, hide = true)]
    Part(Part),
}

#[derive(Subcommand)]
pub(crate) enum Part {
    /// Allows everything over gRPC
    FloorDecider {
        #[arg(long)]
        listen: SocketAddr,
        /// On one thread
        #[arg(long)]
        lean: bool,
    },
    /// HTTP, gRPC, JetStream's ack, response
    FloorGateway(FloorGatewaySettings),
    /// Changes live lists all the time
    Changes(ChangesSettings),
    /// Receives spans over OTLP and drops them
    Sink {
        #[arg(long)]
        listen: SocketAddr,
    },
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CompareSettings {
    /// Friends in an import, comma-separated
    #[arg(long, value_delimiter = ',', default_values_t = [2, 1000])]
    pub(crate) friends: Vec<usize>,

    /// Connections of the closed loop, comma-separated
    #[arg(long, value_delimiter = ',', default_values_t = [32])]
    pub(crate) concurrency: Vec<usize>,

    /// Traces that importguard exports, in per cent, comma-separated; the targets apply to 10 %
    #[arg(long, value_delimiter = ',', default_values_t = [10])]
    pub(crate) traces: Vec<u8>,

    /// Systems to measure, comma-separated
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "floor,lean,importguard",
        value_parser = ["floor", "lean", "importguard"]
    )]
    pub(crate) only: Vec<String>,

    /// Three rounds instead of nine
    #[arg(long, conflicts_with = "rounds")]
    pub(crate) quick: bool,

    #[command(flatten)]
    pub(crate) common: CommonSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CommonSettings {
    /// How often everything is measured, in turns; medians count [default: 9, or 3 for the commands]
    #[arg(long)]
    pub(crate) rounds: Option<usize>,

    /// Length of each measurement in seconds, after half a second of warming up
    #[arg(long, default_value = "1", value_parser = seconds)]
    pub(crate) seconds: Duration,

    /// Directory with importguard-gateway and importguard-decider [default: cargo builds them in release]
    #[arg(long)]
    pub(crate) bin_dir: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct OverloadSettings {
    /// Length of the overload in seconds
    #[arg(long, default_value = "60", value_parser = seconds)]
    pub(crate) overload_seconds: Duration,

    #[command(flatten)]
    pub(crate) common: CommonSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ListsSettings {
    /// Entries in the live list
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) entries: u64,

    /// How many users are added by `importguard list add`, one after the other
    #[arg(long, default_value_t = 1_000)]
    pub(crate) additions: u64,

    /// Changes a second beside the callbacks
    #[arg(long, default_value_t = 1_000)]
    pub(crate) rate: u32,

    #[command(flatten)]
    pub(crate) common: CommonSettings,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ChangesSettings {
    #[arg(long)]
    pub(crate) nats: SocketAddr,
    /// Changes a second
    #[arg(long)]
    pub(crate) rate: u32,
    /// The changed entries are among so many
    #[arg(long)]
    pub(crate) entries: u64,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("must be a number between 0.1 and 600".to_owned()),
    }
}
