//! `importguard pseudonym`: prints the pseudonym that events carry for a user.

use std::{io::Write, process::ExitCode};

use anyhow::bail;
use clap::Args;
use importguard_core::UserId;
use importguard_gateway::events::{PseudonymSettings, Pseudonyms};

use crate::output;

/// Print the pseudonym that events carry for a user ID (requires the gateways' key)
#[derive(Args)]
pub(crate) struct Pseudonym {
    /// User ID in OpenIM; for several, one pseudonym per line is printed in the same order
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
                "no pseudonym key: set IMPORTGUARD_PSEUDONYM_KEY_FILE or IMPORTGUARD_PSEUDONYM_KEY to the gateways' key"
            );
        }
        for id in &self.ids {
            writeln!(output::stdout(), "{}", pseudonyms.of(id))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
