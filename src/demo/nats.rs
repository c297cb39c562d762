//! The demonstration's own nats-server.

use std::{
    env,
    fs::File,
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use tokio::time::sleep;

/// Timeout of a start. Loading a few hundred events takes some milliseconds; the rest is for a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(20);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

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

/// A nats-server with JetStream on a free port of 127.0.0.1; killed and reaped when dropped.
pub(super) struct NatsServer {
    program: PathBuf,
    directory: PathBuf,
    address: SocketAddr,
    child: Option<Child>,
}

impl NatsServer {
    /// Creates a server that keeps its files in `directory`, without starting it.
    pub(super) fn new(program: PathBuf, directory: PathBuf) -> io::Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Self {
            program,
            directory,
            address: free.local_addr()?,
            child: None,
        })
    }

    /// Its listen address.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it and waits until it accepts connections.
    ///
    /// # Errors
    /// If it cannot be started, ends, or takes too long. The error contains the last lines of its log.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let log = self.directory.join("nats-server.log");
        let output = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(&self.program)
            .args(["--addr", &self.address.ip().to_string()])
            .args(["--port", &self.address.port().to_string()])
            .arg("--jetstream")
            .arg("--store_dir")
            .arg(self.directory.join("nats"))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Keeps Ctrl-C in the terminal from ending nats-server, which the demonstration needs to the end.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let child = self.child.insert(child);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("nats-server ended ({status}):\n{}", last_words(&log));
            }
            // nats-server opens its port once JetStream has read its store.
            if TcpStream::connect_timeout(&self.address, POLL_INTERVAL).is_ok() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("nats-server does not listen:\n{}", last_words(&log));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Kills it, as a crash would.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
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
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}
