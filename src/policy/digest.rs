use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use importguard_decider::{load::load, policy::Policy};
use serde_json::{Value, json};

use super::{LargestImport, input_file};
use crate::output::{print, report};

/// Print the digest of a policy with its lists, as deciders report it in importguard_policy_info
///
/// Compare it with the label content_digest of that metric, or with contentDigest in a decider's /readyz, to see whether a decider
/// uses these files.
#[derive(Args)]
pub(crate) struct Digest {
    /// Policy file; the paths of its lists are relative to it
    #[arg(
        value_name = "FILE",
        env = "IMPORTGUARD_POLICY",
        default_value = "policy/policy.yaml",
        value_parser = input_file()
    )]
    file: PathBuf,

    /// Print the digests of the policy file and of each list as well, as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    largest: LargestImport,
}

impl Digest {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        match load(&self.file, self.largest.max_friends) {
            Ok(policy) if self.json => print(format_args!("{:#}", parts(&policy)))?,
            Ok(policy) => print(policy.content_digest())?,
            Err(diagnostics) => {
                // Not on standard output, where scripts expect a digest.
                report(diagnostics);
                return Ok(ExitCode::FAILURE);
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn parts(policy: &Policy) -> Value {
    let lists: Vec<_> = policy
        .lists()
        .map(|list| json!({ "name": list.name, "digest": list.digest, "size": list.size }))
        .collect();
    json!({
        "contentDigest": policy.content_digest(),
        "policy": { "name": policy.name(), "digest": policy.digest() },
        "lists": lists,
    })
}
