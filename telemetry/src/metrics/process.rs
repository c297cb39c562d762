//! `process_…` metrics with the names that all Prometheus clients use, and the losses of telemetry itself.

use std::{
    fmt, fs, io,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};
use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use super::gauge;
use crate::{exporter, log};

/// Process metrics, read from the operating system at each scrape.
#[derive(Debug)]
pub(super) struct Process {
    /// Seconds since 1970.
    start_time: f64,
}

impl Process {
    /// Metrics of a process that starts now.
    pub(super) fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            start_time: now.unwrap_or_default().as_secs_f64(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        counter(
            to,
            "process_cpu_seconds",
            "Processor time that the process has used, user and system, in seconds.",
            &ConstCounter::new(cpu_seconds()),
        )?;
        // 0 if /proc is not mounted.
        let resident = resident_bytes().unwrap_or(0);
        let open = count("/proc/self/fd").unwrap_or(0);
        gauge(
            to,
            "process_resident_memory_bytes",
            "Resident memory in bytes.",
            resident,
        )?;
        gauge(to, "process_open_fds", "Open file descriptors.", open)?;
        gauge(
            to,
            "process_max_fds",
            "The limit of open file descriptors.",
            max_fds(),
        )?;
        gauge(
            to,
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            self.start_time,
        )?;
        counter(
            to,
            "importguard_log_lines_dropped",
            "Log lines that were dropped because standard error did not take them.",
            &ConstCounter::new(log::dropped()),
        )?;
        counter(
            to,
            "importguard_spans_lost",
            "Spans that were lost because the OTLP endpoint did not accept them.",
            &ConstCounter::new(exporter::lost()),
        )
    }
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    counter: &impl EncodeMetric,
) -> fmt::Result {
    counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn max_fds() -> i64 {
    let limit = getrlimit(Resource::Nofile).current;
    limit
        .and_then(|limit| i64::try_from(limit).ok())
        .unwrap_or(i64::MAX)
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

#[cfg(test)]
mod tests {
    use crate::metrics::{ProcessMetrics, encode};

    #[test]
    fn a_new_registry_has_process_and_build_metrics() {
        let metrics = ProcessMetrics::new().unwrap();
        let text = encode(&metrics.registry, None).unwrap().text;
        for name in [
            "importguard_build_info{",
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
            "process_start_time_seconds ",
        ] {
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
            assert!(value.is_some_and(|value| value > 0.0), "{name} in {text}");
        }
        assert!(text.contains("\nimportguard_log_lines_dropped_total 0\n"));
        assert!(text.contains("\nimportguard_spans_lost_total 0\n"));
    }
}
