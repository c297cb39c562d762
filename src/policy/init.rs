use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;

use super::{print, usage};

#[derive(Args)]
pub(crate) struct Init {
    /// Directory for the policy, its tests and its list; created if it is missing
    #[arg(value_name = "DIRECTORY", default_value = "policy")]
    directory: PathBuf,
}

/// The sample policy with everything that belongs to it.
const FILES: [(&str, &str); 4] = [
    ("policy.yaml", include_str!("../../policy/policy.yaml")),
    (
        "policy.test.yaml",
        include_str!("../../policy/policy.test.yaml"),
    ),
    (
        "policy.schema.json",
        include_str!("../../policy/policy.schema.json"),
    ),
    (
        "lists/blocked.txt",
        include_str!("../../policy/lists/blocked.txt"),
    ),
];

impl Init {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let files = FILES.map(|(name, content)| (self.directory.join(name), content));
        // Before any is written, so that no half of a policy is left.
        if let Some((existing, _)) = files.iter().find(|(path, _)| path.exists()) {
            return Ok(usage(format_args!(
                "{} exists and is not overwritten; name another directory",
                existing.display()
            )));
        }
        for (path, content) in &files {
            create(path, content).with_context(|| format!("cannot write {}", path.display()))?;
            print(format_args!("wrote {}", path.display()))?;
        }
        let policy = self.directory.join("policy.yaml");
        print(format_args!(
            "\nEdit {0}, then run: importguard policy check {0}; importguard policy test {1}",
            policy.display(),
            self.directory.display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn create(path: &Path, content: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(content.as_bytes())
}
