//! A spool whose disk takes nothing more.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    process::Command,
};

use importguard_tests::{Binary, SOON, Service, Settings, Strace, skip, tool};
use rustix::process::{Pid, Resource, Rlimit, geteuid, prlimit};
use tempfile::TempDir;

use crate::spool_faults::{BREAKS, Bench, RECOVERS};

/// A gateway whose spool is on a file system of its own, of one MiB.
async fn on_a_small_disk(what: &str) -> Option<Bench> {
    let unshare = tool("unshare", "UNSHARE", what)?;
    let mount = ["-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];
    let mounted = Command::new(unshare).args(mount).output().unwrap();
    if !mounted.status.success() {
        skip(what, "no file system can be mounted");
        return None;
    }
    let bench = Bench::within(
        "mkdir -p \"$IMPORTGUARD_SPOOL\"; exec unshare -Urm sh -c \
         'mount -t tmpfs -o size=1m tmpfs \"$IMPORTGUARD_SPOOL\" && exec \"$0\" \"$@\"' \"$0\" \"$@\"",
    );
    Some(bench.await)
}

#[tokio::test]
async fn a_full_disk_is_told_and_events_are_recorded_again_when_there_is_room() {
    let Some(mut bench) = on_a_small_disk("a full disk").await else {
        return;
    };
    bench.ask_well(5).await;
    let filler = bench.mounted().join("filler");
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    bench.is_unrecordable("the disk is full").await;
    assert_eq!(bench.faults("diskFull").await, 1.0);
    drop(file);
    fs::remove_file(filler).unwrap();
    bench.until_spool_is("healthy", "the disk is full").await;
    assert_eq!(
        (bench.lines(BREAKS).await, bench.lines(RECOVERS).await),
        (1, 1)
    );
    bench.ask_well(5).await;
    bench.line.nats.restart().await;
    bench.drains().await;
}

#[tokio::test]
async fn a_spool_that_fills_its_own_disk_drains_without_help() {
    let Some(mut bench) = on_a_small_disk("a disk full of events").await else {
        return;
    };
    bench.is_unrecordable("the disk is full").await;
    assert!(bench.recorded.len() > 20, "{}", bench.recorded.len());
    bench.line.nats.restart().await;
    bench.drains().await;
    bench.until_spool_is("healthy", "the disk is full").await;
    assert_eq!(
        (bench.lines(BREAKS).await, bench.lines(RECOVERS).await),
        (1, 1)
    );
    bench.ask_well(5).await;
}

#[tokio::test]
async fn a_directory_that_becomes_read_only_is_told_before_anything_needs_it() {
    // To root, no directory is read-only.
    let limits = match geteuid().is_root() {
        true => "exec setpriv --bounding-set -dac_override \"$0\" \"$@\"",
        false => ":",
    };
    if tool("setpriv", "SETPRIV", "a read-only directory").is_none() {
        return;
    }
    let mut bench = Bench::within(limits).await;
    bench.ask_well(5).await;
    let allow = |mode| fs::set_permissions(bench.spool(), Permissions::from_mode(mode)).unwrap();
    allow(0o500);
    bench.until_spool_is("degraded", "read-only").await;
    assert_eq!(bench.faults("readOnly").await, 1.0);
    allow(0o700);
    bench.until_spool_is("healthy", "read-only").await;
    allow(0o500);
    // What is open can still be written.
    bench.ask_well(5).await;
    bench.loses_nothing().await;
}

#[tokio::test]
async fn a_limit_on_file_sizes_is_a_full_disk_and_ends_no_process() {
    let mut bench = Bench::within("ulimit -Sf 256").await;
    bench.is_unrecordable("a limit on file sizes").await;
    assert!(bench.recorded.len() > 3, "{:?}", bench.recorded);
    assert_eq!(bench.line.gateway.ended(), None);
    let pid = Pid::from_raw(bench.line.gateway.id() as i32);
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, unlimited).unwrap();
    bench.until_spool_is("healthy", "").await;
    bench.ask_well(5).await;
    bench.line.nats.restart().await;
    bench.drains().await;
}

