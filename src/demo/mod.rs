//! `importguard demo`: gateway, decider and a nats-server on this machine, a minute of imports, and NATS killed in the middle of it.

mod caller;
mod imports;
mod ledger;
mod nats;
mod screen;
mod signals;
mod stage;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use importguard_runtime::{Runtime, environment, settings::count};
use tempfile::TempDir;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::{nats::NatsServer, screen::Screen, signals::Stop, stage::Stage};
use crate::{
    events::Console,
    policy::write_sample,
    serve::{Serve, Started},
};

const CONSOLE: Console = Console::new("demo");

/// Timeout of the gateway's connection to NATS, which takes some milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of the shutdown of gateway and decider, once everything is printed.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

const WHAT: &str = "\
What it does:
  1. starts gateway, decider and a nats-server on free ports of 127.0.0.1, with the sample
     policy, in a temporary directory; settings from the environment do not apply
  2. sends imports as open-im-server would, and prints the decisions as subscribers on NATS
     see them
  3. kills nats-server (SIGKILL) and starts it again: meanwhile, callbacks are still
     answered, and their events wait in the spool
  4. reads the stream back, and compares what was asked, decided and recorded

Ctrl-C goes straight to 4; a second one only cleans up.

Exit codes:
  0  every import was answered and recorded
  1  one was not, or the demonstration could not run, for example without nats-server
  2  on usage errors";

/// Show the whole in half a minute: imports, decisions, a rule in shadow, NATS killed and back, nothing lost
#[derive(Args)]
#[command(after_help = WHAT)]
pub(crate) struct Demo {
    /// How long imports are sent
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = count::<u64>(2..=3600))]
    seconds: u64,

    /// Keep the temporary directory with policy, spool and stream
    #[arg(long)]
    keep: bool,

    /// The nats-server to start [default: the one on the PATH]
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,
}

impl Demo {
    /// Runs until the closing table is printed.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let stop = Stop::on_signals()?;
        let program = nats::find(self.nats_server.as_deref())?;
        let version = nats::version(&program)?;
        let directory = tempfile::Builder::new()
            .prefix("importguard-demo-")
            .disable_cleanup(self.keep)
            .tempdir()?;
        // Dropped first, so that nats-server has ended when its directory is removed.
        let mut nats = tokio::select! {
            started = NatsServer::start(program, directory.path().to_owned()) => started?,
            () = stop.asking.cancelled() => return Ok(stop.exit_code()),
        };
        let mut serve = settings(&directory, &nats)?;
        let shutdown = CancellationToken::new();
        let mut runtime = Runtime::new(shutdown.clone())?;
        let started = serve.start(&mut runtime).await?;
        started.recorder().settled(CONNECT_TIMEOUT).await;

        let screen = Screen::new();
        let introduced = self.introduce(screen, &directory, &version, &started);
        let stage = Stage {
            callbacks: started.address(),
            nats: &serve.gateway.record.nats,
            recorder: started.recorder().clone(),
            duration: Duration::from_secs(self.seconds),
            screen,
            asking: &stop.asking,
        };
        let serving = started.serve(runtime);
        tokio::pin!(serving);
        let playing = async {
            introduced?;
            stage.play(&mut nats).await
        };
        let played = tokio::select! {
            ended = &mut serving => match ended {
                Ok(()) => anyhow::bail!("gateway and decider have stopped"),
                Err(error) => return Err(error),
            },
            () = stop.everything.cancelled() => Ok(stop.exit_code()),
            played = playing => played,
        };
        // Also after an error, such as a closed pipe: a gateway that still runs would create its spool again when the directory is removed.
        shutdown.cancel();
        // A timeout loses nothing: every event was recorded, or reported as lost.
        let _ = timeout(SHUTDOWN_TIMEOUT, serving).await;
        let code = played?;
        if self.keep {
            screen.print(&format!("Kept: {}", directory.path().display()))?;
        }
        Ok(code)
    }

    fn introduce(
        &self,
        screen: Screen,
        directory: &TempDir,
        version: &str,
        started: &Started,
    ) -> anyhow::Result<()> {
        let status = started.recorder().status();
        screen.print(&format!(
            "importguard {} with everything it needs, for {} seconds\n  \
             callbacks  http://{}\n  \
             NATS       {} ({version})\n  \
             policy     the sample policy; its rule big-import is in shadow\n  \
             files      {}",
            env!("CARGO_PKG_VERSION"),
            self.seconds,
            started.address(),
            status.nats,
            directory.path().display(),
        ))?;
        Ok(())
    }
}

/// The settings of `importguard serve` with free ports, the sample policy and this nats-server. Environment variables are ignored: the
/// demonstration must not publish to another stream.
fn settings(directory: &TempDir, nats: &NatsServer) -> anyhow::Result<Serve> {
    let path = directory.path();
    write_sample(&path.join("policy"))?;
    let spool = path.join("spool");
    let policy = path.join("policy/policy.yaml");
    let url = format!("nats://{}", nats.address());
    let serve = environment::parse_arguments([
        "--http-listen=127.0.0.1:0".as_ref(),
        "--decider-listen=127.0.0.1:0".as_ref(),
        "--nats-url".as_ref(),
        url.as_ref(),
        "--spool".as_ref(),
        spool.as_os_str(),
        "--policy".as_ref(),
        policy.as_os_str(),
    ])?;
    Ok(serve)
}
