//! The decider's process.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use importguard_decider::Settings;
use importguard_nats::NatsSettings;
use importguard_runtime::{Healthcheck, RuntimeSettings, bind};
use importguard_telemetry::ENVIRONMENT_HELP;

// The C library's allocator does not return most of the memory of freed lists to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// importguard's decider: evaluates your policy for the gateways, over gRPC
#[derive(Parser)]
#[command(name = "importguard-decider", version, after_help = ENVIRONMENT_HELP, disable_help_subcommand = true)]
#[command(mut_arg("admin_listen", |arg| arg.default_value("127.0.0.1:8082")))]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    nats: NatsSettings,

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
            "importguard-decider",
            cli.settings.grpc.decider_instance.as_deref(),
            async |runtime| {
                let address = cli.settings.grpc.decider_listen;
                let address = bind(address, "IMPORTGUARD_DECIDER_LISTEN")?;
                Ok(importguard_decider::run(&cli.settings, &cli.nats, address, runtime).await?)
            },
        ),
    })
}
