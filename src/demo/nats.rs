//! The demonstration's own nats-server.

use std::{
    env,
    fs::{self, File},
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;
use tokio::time::sleep;

/// Timeout of a start. Loading a few hundred events takes some milliseconds; the rest is for a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(20);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The value of `--port` with which nats-server chooses a free port.
const CHOOSE_PORT: &str = "-1";

/// Directories in which packages install servers, and which may be missing from an ordinary user's PATH.
const SERVER_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// The remedy if there is no nats-server.
const INSTALL: &str = "\
importguard demo starts a nats-server. Install one:
  Debian, Ubuntu   apt-get install nats-server
  macOS            brew install nats-server
  Go               go install github.com/nats-io/nats-server/v2@latest
  others           https://github.com/nats-io/nats-server/releases
or name its binary with --nats-server. To try importguard without NATS, run importguard without a command.";

/// A nats-server with JetStream on 127.0.0.1; killed and reaped when dropped.
pub(super) struct NatsServer {
    program: PathBuf,
    directory: PathBuf,
    address: SocketAddr,
    /// `None` after it was killed.
    running: Option<Running>,
}

impl NatsServer {
    /// Starts a server that keeps its files in `directory`, on a port that it chooses: one that was found free before could be taken
    /// meanwhile. Waits until it accepts connections.
    ///
    /// # Errors
    /// If it cannot be started, ends, or takes too long. The error contains the last lines of its log.
    pub(super) async fn start(program: PathBuf, directory: PathBuf) -> anyhow::Result<Self> {
        let (running, address) = launch(&program, &directory, CHOOSE_PORT).await?;
        Ok(Self {
            program,
            directory,
            address,
            running: Some(running),
        })
    }

    /// Starts it again on the same port, after [`kill`](Self::kill).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        let port = self.address.port().to_string();
        let (running, _) = launch(&self.program, &self.directory, &port).await?;
        self.running = Some(running);
        Ok(())
    }

    /// Its listen address.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills it, as a crash would.
    pub(super) fn kill(&mut self) {
        self.running = None;
    }
}

/// A process that is killed and reaped when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `program`, and returns the address on which it listens.
async fn launch(
    program: &Path,
    directory: &Path,
    port: &str,
) -> anyhow::Result<(Running, SocketAddr)> {
    let log = directory.join("nats-server.log");
    let output = File::options().create(true).append(true).open(&log)?;
    // A directory of its own: a server that was killed has left its file.
    let ports = tempfile::tempdir_in(directory)?;
    let child = Command::new(program)
        .args(["--addr", &Ipv4Addr::LOCALHOST.to_string()])
        .args(["--port", port])
        .arg("--ports_file_dir")
        .arg(ports.path())
        .arg("--jetstream")
        .arg("--store_dir")
        .arg(directory.join("nats"))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Keeps Ctrl-C in the terminal from ending nats-server, which the demonstration needs to the end.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let mut running = Running(child);
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(status) = running.0.try_wait()? {
            bail!("nats-server ended ({status}):\n{}", last_words(&log));
        }
        if let Some(address) = listen_address(ports.path())? {
            return Ok((running, address));
        }
        if Instant::now() >= deadline {
            bail!("nats-server does not listen:\n{}", last_words(&log));
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// The address in the file that nats-server writes once it listens, such as `{"nats":["nats://127.0.0.1:4222"]}`; `None` if it is not there
/// or not complete yet.
fn listen_address(directory: &Path) -> io::Result<Option<SocketAddr>> {
    #[derive(Deserialize)]
    struct Ports {
        nats: Vec<String>,
    }
    let Some(file) = fs::read_dir(directory)?.next() else {
        return Ok(None);
    };
    let ports = serde_json::from_slice::<Ports>(&fs::read(file?.path())?);
    Ok(ports.ok().and_then(|ports| {
        let url = ports.nats.first()?;
        url.strip_prefix("nats://")?.parse().ok()
    }))
}

/// The nats-server to start: `named`, or the first one on the PATH or in `SERVER_DIRECTORIES`.
///
/// # Errors
/// If there is none; the error says how to get one.
pub(super) fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SERVER_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join("nats-server"))
        .find(|file| file.is_file())
        .with_context(|| format!("there is no nats-server on the PATH. {INSTALL}"))
}

/// Returns the version that `program` reports, such as `nats-server: v2.11.6`.
pub(super) fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output();
    let output = output.map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("there is no {}. {INSTALL}", program.display()),
        _ => anyhow!("cannot run {}: {error}", program.display()),
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn last_words(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
