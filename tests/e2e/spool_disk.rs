//! A spool whose disk takes nothing more.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    process::Command,
};

use importguard_tests::{Strace, skip, tool};
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
