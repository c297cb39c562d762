use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;

use super::{Nats, Place, Role, Sink, System, SystemName, readyz, wait_until_ready};
use crate::{binaries::workspace, cli::Traces, process::Process};

/// How importguard is started.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What its files' names begin with.
    pub(crate) files: String,
    pub(crate) traces: Traces,
    pub(crate) deciders: usize,
    pub(crate) policy: PathBuf,
}

impl Options {
    /// One decider with the shipped policy.
    pub(crate) fn shipped(files: impl Into<String>, traces: Traces) -> Self {
        Self {
            files: files.into(),
            traces,
            deciders: 1,
            policy: shipped_policy(),
        }
    }
}

pub(super) async fn importguard(
    place: &mut Place,
    options: &Options,
    sink: Option<&Sink>,
) -> anyhow::Result<System> {
    let files = &options.files;
    let nats = Nats::start(place, files).await?;
    let decider_options = DeciderOptions {
        policy: options.policy.clone(),
        export: exporter(options.traces, sink),
    };
    let mut parts = vec![];
    let mut urls = vec![];
    for number in 1..=options.deciders {
        let name = format!("{files}-decider-{number}");
        let (decider, grpc) = start_decider(place, &name, &decider_options).await?;
        parts.push((Role::Decider, decider));
        urls.push(format!("http://{grpc}"));
    }
    let name = format!("{files}-gateway");
    let export = &decider_options.export;
    let (gateway, address, admin) =
        start_gateway(place, &name, &urls.join(","), &nats.url(), export).await?;
    let nats_url = nats.url();
    parts.extend([(Role::Gateway, gateway), (Role::Nats, nats.process)]);
    Ok(System {
        name: SystemName::Importguard(options.traces),
        address,
        admin: Some(admin),
        nats: Some(nats_url),
        parts,
        sink: sink.map(Sink::id),
    })
}

/// The policy that ships.
pub(crate) fn shipped_policy() -> PathBuf {
    workspace().join("policy/policy.yaml")
}

/// Where traces go, as environment variables.
fn exporter(traces: Traces, sink: Option<&Sink>) -> Vec<(&'static str, String)> {
    let endpoint = sink.map(|sink| ("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url()));
    let sampler = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
        ("OTEL_TRACES_SAMPLER_ARG", "0.1".to_owned()),
    ];
    match traces {
        Traces::Off => Vec::new(),
        Traces::Sampled => endpoint.into_iter().chain(sampler).collect(),
        Traces::On => endpoint.into_iter().collect(),
    }
}

/// How a decider is started.
#[derive(Clone, Debug)]
pub(crate) struct DeciderOptions {
    pub(crate) policy: PathBuf,
    pub(crate) export: Vec<(&'static str, String)>,
}

/// Starts a decider, waits until it is ready, and returns it with the address of its gRPC listener.
pub(crate) async fn start_decider(
    place: &mut Place,
    name: &str,
    options: &DeciderOptions,
) -> anyhow::Result<(Process, SocketAddr)> {
    let (grpc, admin) = (place.ports.free()?, place.ports.free()?);
    let mut command = Command::new(&place.binaries.decider);
    command
        .env("IMPORTGUARD_DECIDER_LISTEN", grpc.to_string())
        .env("IMPORTGUARD_ADMIN_LISTEN", admin.to_string())
        .env("IMPORTGUARD_POLICY", &options.policy)
        .envs(options.export.iter().cloned());
    let mut decider = Process::spawn(name, &mut command, &place.dir)?;
    wait_until_ready(&mut decider, async || readyz(admin).await.map(drop)).await?;
    Ok((decider, grpc))
}

/// Starts a gateway, waits until events go to NATS, and returns it with the addresses for callbacks and of its admin
/// listener. Everything else is as it ships, the log included.
pub(crate) async fn start_gateway(
    place: &mut Place,
    name: &str,
    deciders: &str,
    nats: &str,
    export: &[(&'static str, String)],
) -> anyhow::Result<(Process, SocketAddr, SocketAddr)> {
    let (http, admin) = (place.ports.free()?, place.ports.free()?);
    let mut command = Command::new(&place.binaries.gateway);
    command
        .env("IMPORTGUARD_HTTP_LISTEN", http.to_string())
        .env("IMPORTGUARD_ADMIN_LISTEN", admin.to_string())
        .env("IMPORTGUARD_DECIDER_URL", deciders)
        .env("IMPORTGUARD_SPOOL", spool(&place.dir, name))
        .env("NATS_URL", nats)
        .envs(export.iter().cloned());
    let mut gateway = Process::spawn(name, &mut command, &place.dir)?;
    wait_until_ready(&mut gateway, async || {
        let status: serde_json::Value = serde_json::from_str(&readyz(admin).await?)?;
        let state = status.pointer("/recorder/state");
        ensure!(state.is_some_and(|state| state == "streaming"), "{status}");
        Ok(())
    })
    .await?;
    Ok((gateway, http, admin))
}

fn spool(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}-spool"))
}
