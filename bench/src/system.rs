//! What is measured: processes that together answer callbacks at one address.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use async_nats::jetstream;
use importguard_gateway::events::Subject;
use importguard_tests::{NatsServer, Process, free_port, workspace};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

use crate::{
    cli::CommonSettings,
    load::{Connection, Expected, Question, Reading},
    table::{print, progress},
    usage::machine,
};

pub(crate) const FLOOR: &str = "floor";
pub(crate) const LEAN: &str = "lean";

const COMMANDS: &str = "importguard";
const GATEWAY: &str = "importguard-gateway";
const DECIDER: &str = "importguard-decider";

/// How long a start may take. A list of a million IDs is read in a few seconds.
const START: Duration = Duration::from_secs(60);

/// Small beside a start of ten milliseconds.
const POLL: Duration = Duration::from_millis(2);

/// Processes that answer callbacks.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// The gateway's admin listener; the floors have none.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) nats: SocketAddr,
    /// The verdicts that it knows: the floors only allow.
    verdicts: &'static [Expected],
    /// Its processes by their role: gateway, decider, nats, sink.
    pub(crate) parts: Vec<(&'static str, Process)>,
}

impl System {
    /// The IDs of its processes, with this one as the client.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let parts = self.parts.iter();
        let parts = parts.map(|(role, process)| (*role, process.id()));
        parts.chain([("client", std::process::id())])
    }

    /// Asks for each verdict that it knows, and again while it gives a fallback, as connections are opened lazily.
    async fn verified(mut self) -> anyhow::Result<Self> {
        let deadline = Instant::now() + START;
        for expected in self.verdicts {
            let question = Question::new(self.address, 2, *expected);
            let mut connection = Connection::open(self.address, &question).await?;
            while connection.ask(&question, 0).await? != Reading::Right {
                self.still_runs();
                let late = Instant::now() > deadline;
                ensure!(!late, "{} gives fallbacks only", self.name);
            }
        }
        Ok(self)
    }

    /// Ends its processes as an operator would: an instrumented build writes its profile then.
    pub(crate) async fn stop(mut self) {
        for (_, process) in &self.parts {
            process.sigterm();
        }
        for (_, process) in &mut self.parts {
            process.exit(START).await;
        }
    }

    /// Stops if a process has exited. What the processes printed is shown then.
    pub(crate) fn still_runs(&mut self) {
        for (role, process) in &mut self.parts {
            let ended = process.ended();
            assert!(ended.is_none(), "{} {role} ended: {ended:?}", self.name);
        }
    }
}

/// How importguard is started.
pub(crate) struct Variant<'a> {
    pub(crate) name: &'a str,
    /// How much of its traces it exports, in per cent.
    pub(crate) traces: u8,
    pub(crate) policy: &'a Path,
    pub(crate) deciders: usize,
    /// Whether the policy has live lists: deciders connect to NATS then.
    pub(crate) live: bool,
    /// More variables of the gateway.
    pub(crate) gateway: Variables,
    /// The nats-server, and more arguments for it.
    pub(crate) nats: (&'a Path, &'a str),
}

impl<'a> Variant<'a> {
    /// As it ships but for the traces, with one decider.
    pub(crate) fn shipped(name: &'a str, policy: &'a Path) -> Self {
        Self {
            name,
            traces: 0,
            policy,
            deciders: 1,
            live: false,
            gateway: Variables::new(),
            nats: (NatsServer::program(), ""),
        }
    }
}

