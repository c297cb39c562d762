//! The gateway's process.

use std::{env, net::SocketAddr, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use importguard_gateway::{Listeners, Settings};
use importguard_runtime::{environment, listen, signals};
use importguard_telemetry::{
    ENVIRONMENT_HELP, Healthcheck, RuntimeSettings, TelemetrySettings, conclude,
};

// A callback takes some two hundred allocations; the C library's are a sixth of all its instructions.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// importguard's gateway: answers OpenIM's friend-import callbacks with a decider's verdict, and publishes each decision to NATS
#[derive(Parser)]
#[command(name = "importguard-gateway", version, after_help = ENVIRONMENT_HELP, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    settings: Settings,

    /// Listen address for /livez, /readyz and /metrics
    #[arg(
        long,
        env = "IMPORTGUARD_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081",
        help_heading = "Admin",
        global = true
    )]
    admin_listen: SocketAddr,

    #[command(flatten)]
    telemetry: TelemetrySettings,

    #[command(flatten)]
    runtime: RuntimeSettings,
}

#[derive(Subcommand)]
enum Command {
    Healthcheck(Healthcheck),
}

fn main() -> ExitCode {
    let outlives = signals::outlive_hangup();
    let cli: Cli = environment::parse(env::args_os());
    let ended = outlives.and_then(|()| importguard_telemetry::run(cli.runtime, run(cli)));
    conclude(ended.map_err(Into::into).flatten())
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Some(Command::Healthcheck(healthcheck)) = cli.command {
        return Ok(healthcheck.run(cli.admin_listen).await?);
    }
    let telemetry = importguard_telemetry::init(
        "importguard-gateway",
        cli.settings.http.instance.as_deref(),
        &cli.telemetry,
    )?;
    environment::report_retired();
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