#[tokio::test]
async fn every_error_of_the_disk_is_told_and_none_loses_what_was_answered() {
    for (injected, error) in [
        ("write,pwrite64:error=EIO", "I/O error"),
        ("write,pwrite64:error=EROFS", "I/O error"),
        ("write,pwrite64:error=ENOSPC", "the disk is full"),
        ("fdatasync,fsync:error=EIO", "I/O error"),
    ] {
        let mut bench = Bench::without_nats().await;
        bench.ask_well(5).await;
        let dir = TempDir::new().unwrap();
        let calls = injected.split(':').next().unwrap();
        let (trace, inject) = (format!("trace={calls}"), format!("inject={injected}"));
        let log = bench.spool().join("spool.db-wal");
        let args = ["-e", &trace, "-e", &inject, "-P", log.to_str().unwrap()];
        let calls = dir.path().join("calls");
        let what = format!("{injected} on the spool's disk");
        let Some(strace) = Strace::attach(&bench.line.gateway, &args, &calls, &what).await else {
            return;
        };
        // Nobody needs it yet.
        bench.until_spool_is("broken", error).await;
        bench.is_unrecordable(error).await;
        strace.detach().await;
        bench.until_spool_is("healthy", error).await;
        bench.ask_well(5).await;
        bench.loses_nothing().await;
    }
}

/// Every read of the spool's files, and options of strace that let them fail.
const READS: [&str; 4] = [
    "-e",
    "trace=read,pread64",
    "-e",
    "inject=read,pread64:error=EIO",
];

/// A spool that is larger than what SQLite keeps of it in memory.
async fn of_large_events() -> Bench {
    let mut bench = Bench::without_nats().await;
    let friends: Vec<_> = (0..2_000)
        .map(|number| format!("friend_{number:020}"))
        .collect();
    bench.friends = friends;
    bench.ask_well(60).await;
    bench
}

fn set_aside(bench: &Bench) -> usize {
    let files = fs::read_dir(bench.spool()).unwrap();
    let names = files.map(|file| file.unwrap().file_name());
    names
        .filter(|name| name.to_string_lossy().contains("corrupt"))
        .count()
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_no_corrupt_spool() {
    let mut bench = of_large_events().await;
    let dir = TempDir::new().unwrap();
    let files = ["spool.db", "spool.db-wal"].map(|name| bench.spool().join(name));
    let mut args = READS.to_vec();
    for file in &files {
        args.extend(["-P", file.to_str().unwrap()]);
    }
    let calls = dir.path().join("calls");
    let what = "EIO of reads of the spool's disk";
    let Some(strace) = Strace::attach(&bench.line.gateway, &args, &calls, what).await else {
        return;
    };
    bench.line.nats.restart().await;
    bench.until_spool_is("broken", "I/O error").await;
    assert_eq!(set_aside(&bench), 0);
    strace.detach().await;
    bench.drains().await;
    bench.until_spool_is("healthy", "I/O error").await;
    assert_eq!((set_aside(&bench), bench.faults("corrupt").await), (0, 0.0));
}

/// Starts a gateway on the spool of `bench` whose reads of the database fail as `when` says. None if that cannot be injected.
fn start_with_failing_reads(bench: &Bench, when: &str) -> Option<Service> {
    tool("strace", "STRACE", "EIO of reads at a start")?;
    let spool = bench.spool().display().to_string();
    let reads = READS.join(" ");
    // -D keeps the gateway a child of the test.
    let trace = format!(
        "exec strace -D -f -qq -o /dev/null {reads}{when} -P {spool}/spool.db \"$0\" \"$@\""
    );
    let settings = Settings::new().set("IMPORTGUARD_SPOOL", &spool);
    let gateway = Service::spawn_with_limits(&trace, Binary::Gateway, settings);
    Some(gateway)
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_at_a_start_ends_the_start_and_keeps_the_spool() {
    let mut bench = of_large_events().await;
    bench.line.gateway.kill9();
    // The first reads are of the header.
    for (when, error) in [("", "I/O error"), (":when=4+", "Input/output error")] {
        let Some(mut gateway) = start_with_failing_reads(&bench, when) else {
            return;
        };
        let status = gateway.exit(SOON).await;
        let said = gateway.output();
        assert_eq!(status.code(), Some(1), "{said}");
        for words in ["the spool", error, "IMPORTGUARD_SPOOL"] {
            assert!(said.contains(words), "no {words} in: {said}");
        }
        assert_eq!(set_aside(&bench), 0);
    }
    bench.loses_nothing().await;
}

#[tokio::test]
async fn a_read_that_fails_once_at_a_start_sets_nothing_aside() {
    let mut bench = of_large_events().await;
    bench.line.gateway.kill9();
    // SQLite reports the first of these as a malformed database, the other one as a page that it failed to get.
    for when in [":when=4", ":when=100"] {
        let Some(gateway) = start_with_failing_reads(&bench, when) else {
            return;
        };
        gateway
            .wait_for_log(&["it is read again", "is listening"])
            .await;
        assert_eq!(set_aside(&bench), 0);
    }
    bench.loses_nothing().await;
}
