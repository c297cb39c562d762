//! The decider's process.

use std::{env, net::SocketAddr, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};
use importguard_decider::{Listeners, Settings};
use importguard_runtime::{environment, listen, signals};
use importguard_telemetry::{
    ENVIRONMENT_HELP, Healthcheck, RuntimeSettings, TelemetrySettings, conclude,
};

// The C library's keeps most of a list's memory for itself after the list is gone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// importguard's decider: evaluates your policy for the gateways, over gRPC
#[derive(Parser)]
#[command(name = "importguard-decider", version, after_help = ENVIRONMENT_HELP, disable_help_subcommand = true)]
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
        default_value = "127.0.0.1:8082",
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
        "importguard-decider",
        cli.settings.grpc.decider_instance.as_deref(),
        &cli.telemetry,
    )?;
    environment::report_retired();
    let shutdown = signals::shutdown()?;
    let listeners = Listeners {
        grpc: listen(
            cli.settings.grpc.decider_listen,
            "IMPORTGUARD_DECIDER_LISTEN",
        )
        .await?,
        admin: listen(cli.admin_listen, "IMPORTGUARD_ADMIN_LISTEN").await?,
    };
    let ended = importguard_decider::run(&cli.settings, listeners, shutdown).await;
    telemetry.shutdown(Duration::from_secs(5)).await;
    ended?;
    Ok(ExitCode::SUCCESS)
}
