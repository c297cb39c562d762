use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use importguard_decider::tabletest;

use super::{LargestImport, input_file};
use crate::output::{print, usage_error};

#[derive(Args)]
pub(crate) struct Test {
    /// Directory to search for *.test.yaml files, recursively, or one such file [default: the directory of IMPORTGUARD_POLICY, or
    /// policy]
    #[arg(value_name = "DIR", value_parser = input_file())]
    path: Option<PathBuf>,

    /// Also write the results as JUnit XML, for CI systems
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    #[command(flatten)]
    largest: LargestImport,
}

impl Test {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let path = self.path.clone().unwrap_or_else(default_directory);
        let report = match tabletest::run(&path, self.largest.max_friends) {
            Ok(report) => report,
            Err(error) => return Ok(usage_error(error)),
        };
        if let Some(file) = &self.junit {
            fs::write(file, tabletest::junit(&report))
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        print(&report)?;
        Ok(match report.passed() {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }
}

/// Where the tests of the policy are that the other commands read by default.
fn default_directory() -> PathBuf {
    let policy = env::var_os("IMPORTGUARD_POLICY").map(PathBuf::from);
    let directory = policy.as_deref().and_then(Path::parent);
    match directory {
        Some(directory) if directory == Path::new("") => PathBuf::from("."),
        Some(directory) => directory.to_owned(),
        None => PathBuf::from("policy"),
    }
}
