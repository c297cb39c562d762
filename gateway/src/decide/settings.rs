use std::time::Duration;

use clap::Args;

/// How the gateway asks a decider.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Decider")]
pub struct DecideSettings {
    /// Where the decider listens
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:50051"
    )]
    pub decider_url: String,

    /// How long the gateway waits for a decider's verdict before it falls back
    #[arg(
        long,
        env = "IMPORTGUARD_DECIDER_TIMEOUT",
        value_name = "DURATION",
        default_value = "500ms",
        value_parser = humantime::parse_duration
    )]
    pub decider_timeout: Duration,
}
