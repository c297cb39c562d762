use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use importguard_decider::tabletest;

use super::{LargestImport, input_file};
use crate::output::{print, usage_error};

#[derive(Args)]
pub(crate) struct Test {
    /// Directory to search for *.test.yaml files, recursively, or one such file
    #[arg(value_name = "DIR", default_value = "policy", value_parser = input_file())]
    path: PathBuf,

    /// Also write the results as JUnit XML, for CI systems
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,

    #[command(flatten)]
    largest: LargestImport,
}

impl Test {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let report = match tabletest::run(&self.path, self.largest.max_friends) {
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
