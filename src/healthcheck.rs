//! `importguard healthcheck`: checks the running `importguard serve`.

use std::{net::SocketAddr, process::ExitCode};

use clap::Args;

/// Check the running `importguard serve`: exit 0 if ready; otherwise exit 1 and print the reason
#[derive(Args)]
pub(crate) struct Healthcheck {
    #[command(flatten)]
    healthcheck: importguard_runtime::Healthcheck,

    /// Its listen address for /livez, /readyz and /metrics
    #[arg(
        long,
        env = "IMPORTGUARD_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081",
        value_parser = importguard_runtime::settings::address
    )]
    admin_listen: SocketAddr,
}

impl Healthcheck {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        self.healthcheck.run(self.admin_listen)
    }
}
