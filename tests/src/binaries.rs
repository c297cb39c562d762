use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use serde_json::Value;

use crate::workspace;

/// A binary of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `importguard-gateway`
    Gateway,
    /// `importguard-decider`
    Decider,
    /// `importguard`: everything in one process
    AllInOne,
    /// `refusals-by-owner`: the example of a consumer
    RustExample,
}

impl Binary {
    /// The name of its cargo target.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "importguard-gateway",
            Self::Decider => "importguard-decider",
            Self::AllInOne => "importguard",
            Self::RustExample => "refusals-by-owner",
        }
    }

    /// The path of the binary, built from the current sources.
    pub fn path(self) -> &'static Path {
        // A failure is kept too: another attempt would only fail again.
        static BUILT: OnceLock<Option<HashMap<String, PathBuf>>> = OnceLock::new();
        BUILT
            .get_or_init(build)
            .as_ref()
            .expect("the binaries build")
            .get(self.name())
            .unwrap_or_else(|| panic!("the workspace has no binary {}", self.name()))
    }
}

/// Builds all binaries in the profile of the tests, and returns the paths that cargo reports, or `None` if the build fails. Files
/// found in `target/` instead might be outdated.
fn build() -> Option<HashMap<String, PathBuf>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--workspace", "--bins", "--locked"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace())
        .stderr(Stdio::inherit());
    // Cargo tells these to the tests; passed on they would have build scripts run again, and half of the workspace built
    // again, each time that cargo is called from a test after it was called by somebody.
    for (name, _) in std::env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.output().expect("cargo can be run");
    if !output.status.success() {
        return None;
    }
    let binaries = String::from_utf8(output.stdout)
        .expect("cargo speaks UTF-8")
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            let name = message.pointer("/target/name")?.as_str()?.to_owned();
            let executable = message.get("executable")?.as_str()?.into();
            Some((name, executable))
        })
        .collect();
    Some(binaries)
}
