//! The gateway's pod.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use clap::Parser;
use importguard_gateway::{Listeners, Settings};
use importguard_telemetry::{ENVIRONMENT_HELP, TelemetrySettings, conclude, listen, signals};

/// Answers OpenIM's import callback: asks a decider, records the decision on NATS, answers
#[derive(Parser)]
#[command(name = "importguard-gateway", version, after_help = ENVIRONMENT_HELP)]
struct Cli {
    #[command(flatten)]
    settings: Settings,

    /// Where /livez, /readyz and /metrics are served
    #[arg(
        long,
        env = "IMPORTGUARD_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081",
        help_heading = "Admin"
    )]
    admin_listen: SocketAddr,

    #[command(flatten)]
    telemetry: TelemetrySettings,
}

#[tokio::main]
async fn main() -> ExitCode {
    conclude(run(Cli::parse()).await)
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let telemetry = importguard_telemetry::init("importguard-gateway", &cli.telemetry)?;
    let shutdown = signals::shutdown()?;
    let http = &cli.settings.http;
    let listeners = Listeners {
        public: listen(http.http_listen, "IMPORTGUARD_HTTP_LISTEN").await?,
        admin: listen(cli.admin_listen, "IMPORTGUARD_ADMIN_LISTEN").await?,
    };
    let ended = importguard_gateway::run(&cli.settings, listeners, shutdown).await;
    telemetry.shutdown(Duration::from_secs(5)).await;
    ended?;
    Ok(ExitCode::SUCCESS)
}