/// Environment variables of importguard's processes.
pub(crate) type Variables = Vec<(&'static str, String)>;

/// Where processes come from and where they live.
#[derive(Debug)]
pub(crate) struct Place {
    bin_dir: PathBuf,
    /// Whether cargo builds what is in `bin_dir`.
    builds: bool,
    /// For logs, stores and spools; removed at the end.
    pub(crate) dir: TempDir,
}

impl Place {
    /// Prints what machine it is, as figures without it say little.
    pub(crate) fn new(settings: &CommonSettings) -> anyhow::Result<Self> {
        print(machine()?)?;
        // On a disk, as NATS's store is measured, too.
        let target = workspace().join("target");
        let dir = TempDir::with_prefix_in("bench-", target);
        let dir = dir.context("no directory can be made in target/")?;
        let bin_dir = match &settings.bin_dir {
            Some(dir) => std::path::absolute(dir)?,
            None => build(&[GATEWAY, DECIDER])?,
        };
        for file in [GATEWAY, DECIDER].map(|name| bin_dir.join(name)) {
            ensure!(file.is_file(), "there is no {}", file.display());
        }
        let builds = settings.bin_dir.is_none();
        Ok(Self {
            bin_dir,
            builds,
            dir,
        })
    }

    /// The program with the commands.
    pub(crate) fn commands(&self) -> anyhow::Result<PathBuf> {
        if self.builds {
            build(&[COMMANDS])?;
        }
        let file = self.bin_dir.join(COMMANDS);
        ensure!(file.is_file(), "there is no {}", file.display());
        Ok(file)
    }

    /// Starts a process with no other environment than `variables`; arguments are separated by spaces.
    fn spawn(&self, name: &str, program: &Path, args: &str, variables: &Variables) -> Process {
        let mut command = Command::new(program);
        command.args(args.split_whitespace());
        command.current_dir(self.dir.path()).env_clear();
        command.envs(variables.iter().cloned());
        Process::spawn(name, command, self.dir.path())
    }

    /// Starts a nats-server with JetStream, with the store on disk that one of that name had.
    pub(crate) async fn nats(&self, name: &str, at: SocketAddr) -> Process {
        self.nats_server(name, at, NatsServer::program(), "").await
    }

    /// The same with this `program` and more arguments.
    async fn nats_server(&self, name: &str, at: SocketAddr, program: &Path, more: &str) -> Process {
        let (port, store) = (at.port(), name.replace(' ', "-"));
        let args =
            format!("--jetstream --addr=127.0.0.1 --port={port} --store_dir={store}-store {more}");
        let name = format!("{name}-nats");
        let mut process = self.spawn(&name, program, &args, &Vec::new());
        // It opens its port only when JetStream has read its store.
        let connect = async || Ok(async_nats::connect(at.to_string()).await.map(drop)?);
        until_ready(&mut process, connect).await;
        process
    }

    /// Starts a process of this program.
    pub(crate) fn own(&self, name: &str, args: &str) -> anyhow::Result<Process> {
        let args = format!("part {args}");
        Ok(self.spawn(name, &env::current_exe()?, &args, &Vec::new()))
    }

    /// Starts a process of this program, and waits until it listens.
    async fn part(&self, name: &str, at: SocketAddr, args: &str) -> anyhow::Result<Process> {
        let mut process = self.own(name, &format!("{args} --listen={at}"))?;
        let connect = async || Ok(TcpStream::connect(at).await.map(drop)?);
        until_ready(&mut process, connect).await;
        Ok(process)
    }

    /// Starts the plain or the lean floor, whose events have `extra` bytes beside the request's body.
    pub(crate) async fn floor(&self, name: &str, extra: usize) -> anyhow::Result<System> {
        let lean = if name == LEAN { "--lean" } else { "" };
        let [nats_at, decider_at, address] = free();
        let nats = self.nats(name, nats_at).await;
        let (decider, gateway) = (format!("{name}-decider"), format!("{name}-gateway"));
        let args = format!("floor-decider {lean}");
        let decider = self.part(&decider, decider_at, &args).await?;
        let hops = format!("--decider=http://{decider_at} --nats={nats_at}");
        let args = format!("floor-gateway {hops} --event-extra={extra} {lean}");
        let gateway = self.part(&gateway, address, &args).await?;
        let parts = ["gateway", "decider", "nats"];
        let system = System {
            name: name.to_owned(),
            address,
            admin: None,
            nats: nats_at,
            verdicts: &[Expected::Allow],
            parts: parts.into_iter().zip([gateway, decider, nats]).collect(),
        };
        system.verified().await
    }

    /// Starts importguard.
    pub(crate) async fn importguard(&self, variant: Variant<'_>) -> anyhow::Result<System> {
        let Variant {
            name,
            traces,
            policy,
            deciders,
            live,
            mut gateway,
            nats: (program, more),
        } = variant;
        let [nats_at, sink_at] = free();
        let nats = self.nats_server(name, nats_at, program, more).await;
        let mut parts = vec![("nats", nats)];
        let mut export = Variables::new();
        if traces > 0 {
            let sink = self.part(&format!("{name}-sink"), sink_at, "sink").await?;
            parts.push(("sink", sink));
            let share = f64::from(traces) / 100.0;
            export.extend([
                ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{sink_at}")),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio".to_owned()),
                ("OTEL_TRACES_SAMPLER_ARG", share.to_string()),
            ]);
        }
        let mut urls = Vec::new();
        for number in 1..=deciders {
            let name = format!("{name}-{number}");
            let mut variables = export.clone();
            if live {
                variables.push(("NATS_URL", format!("nats://{nats_at}")));
            }
            let (decider, [grpc, _]) = self.decider(&name, policy, variables).await;
            parts.push(("decider", decider));
            urls.push(format!("http://{grpc}"));
        }
        let urls = urls.join(",");
        gateway.extend(export);
        let (gateway, [address, admin]) = self.gateway(name, urls, nats_at, gateway).await;
        parts.push(("gateway", gateway));
        let system = System {
            name: name.to_owned(),
            address,
            admin: Some(admin),
            nats: nats_at,
            verdicts: &[Expected::Allow, Expected::Modify, Expected::Refuse],
            parts,
        };
        system.verified().await
    }

    /// Starts a decider, waits until it is ready, and returns it with the addresses for calls and of its admin listener.
    pub(crate) async fn decider(
        &self,
        name: &str,
        policy: &Path,
        mut variables: Variables,
    ) -> (Process, [SocketAddr; 2]) {
        let [grpc, admin] = free();
        variables.extend([
            ("IMPORTGUARD_DECIDER_LISTEN", grpc.to_string()),
            ("IMPORTGUARD_ADMIN_LISTEN", admin.to_string()),
            ("IMPORTGUARD_POLICY", policy.display().to_string()),
        ]);
        let (name, program) = (format!("{name}-decider"), self.bin_dir.join(DECIDER));
        let mut decider = self.spawn(&name, &program, "", &variables);
        let ready = async || get(admin, "/readyz").await.map(drop);
        until_ready(&mut decider, ready).await;
        (decider, [grpc, admin])
    }

    /// Starts a gateway, waits until events go to NATS, and returns it with the addresses for callbacks and of its admin listener.
    /// Everything else is as it ships, the log included.
    pub(crate) async fn gateway(
        &self,
        name: &str,
        deciders: String,
        nats: SocketAddr,
        mut variables: Variables,
    ) -> (Process, [SocketAddr; 2]) {
        let [http, admin] = free();
        variables.extend([
            ("IMPORTGUARD_HTTP_LISTEN", http.to_string()),
            ("IMPORTGUARD_ADMIN_LISTEN", admin.to_string()),
            ("IMPORTGUARD_DECIDER_URL", deciders),
            ("IMPORTGUARD_SPOOL", format!("{name}-spool")),
            ("NATS_URL", format!("nats://{nats}")),
        ]);
        let (name, program) = (format!("{name}-gateway"), self.bin_dir.join(GATEWAY));
        let mut gateway = self.spawn(&name, &program, "", &variables);
        until_ready(&mut gateway, async || {
            let recorder = recorder(admin).await?;
            ensure!(recorder["state"] == "streaming", "{recorder}");
            Ok(())
        })
        .await;
        (gateway, [http, admin])
    }
}

