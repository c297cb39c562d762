use std::{fs, path::Path, process::Stdio};

use anyhow::ensure;
use tokio::process::{Child, Command};

use crate::{Process, SOON, eventually, skip, tool};

/// strace, attached to a process. It is detached by [`detach`](Self::detach), or when dropped.
#[derive(Debug)]
pub struct Strace(Child);

impl Strace {
    /// Attaches strace with `args` to `process` and all its threads; what it prints goes to `calls`. None where it is missing or may
    /// not attach, which is then printed with `what` is not tested.
    pub async fn attach(
        process: &Process,
        args: &[&str],
        calls: &Path,
        what: &str,
    ) -> Option<Self> {
        let mut strace = Command::new(tool("strace", "STRACE", what)?)
            .args(["-f", "-qq"])
            .args(args)
            .arg("-o")
            .arg(calls)
            .args(["-p", &process.id().to_string()])
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("strace can be started");
        let attached = eventually("strace is attached", SOON, async || {
            let mut attached = true;
            for thread in fs::read_dir(format!("/proc/{}/task", process.id()))? {
                let status = fs::read_to_string(thread?.path().join("status"))?;
                attached &= !status.contains("TracerPid:\t0\n");
            }
            ensure!(attached || strace.try_wait()?.is_some(), "not yet");
            Ok(attached)
        })
        .await;
        if !attached {
            skip(what, "strace may not attach");
        }
        attached.then_some(Self(strace))
    }

    /// Lets the process go on without it.
    pub async fn detach(mut self) {
        self.0.kill().await.expect("strace can be killed");
    }
}
