use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};

/// How much of a process's output an error shows.
const SHOWN_BYTES: usize = 4_000;

/// Environment variables that begin so are not inherited: a measured process knows only what it is told here.
const OURS: [&str; 5] = ["IMPORTGUARD_", "NATS_", "OTEL_", "RUST_LOG", "TOKIO_"];

/// A child process whose output goes to a file, killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command`, with what it prints in `<dir>/<name>.log`.
    pub(crate) fn spawn(name: &str, command: &mut Command, dir: &Path) -> anyhow::Result<Self> {
        let output = dir.join(format!("{name}.log"));
        let log = File::create(&output)
            .with_context(|| format!("{} cannot be written", output.display()))?;
        for (variable, _) in std::env::vars_os() {
            let text = variable.to_string_lossy();
            let told = command.get_envs().any(|(name, _)| name == variable);
            if !told && OURS.iter().any(|ours| text.starts_with(ours)) {
                command.env_remove(&variable);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir(dir)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            output,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error that shows what it printed, if it has ended.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}:\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// The end of what it printed.
    pub(crate) fn tail(&self) -> String {
        let output = fs::read(&self.output).unwrap_or_default();
        let shown = &output[output.len().saturating_sub(SHOWN_BYTES)..];
        String::from_utf8_lossy(shown).into_owned()
    }

    /// Sends SIGKILL and reaps it.
    pub(crate) fn kill9(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Nanoseconds that a process has spent on CPUs, thread by thread.
#[derive(Debug)]
pub(crate) struct CpuTime(HashMap<String, u64>);

impl CpuTime {
    /// From the scheduler's own counts: /proc/<pid>/stat has only hundredths of a second.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut threads = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let thread = thread?;
            // A thread may end meanwhile.
            let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else {
                continue;
            };
            let nanos = text.split(' ').next().and_then(|text| text.parse().ok());
            let id = thread.file_name().to_string_lossy().into_owned();
            threads.insert(id, nanos.unwrap_or_default());
        }
        Ok(Self(threads))
    }

    /// What was spent since `earlier`. A thread that ended between the two is left out; none of those that work here does.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let of = |(id, now): (&String, &u64)| now - earlier.0.get(id).unwrap_or(&0).min(now);
        Duration::from_nanos(self.0.iter().map(of).sum())
    }
}

/// A process's memory, in MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) now: f64,
    /// The most that was resident since [`forget_peak`].
    pub(crate) peak: f64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mebibytes = |field: &str| -> anyhow::Result<f64> {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            let kibibytes: f64 = kibibytes.context("/proc/<pid>/status cannot be read")?;
            Ok(kibibytes / 1024.0)
        };
        Ok(Self {
            now: mebibytes("VmRSS:")?,
            peak: mebibytes("VmHWM:")?,
        })
    }
}

/// Has VmHWM begin anew at what is resident now.
pub(crate) fn forget_peak(pid: u32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5")
}
