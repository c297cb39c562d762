//! `process_…`: what every Prometheus client tells of its process, by the names that they agree on.

use std::{
    fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::{
    Counter, Gauge, IntGauge, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

crate::families! {
    struct Process {
        /// Seconds of processor time, user and system, that the process has taken.
        cpu: Counter = "process_cpu_seconds_total";
        /// Bytes of memory that the process holds in RAM.
        resident: IntGauge = "process_resident_memory_bytes";
        /// File descriptors that are open.
        open_fds: IntGauge = "process_open_fds";
        /// File descriptors that may be open at once.
        max_fds: IntGauge = "process_max_fds";
        /// When the process started, in seconds since 1970.
        start_time: Gauge = "process_start_time_seconds";
    }
}

/// To be called at the start of the process, as its time is told.
pub(super) fn register(registry: &Registry) -> prometheus::Result<()> {
    let metrics = Process::new()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    metrics
        .start_time
        .set(now.unwrap_or_default().as_secs_f64());
    registry.register(Box::new(OnDemand(metrics)))
}

/// Looks when it is asked.
struct OnDemand(Process);

impl Collector for OnDemand {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Process {
            cpu,
            resident,
            open_fds,
            max_fds,
            ..
        } = &self.0;
        let used = clock_gettime(ClockId::ProcessCPUTime);
        let used = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
        // What was counted since the last look; never less than nothing, whoever else looks.
        cpu.inc_by((used - cpu.get()).max(0.0));
        // Where /proc is not mounted these stay 0.
        resident.set(resident_bytes().unwrap_or(0));
        open_fds.set(count("/proc/self/fd").unwrap_or(0));
        let limit = getrlimit(Resource::Nofile).current;
        max_fds.set(
            limit
                .and_then(|limit| i64::try_from(limit).ok())
                .unwrap_or(i64::MAX),
        );
        self.0.collect()
    }
}

/// `VmRSS: 12345 kB`, where a kB is 1024 bytes.
fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn count(directory: &str) -> io::Result<i64> {
    let entries = fs::read_dir(directory)?.count();
    Ok(i64::try_from(entries).unwrap_or(i64::MAX))
}
