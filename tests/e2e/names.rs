//! Deciders that are found by name: its addresses change, or take long to be found.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
    process::Command,
    thread,
    time::Duration,
};

use anyhow::ensure;
use importguard_core::Dialect;
use importguard_tests::{OpenIm, Service, Settings, eventually, skip, tool};
use serde_json::Value;
use tempfile::TempDir;

use crate::asserts;

const NAME: &str = "deciders.test";

/// Less than names are resolved at anyway.
const PROMPTLY: Duration = Duration::from_secs(3);

/// What a gateway reads in the place of `/etc/hosts`.
struct Hosts {
    file: PathBuf,
    /// The shell command after which it does.
    mount: String,
    _dir: TempDir,
}

impl Hosts {
    /// None where nothing can be mounted, which is then printed with `what` is not tested.
    fn new(what: &str) -> Option<Self> {
        tool("unshare", "UNSHARE", what)?;
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("hosts");
        fs::write(&file, "").unwrap();
        let mount = format!(
            "exec unshare -Urm sh -c 'mount --bind {} /etc/hosts && exec \"$0\" \"$@\"' \"$0\" \"$@\"",
            file.display()
        );
        let mounted = Command::new("sh").args(["-c", &mount, "true"]).output();
        if !mounted.unwrap().status.success() {
            skip(what, "no file can be mounted");
            return None;
        }
        Some(Self {
            file,
            mount,
            _dir: dir,
        })
    }

    /// Replaces the name's address.
    fn set(&self, address: &str) {
        fs::write(&self.file, format!("{address} {NAME}\n")).unwrap();
    }

    async fn gateway(&self, settings: Settings, decider: &Service) -> Service {
        let url = decider.grpc_url().replace("127.0.0.1", NAME);
        let settings = settings.set("IMPORTGUARD_DECIDER_URL", url);
        Service::gateway_with_limits(&self.mount, settings).await
    }
}

/// Waits until the gateway knows one decider, which is usable or not.
async fn until_usable(gateway: &Service, usable: u64) {
    let what = format!("{usable} deciders are usable");
    eventually(&what, PROMPTLY, async || {
        let readiness: Value = serde_json::from_str(&gateway.admin("/readyz").await?)?;
        let deciders = &readiness["deciders"];
        let (known, found) = (&deciders["known"], &deciders["usable"]);
        ensure!(*known == 1 && *found == usable, "{deciders}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn the_successor_of_a_decider_that_stops_is_found_promptly() {
    let Some(hosts) = Hosts::new("a name whose address changes") else {
        return;
    };
    let first = Service::decider(Settings::new()).await;
    let port = first.grpc_url().rsplit(':').next().unwrap().to_owned();
    let settings = Settings::new()
        .set("IMPORTGUARD_DECIDER_LISTEN", format!("127.0.0.2:{port}"))
        .set("IMPORTGUARD_DECIDER_SHUTDOWN_GRACE", "20s")
        .set("IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT", "40s");
    let second = Service::decider(settings).await;
    hosts.set("127.0.0.1");
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "200ms");
    let gateway = hosts.gateway(settings, &first).await;
    hosts.set("127.0.0.2");
    gateway.wait_for_log(&["removed: its name"]).await;
    // From now, the name is resolved again in five seconds, if nothing else asks for it.
    second.sigterm();
    until_usable(&gateway, 0).await;
    // What the ejection made the gateway ask for, a cache has answered as before.
    hosts.set("127.0.0.1");
    until_usable(&gateway, 1).await;
    let server = OpenIm::server(gateway.url());
    asserts::allows(Dialect::Server, &server.import("op", "a", &["b"]).await);
}

#[tokio::test]
async fn a_gateway_is_ready_when_it_knows_its_deciders() {
    let decider = Service::decider(Settings::new()).await;
    let timeout = Duration::from_secs(1);
    let settings = Settings::new()
        .set("IMPORTGUARD_DECIDER_TIMEOUT", format!("{timeout:?}"))
        .set(
            "IMPORTGUARD_DECIDER_URL",
            decider.grpc_url().replace("127.0.0.1", "localhost"),
        );
    // What the C library reads before it looks up the first name.
    let dir = TempDir::new().unwrap();
    let pipe = dir.path().join("host.conf");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let settings = settings.set("RESOLV_HOST_CONF", pipe.display().to_string());
    thread::spawn(move || {
        // There is a reader from now.
        let mut pipe = OpenOptions::new().write(true).open(pipe).unwrap();
        thread::sleep(2 * timeout);
        writeln!(pipe, "multi on").unwrap();
    });
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url());
    asserts::allows(Dialect::Server, &server.import("op", "a", &["b"]).await);
}
