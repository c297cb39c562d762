//! A nats-server whose disk is full.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
};

use importguard_tests::{
    NatsServer, OpenIm, Process, SOON, Service, Settings, eventually, skip, stored, tool,
};
use tempfile::TempDir;

use crate::asserts;

/// A file system of its own, of 8 MiB, which lives as long as this.
struct SmallDisk {
    holder: Process,
    dir: TempDir,
}

impl SmallDisk {
    async fn mount() -> Option<Self> {
        let what = "a full disk of nats-server";
        tool("unshare", "UNSHARE", what)?;
        tool("nsenter", "NSENTER", what)?;
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("store")).unwrap();
        let mut mount = Command::new("unshare");
        mount
            .args(["-Urm", "sh", "-c"])
            .arg("mount -t tmpfs -o size=8m tmpfs store && echo mounted && exec sleep infinity")
            .current_dir(dir.path());
        let mut holder = Process::spawn("mount", mount, dir.path());
        let is_mounted = eventually("the file system is mounted", SOON, async || {
            let ended = holder.ended().is_some();
            match holder.stdout().contains("mounted") {
                mounted if mounted || ended => Ok(mounted),
                _ => Err(holder.output()),
            }
        });
        if !is_mounted.await {
            skip(what, "no file system can be mounted");
            return None;
        }
        Some(Self { holder, dir })
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The directory, as seen from outside.
    fn seen(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.store().strip_prefix("/").unwrap())
    }

    /// A nats-server that stores there, also when it is started again.
    async fn nats_server(&self) -> NatsServer {
        let program = self.dir.path().join("nats-server");
        let script = format!(
            "#!/bin/sh\nexec nsenter --target {} --user --mount --preserve-credentials {:?} \"$@\"\n",
            self.holder.id(),
            NatsServer::current().unwrap_or_else(|| NatsServer::program().to_owned()),
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        NatsServer::on(&program, &self.store(), "max_file_store: 1GB", |command| {
            command
        })
        .await
    }
}

#[tokio::test]
async fn once_there_is_room_and_nats_is_started_again_every_event_is_in_the_stream_once() {
    let Some(disk) = SmallDisk::mount().await else {
        return;
    };
    let mut nats = disk.nats_server().await;
    let settings = Settings::new()
        .with_long_timeouts()
        .nats(&nats)
        .set("IMPORTGUARD_STREAM_MAX_BYTES", "-1");
    let gateway = Service::gateway(settings).await;
    gateway.wait_for_recorder("streaming").await;
    let server = OpenIm::server(gateway.url());
    let mut asked = Vec::new();
    let mut ask = async |name: &str| {
        let id = format!("{name}-{}", asked.len());
        let answer = server.import(&id, "a", &["b"]).await;
        // There is no decider; and 5914 would say that it is not recorded.
        assert_eq!(asserts::code(&answer), 5910, "{id}");
        asked.push(id);
    };
    ask("before").await;
    let filler = disk.seen().join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    while gateway.recorder().await.unwrap()["state"] != "spooling" {
        ask("full").await;
    }
    for _ in 0..5 {
        ask("spooled").await;
    }
    drop(file);
    fs::remove_file(filler).unwrap();
    nats.kill9();
    nats.restart().await;
    gateway.settles().await;
    ask("after").await;
    gateway.settles().await;
    let events = stored(&nats).await;
    let mut stored: Vec<_> = events.iter().map(|event| event.operation_id()).collect();
    stored.sort_unstable();
    asked.sort_unstable();
    assert_eq!(stored, asked);
}
