use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{cli::SetUp, table::progress};

/// The programs that are measured, and the server they need.
#[derive(Clone, Debug)]
pub(crate) struct Binaries {
    pub(crate) gateway: PathBuf,
    pub(crate) decider: PathBuf,
    pub(crate) nats_server: PathBuf,
    /// This program, which is the floor's parts too.
    pub(crate) bench: PathBuf,
}

const GATEWAY: &str = "importguard-gateway";
const DECIDER: &str = "importguard-decider";

impl Binaries {
    /// Finds them; has cargo build the pods where the settings name no directory.
    pub(crate) fn find(set_up: &SetUp) -> anyhow::Result<Self> {
        let (gateway, decider) = match &set_up.bin_dir {
            Some(dir) => (existing(dir.join(GATEWAY))?, existing(dir.join(DECIDER))?),
            None => build(&[])?,
        };
        Ok(Self {
            gateway,
            decider,
            nats_server: nats_server(set_up)?,
            bench: env::current_exe().context("this program's own file cannot be found")?,
        })
    }
}

/// The workspace's directory.
pub(crate) fn workspace() -> &'static Path {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir)
}

/// Has cargo build the pods in the release profile, with `variables` in its environment, and returns where it says they are.
pub(crate) fn build(variables: &[(&str, &str)]) -> anyhow::Result<(PathBuf, PathBuf)> {
    progress("building the pods in the release profile (minutes, the first time)");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["build", "--release", "--locked", "--bins"])
        .args(["-p", GATEWAY, "-p", DECIDER])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace())
        .stderr(Stdio::inherit());
    // Cargo tells these to what it runs; passed on they would have build scripts run again each time.
    for (name, _) in env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_") || told.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command.envs(variables.iter().copied());
    let output = command.output().context("cargo cannot be run")?;
    ensure!(output.status.success(), "the pods do not build");
    let found: HashMap<String, PathBuf> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| {
            let name = message.pointer("/target/name")?.as_str()?.to_owned();
            Some((name, message.get("executable")?.as_str()?.into()))
        })
        .collect();
    let path = |name: &str| {
        let path = found.get(name).cloned();
        path.with_context(|| format!("cargo built no {name}"))
    };
    Ok((path(GATEWAY)?, path(DECIDER)?))
}

fn nats_server(set_up: &SetUp) -> anyhow::Result<PathBuf> {
    if let Some(path) = &set_up.nats_server {
        return existing(path.clone());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/bin".into()])
        .map(|dir| dir.join("nats-server"))
        .find(|file| file.is_file())
        .context("no nats-server is found: install it (Debian: apt-get install nats-server) or name it in NATS_SERVER")
}

fn existing(path: PathBuf) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(&path)?;
    ensure!(path.is_file(), "{} is not there", path.display());
    Ok(path)
}
