use std::path::PathBuf;

use clap::Args;
use importguard_nats::consumer_name;
use importguard_runtime::settings::size;
use importguard_yaml::diagnostic::{Diagnostic, Diagnostics};

use crate::{engine::least_memory, rules::Rules};

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

impl Settings {
    /// Reads the file of rules.
    ///
    /// # Errors
    /// If the file cannot be read or is invalid, or if the rules need more memory.
    pub fn load_rules(&self) -> Result<Rules, Diagnostics> {
        let rules = Rules::load(&self.rules)?;
        let least = least_memory(&rules);
        if self.memory < least {
            let file = self.rules.display().to_string();
            return Err(too_little_memory(&file, least));
        }
        Ok(rules)
    }
}

fn too_little_memory(file: &str, least: usize) -> Diagnostics {
    let least = least.div_ceil(1 << 20);
    Diagnostics::one(Diagnostic::of_file(
        file.into(),
        format!("the rules need {least}MiB of memory for windows"),
        format!("set IMPORTGUARD_DETECT_MEMORY to at least {least}MiB, or lower the thresholds"),
    ))
}
