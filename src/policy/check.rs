use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use importguard_decider::{load::load, policy::Policy};

use super::{FINDINGS, print};

#[derive(Args)]
pub(crate) struct Check {
    /// The policies' files; the paths of their lists are relative to them
    #[arg(
        value_name = "FILE",
        env = "IMPORTGUARD_POLICY",
        default_value = "policy/policy.yaml"
    )]
    files: Vec<PathBuf>,
}

impl Check {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut exit = ExitCode::SUCCESS;
        for file in &self.files {
            match load(file).policy {
                Ok(policy) => print(format_args!("{}: {}", file.display(), good(&policy)))?,
                Err(diagnostics) => {
                    print(&diagnostics)?;
                    let mistakes = match diagnostics.count() {
                        1 => "1 mistake".to_owned(),
                        count => format!("{count} mistakes"),
                    };
                    print(format_args!("\n{}: {mistakes}", file.display()))?;
                    exit = ExitCode::from(FINDINGS);
                }
            }
        }
        Ok(exit)
    }
}

fn good(policy: &Policy) -> String {
    let lists: Vec<_> = policy
        .lists()
        .map(|list| format!("{} ({} ids)", list.name, list.size))
        .collect();
    let lists = match lists.as_slice() {
        [] => "no lists".to_owned(),
        lists => format!("lists {}", lists.join(", ")),
    };
    format!(
        "good: policy {}, {lists}, {}",
        policy.name(),
        policy.digest()
    )
}
