//! `importguard pseudonym`: what stands for a user in events.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::bail;
use clap::Args;
use importguard_core::UserId;
use importguard_gateway::events::{PseudonymSettings, Pseudonyms};

/// Print what stands in events for a user's id, given the gateways' key
#[derive(Args)]
pub(crate) struct Pseudonym {
    /// The user's id in OpenIM; several are answered in their order, one a line
    #[arg(required = true, value_name = "ID", value_parser = |id: &str| UserId::parse(id))]
    ids: Vec<UserId>,

    #[command(flatten)]
    settings: PseudonymSettings,
}

impl Pseudonym {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let pseudonyms = self.settings.pseudonyms()?;
        if matches!(pseudonyms, Pseudonyms::Off) {
            bail!(
                "without a key there are no pseudonyms: set IMPORTGUARD_PSEUDONYM_KEY_FILE or IMPORTGUARD_PSEUDONYM_KEY as the gateways have it"
            );
        }
        for id in &self.ids {
            writeln!(io::stdout(), "{}", pseudonyms.of(id))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
