use std::path::PathBuf;

use clap::Args;
use importguard_nats::consumer_name;
use importguard_runtime::settings::size;

/// The minimum memory for windows: enough for some thousand owners.
const LEAST_MEMORY: u64 = 1 << 20;

/// What is detected, and how.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Detector")]
#[group(skip)]
pub struct Settings {
    /// File of rules: who is put on which live list, and when. Read when the detector starts
    #[arg(
        long = "rules",
        env = "IMPORTGUARD_DETECT_RULES",
        value_name = "FILE",
        default_value = "policy/detector.yaml"
    )]
    pub rules: PathBuf,

    /// Name of the detector's durable consumer in NATS, which keeps its position. Each detector needs its own
    #[arg(
        long = "consumer",
        env = "IMPORTGUARD_DETECT_CONSUMER",
        value_name = "NAME",
        default_value = "detector",
        value_parser = consumer_name
    )]
    pub consumer: String,

    /// Memory for what owners did lately, at least 1MiB and at most 1TiB. When it is full, those who were quiet longest are forgotten
    #[arg(
        long = "memory",
        env = "IMPORTGUARD_DETECT_MEMORY",
        value_name = "SIZE",
        default_value = "64MiB",
        value_parser = size::<usize>(LEAST_MEMORY..=1 << 40)
    )]
    pub memory: usize,
}
