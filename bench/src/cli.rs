use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum, builder::RangedU64ValueParser};

use crate::{
    attack::{AttackSettings, AttackersSettings},
    floor::FloorGatewaySettings,
};

/// Measures importguard against the floor: the same hops (HTTP, gRPC, an event acknowledged by JetStream) and nothing else
///
/// Everything runs on this machine: nats-server, decider, gateway and the floor's parts as processes of their own, on free
/// ports of 127.0.0.1, with their files in a temporary directory under target/. Every answer is read and compared.
#[derive(Parser)]
#[command(
    name = "importguard-bench",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Close what else runs on the machine first. Without options the run takes about 30 minutes, with --quick about 7.\n\
                  bench/README.md explains the method."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) matrix: MatrixSettings,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Measure how the cost of a decision grows: with deciders, with a list's size, with friends; beside a spool that drains; and
    /// what an overload does
    Scale(ScaleSettings),
    /// Measure what honest callers and the gateway's memory notice of callers who only hold on to connections
    Attack(AttackSettings),
    /// Put a fixed number of questions to a gateway that runs already, for a profiler
    Load(LoadSettings),
    /// The processes that are measured against; the driver starts them
    #[command(subcommand, hide = true)]
    Part(Part),
}

#[derive(Subcommand)]
pub(crate) enum Part {
    /// Answers over HTTP and does nothing else
    Bare {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Allows everything over gRPC
    FloorDecider {
        #[arg(long)]
        listen: SocketAddr,
        /// On one thread
        #[arg(long)]
        lean: bool,
    },
    /// HTTP, gRPC, JetStream's ack, answer
    FloorGateway(FloorGatewaySettings),
    /// Takes spans over OTLP and forgets them
    Sink {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Holds connections until it is ended
    Attackers(AttackersSettings),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ScaleSettings {
    /// Which curves, comma-separated
    #[arg(
        long,
        value_name = "CURVE,…",
        value_delimiter = ',',
        default_value = "deciders,list,friends,drain,overload"
    )]
    pub(crate) only: Vec<Curve>,

    /// How long each measurement lasts, after half a second of warming up
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub(crate) seconds: f64,

    /// How many times everything is measured, one after the other; medians count
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = RangedU64ValueParser::<usize>::new().range(1..=101))]
    pub(crate) rounds: usize,

    /// How many HTTP/2 connections an overload comes over, with 100 questions at once on each: in all more than the gateway has room
    /// for
    // 8,000 have room by IMPORTGUARD_MAX_BYTES_IN_FLIGHT.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = RangedU64ValueParser::<usize>::new().range(1..=600))]
    pub(crate) overload_connections: usize,

    /// How long each overload lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub(crate) overload_seconds: f64,

    #[command(flatten)]
    pub(crate) set_up: SetUp,
}

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Curve {
    /// One, two and three deciders
    Deciders,
    /// A list of 10 to 1,000,000 ids
    List,
    /// 1 to 10,000 friends
    Friends,
    /// 100,000 events in the spool while callbacks come, in a closed loop and at two paces
    Drain,
    /// Twice as many callbacks as can be answered, and the recovery
    Overload,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct LoadSettings {
    /// The gateway, with the shipped policy behind it
    #[arg(value_name = "HOST:PORT")]
    pub(crate) address: SocketAddr,

    /// How many friends an import has
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    pub(crate) friends: usize,

    /// How many connections ask at once
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    pub(crate) connections: usize,

    /// How many questions are put in all
    #[arg(long, value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) requests: u64,
}

/// What is run, and where it comes from.
#[derive(Args, Clone, Debug)]
pub(crate) struct SetUp {
    /// Where importguard-gateway and importguard-decider lie, to compare two builds [default: cargo builds them in release]
    #[arg(long, value_name = "DIR")]
    pub(crate) bin_dir: Option<PathBuf>,

    /// The nats-server [default: looked for on the PATH and where Debian installs it]
    #[arg(long, env = "NATS_SERVER", value_name = "FILE")]
    pub(crate) nats_server: Option<PathBuf>,

    /// Where temporary files go: a disk, as NATS's store is measured too [default: target/]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct MatrixSettings {
    /// How many friends an import has, comma-separated
    #[arg(
        long,
        value_name = "COUNT,…",
        value_delimiter = ',',
        default_value = "2,50,1000,10000"
    )]
    pub(crate) friends: Vec<usize>,

    /// How many connections ask at once, comma-separated
    #[arg(
        long,
        value_name = "COUNT,…",
        value_delimiter = ',',
        default_value = "1,32,256"
    )]
    pub(crate) concurrency: Vec<usize>,

    /// Whether importguard exports traces, comma-separated; the ratios are taken at 10 %
    #[arg(
        long,
        value_name = "TRACES,…",
        value_delimiter = ',',
        default_value = "off,10,on"
    )]
    pub(crate) traces: Vec<Traces>,

    /// What to measure, comma-separated
    #[arg(
        long,
        value_name = "WHAT,…",
        value_delimiter = ',',
        default_value = "axum,floor,lean,importguard"
    )]
    pub(crate) only: Vec<What>,

    /// How long each measurement lasts, after half a second of warming up
    #[arg(long, value_name = "SECONDS", default_value_t = 1.5)]
    pub(crate) seconds: f64,

    /// How many times everything is measured, one after the other; medians count
    #[arg(long, value_name = "COUNT", default_value_t = 9, value_parser = RangedU64ValueParser::<usize>::new().range(1..=101))]
    pub(crate) rounds: usize,

    /// Only what the targets need: 2 and 1,000 friends, traces at 10 %, fewer connections, no bare handler
    #[arg(long, conflicts_with_all = ["friends", "concurrency", "traces"])]
    pub(crate) quick: bool,

    /// Leave out the paced load at half of the floor's capacity
    #[arg(long)]
    pub(crate) no_paced: bool,

    /// Leave out starts and memory at rest
    #[arg(long)]
    pub(crate) no_rest: bool,

    /// Also write the figures to FILE, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) set_up: SetUp,
}

impl MatrixSettings {
    pub(crate) fn length(&self) -> Duration {
        length(self.seconds)
    }
}

impl ScaleSettings {
    pub(crate) fn length(&self) -> Duration {
        length(self.seconds)
    }

    pub(crate) fn overload_length(&self) -> Duration {
        length(self.overload_seconds)
    }
}

fn length(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.clamp(0.1, 600.0))
}

/// Whether importguard exports traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Traces {
    /// No exporter
    Off,
    /// One trace in ten
    #[value(name = "10")]
    Sampled,
    /// Every trace
    On,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// A bare handler, without hops
    Axum,
    /// The least that the hops cost
    Floor,
    /// The same on one thread for each process, as importguard runs
    Lean,
    /// What this is about
    Importguard,
}
