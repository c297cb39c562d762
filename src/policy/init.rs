use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;

use crate::output::{print, usage_error};

#[derive(Args)]
pub(crate) struct Init {
    /// Directory for the files; created if it is missing
    #[arg(value_name = "DIRECTORY", default_value = "policy")]
    directory: PathBuf,
}

/// The sample policy with everything that belongs to it, the same with a live list, and the detector's rules for that list.
const FILES: [(&str, &str); 7] = [
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
    ("live.yaml", include_str!("../../policy/live.yaml")),
    ("detector.yaml", include_str!("../../policy/detector.yaml")),
    (
        "detector.schema.json",
        include_str!("../../policy/detector.schema.json"),
    ),
];

impl Init {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut files = FILES.iter().map(|(name, _)| self.directory.join(name));
        // Checked before any is written, so that no partial policy is left behind.
        if let Some(existing) = files.find(|path| path.exists()) {
            return Ok(usage_error(format_args!(
                "{} exists and is not overwritten; name another directory",
                existing.display()
            )));
        }
        for path in write_sample(&self.directory)? {
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

/// Writes the sample policy, its tests and its list into `directory`, and returns their paths.
///
/// # Errors
/// If a file exists or cannot be written.
pub(crate) fn write_sample(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for (name, content) in FILES {
        let path = directory.join(name);
        create(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path);
    }
    Ok(written)
}

fn create(path: &Path, content: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file.write_all(content.as_bytes());
    if written.is_err() {
        // The beginning of a file, as a full disk leaves it, would be taken for the policy. The first error counts.
        let _ = fs::remove_file(path);
    }
    written
}
