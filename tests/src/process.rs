use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{SOON, eventually};

/// How much of a process's output a failing test prints.
const SHOWN_BYTES: usize = 20_000;

/// A child process whose output goes to files, killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// The resources of a process.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    /// Memory in RAM, in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub files: usize,
    /// Threads.
    pub threads: usize,
}

impl Process {
    /// Starts `command`; what it prints is appended to `<logs>/<name>.out` and `.err`.
    pub fn spawn(name: &str, mut command: Command, logs: &Path) -> Self {
        let stderr = logs.join(format!("{name}.err"));
        command.stderr(append(&stderr));
        Self::start(name, command, logs, stderr)
    }

    /// Starts `command` with this standard error, which [`Self::stderr`] does not contain.
    pub fn spawn_with_stderr(stderr: Stdio, name: &str, mut command: Command, logs: &Path) -> Self {
        command.stderr(stderr);
        Self::start(name, command, logs, PathBuf::new())
    }

    /// Takes the read end of its standard error, if that is a pipe.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    fn start(name: &str, mut command: Command, logs: &Path, stderr: PathBuf) -> Self {
        let stdout = logs.join(format!("{name}.out"));
        let child = command
            .stdin(Stdio::null())
            .stdout(append(&stdout))
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self {
            name: name.to_owned(),
            child,
            stdout,
            stderr,
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed on stdout.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it printed on stderr.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Its complete output.
    pub fn output(&self) -> String {
        self.stdout() + &self.stderr()
    }

    /// Its current resources.
    pub fn vitals(&self) -> Vitals {
        let dir = format!("/proc/{}", self.id());
        let entries = |name: &str| fs::read_dir(format!("{dir}/{name}")).unwrap().count();
        let status = fs::read_to_string(format!("{dir}/status")).unwrap();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))
            .unwrap_or_else(|| panic!("no memory in {status}"));
        Vitals {
            resident_bytes: resident.trim().parse::<u64>().unwrap() * 1024,
            files: entries("fd"),
            threads: entries("task"),
        }
    }

    /// Waits until stderr contains all `parts`, and returns it. Lines may be some milliseconds late: they are written by a separate
    /// thread.
    pub async fn wait_for_log(&self, parts: &[&str]) -> String {
        let what = format!("{} logs it", self.name);
        eventually(&what, SOON, async || {
            let log = self.stderr();
            match parts.iter().find(|part| !log.contains(**part)) {
                None => Ok(log),
                Some(part) => Err(format!("no {part:?} in: {log}")),
            }
        })
        .await
    }

    /// Its exit status, if it has exited.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it exits.
    pub async fn exit(&mut self, within: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, within, async || self.ended().ok_or("it still runs")).await
    }

    /// Sends SIGKILL and reaps it, so that it cannot clean up.
    pub fn kill9(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
    }

    /// Sends SIGTERM and waits until it exits.
    pub async fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        self.exit(within).await
    }

    /// Sends SIGTERM.
    pub fn sigterm(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGHUP, which makes a process reload its files.
    pub fn sighup(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends SIGINT, as Ctrl-C does.
    pub fn sigint(&self) {
        self.signal(Signal::INT);
    }

    /// Sends SIGSTOP, and returns when all of its threads are stopped.
    pub async fn freeze(&self) {
        self.signal(Signal::STOP);
        eventually("all threads stop", SOON, async || self.threads_stopped()).await;
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal)
            .unwrap_or_else(|error| panic!("{} can't be sent {signal:?}: {error}", self.name));
    }

    fn threads_stopped(&self) -> io::Result<()> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.id()))? {
            let stat = fs::read_to_string(thread?.path().join("stat"))?;
            // "pid (name) state …"; the name may hold anything.
            let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
            if state != Some("T") {
                return Err(io::Error::other(format!("a thread is still in {state:?}")));
            }
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            for (stream, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
                let shown =
                    &text[text.floor_char_boundary(text.len().saturating_sub(SHOWN_BYTES))..];
                eprintln!("──── {} ({stream})\n{shown}", self.name);
            }
        }
    }
}

fn append(path: &Path) -> File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{} can't be written: {error}", path.display()))
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
