//! What is measured: processes that together answer callbacks at one address.

mod floor;
mod importguard;
mod nats;
mod ready;
mod sink;

use std::{fmt, net::SocketAddr, path::PathBuf, process::Command};

use anyhow::Context;
use serde::Serialize;
use tempfile::TempDir;

pub(crate) use self::{
    importguard::{DeciderOptions, Options, shipped_policy, start_decider, start_gateway},
    nats::{Nats, last_event_bytes},
    ready::{counter, readyz, wait_until_ready},
    sink::Sink,
};
use crate::{
    binaries::{Binaries, workspace},
    cli::{SetUp, Traces},
    load::Expected,
    ports::Ports,
    process::Process,
};

/// Where processes come from and where they live.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) binaries: Binaries,
    pub(crate) ports: Ports,
    /// For logs, stores and spools.
    pub(crate) dir: PathBuf,
}

/// One of the systems that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SystemName {
    Axum,
    Floor,
    /// The floor on one thread for each process.
    Lean,
    Importguard(Traces),
}

impl fmt::Display for SystemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Axum => "axum",
            Self::Floor => "floor",
            Self::Lean => "lean",
            Self::Importguard(Traces::Off) => "importguard, no traces",
            Self::Importguard(Traces::Sampled) => "importguard, traces 10 %",
            Self::Importguard(Traces::On) => "importguard, all traces",
        })
    }
}

impl Serialize for SystemName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a process does in a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Gateway,
    Decider,
    Nats,
    Sink,
    Client,
}

/// Processes that answer callbacks.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) name: SystemName,
    pub(crate) address: SocketAddr,
    /// importguard's gateway's.
    pub(crate) admin: Option<SocketAddr>,
    /// Where its events go.
    pub(crate) nats: Option<String>,
    parts: Vec<(Role, Process)>,
    /// The process that takes its traces, which it may share with others.
    sink: Option<u32>,
}

impl System {
    /// Its processes by what they do, this one as the client.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (Role, u32)> {
        let parts = self
            .parts
            .iter()
            .map(|(role, process)| (*role, process.id()));
        let sink = self.sink.map(|id| (Role::Sink, id));
        parts
            .chain(sink)
            .chain([(Role::Client, std::process::id())])
    }

    /// The id of the first of its processes that does this.
    pub(crate) fn process(&self, role: Role) -> anyhow::Result<u32> {
        let found = self.processes().find(|(of, _)| *of == role);
        let (_, id) = found.with_context(|| format!("{} has no {role:?}", self.name))?;
        Ok(id)
    }

    /// An error with a log's end, if a process has ended.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        self.parts
            .iter_mut()
            .try_for_each(|(_, process)| process.still_runs())
    }

    /// Kills its nats-server, and returns where that was.
    pub(crate) fn kill_nats(&mut self) -> anyhow::Result<SocketAddr> {
        let nats = self.parts.iter_mut().find(|(role, _)| *role == Role::Nats);
        let (_, process) = nats.context("it has no NATS")?;
        process.kill9();
        let url = self.nats.as_deref().unwrap_or_default();
        Ok(url.trim_start_matches("nats://").parse()?)
    }

    /// Has `nats` take the place of the one that was killed.
    pub(crate) fn replace_nats(&mut self, nats: Nats) {
        self.parts.retain(|(role, _)| *role != Role::Nats);
        self.parts.push((Role::Nats, nats.process));
    }

    /// What its logs say last, for an error.
    pub(crate) fn tails(&self) -> String {
        let tail = |(role, process): &(Role, Process)| format!("──── {role:?}\n{}", process.tail());
        self.parts.iter().map(tail).collect()
    }

    /// Verdicts that it must be able to give: the floor only allows.
    pub(crate) fn verdicts(&self) -> &'static [Expected] {
        match self.name {
            SystemName::Axum | SystemName::Floor | SystemName::Lean => &[Expected::Allow],
            SystemName::Importguard(_) => &[Expected::Allow, Expected::Modify, Expected::Refuse],
        }
    }
}

impl Place {
    /// One with a temporary directory, which lasts as long as what is returned beside it.
    pub(crate) fn new(set_up: &SetUp) -> anyhow::Result<(Self, TempDir)> {
        let binaries = Binaries::find(set_up)?;
        let parent = match &set_up.dir {
            Some(dir) => std::path::absolute(dir)?,
            None => workspace().join("target"),
        };
        let dir = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&parent)
            .with_context(|| format!("no directory can be made in {}", parent.display()))?;
        let place = Self {
            binaries,
            ports: Ports::default(),
            dir: dir.path().to_owned(),
        };
        Ok((place, dir))
    }

    /// Starts a bare handler.
    pub(crate) async fn axum(&mut self) -> anyhow::Result<System> {
        floor::axum(self).await
    }

    /// Starts the plain or the lean floor, whose events have `event_extra` bytes beside the request's body.
    pub(crate) async fn floor(&mut self, event_extra: usize, lean: bool) -> anyhow::Result<System> {
        floor::floor(self, event_extra, lean).await
    }

    /// Starts importguard.
    pub(crate) async fn importguard(
        &mut self,
        options: &Options,
        sink: Option<&Sink>,
    ) -> anyhow::Result<System> {
        importguard::importguard(self, options, sink).await
    }

    /// A process of this program.
    pub(crate) fn part(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.binaries.bench);
        command.arg("part").args(arguments);
        Process::spawn(name, &mut command, &self.dir)
    }
}