/// The policy that ships.
pub(crate) fn shipped_policy() -> PathBuf {
    workspace().join("policy/policy.yaml")
}

/// Addresses that nobody listens on.
pub(crate) fn free<const COUNT: usize>() -> [SocketAddr; COUNT] {
    [(); COUNT].map(|()| (Ipv4Addr::LOCALHOST, free_port()).into())
}

/// What a gateway's `/readyz` says of its recorder.
pub(crate) async fn recorder(admin: SocketAddr) -> anyhow::Result<Value> {
    readiness(admin, "recorder").await
}

/// What `/readyz` says under this key.
pub(crate) async fn readiness(admin: SocketAddr, key: &str) -> anyhow::Result<Value> {
    let status: Value = serde_json::from_str(&get(admin, "/readyz").await?)?;
    let found = status.get(key).cloned();
    found.with_context(|| format!("/readyz says nothing of {key}"))
}

/// The size of the last message about an allowed import, headers included.
pub(crate) async fn last_event_bytes(nats: SocketAddr) -> anyhow::Result<usize> {
    let jetstream = jetstream::new(async_nats::connect(nats.to_string()).await?);
    let stream = jetstream.get_stream("IMPORTGUARD").await?;
    let message = stream.get_last_raw_message_by_subject(Subject::Allow.into_str());
    let message = message.await.context("no event was recorded")?;
    let mut headers = 0;
    for (name, values) in message.headers.iter() {
        let values: usize = values.iter().map(|value| value.as_str().len()).sum();
        headers += name.to_string().len() + ": \r\n".len() + values;
    }
    Ok("NATS/1.0\r\n\r\n".len() + headers + message.payload.len())
}

async fn get(admin: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let parts = response.split_once("\r\n\r\n");
    let (head, body) = parts.with_context(|| format!("half a response from {path}"))?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{path} says {body}");
    Ok(body.to_owned())
}

/// Waits until `look` returns no error, and stops if `process` exits before. What it printed is shown then.
pub(crate) async fn until_ready(process: &mut Process, look: impl AsyncFn() -> anyhow::Result<()>) {
    let began = Instant::now();
    while let Err(error) = look().await {
        let ended = process.ended();
        assert!(
            ended.is_none() && began.elapsed() < START,
            "{error:#}; {ended:?}"
        );
        sleep(POLL).await;
    }
}

/// Has cargo build programs in the release profile, and returns the directory where they are: that of this program.
fn build(programs: &[&str]) -> anyhow::Result<PathBuf> {
    progress("building importguard in the release profile (minutes, the first time)");
    let mut command = Command::new("cargo");
    command.args(["build", "--release", "--locked", "--bins"]);
    command.args(programs.iter().flat_map(|program| ["-p", program]));
    // Cargo sets these for what it runs; inherited they would have build scripts run again each time.
    let inherited = |name: &str| !name.starts_with("CARGO_PKG_") && name != "CARGO_MANIFEST_DIR";
    let variables = env::vars().filter(|(name, _)| inherited(name));
    command.env_clear().envs(variables).current_dir(workspace());
    ensure!(command.status()?.success(), "importguard does not build");
    Ok(env::current_exe()?.with_file_name(""))
}
