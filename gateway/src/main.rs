//! The `importguard-gateway` binary.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use importguard_gateway::Settings;
use importguard_runtime::{Healthcheck, RuntimeSettings, bind};
use importguard_telemetry::ENVIRONMENT_HELP;

// A callback makes about two hundred allocations, which take a sixth of its instructions with the C library's allocator.
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

    #[command(flatten)]
    runtime: RuntimeSettings,
}

#[derive(Subcommand)]
enum Command {
    Healthcheck(Healthcheck),
}

fn main() -> ExitCode {
    importguard_runtime::main(|cli: Cli| match cli.command {
        Some(Command::Healthcheck(healthcheck)) => healthcheck.run(cli.runtime.admin_listen),
        None => cli.runtime.run(
            "importguard-gateway",
            cli.settings.http.instance.as_deref(),
            async |runtime| {
                let address = cli.settings.http.http_listen;
                let address = bind(address, "IMPORTGUARD_HTTP_LISTEN")?;
                Ok(importguard_gateway::run(&cli.settings, address, runtime).await?)
            },
        ),
    })
}
