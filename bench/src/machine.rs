use std::{fs, time::Duration};

use serde::Serialize;

/// The machine in a line: figures without it say little.
pub(crate) fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = read("/proc/meminfo");
    let kibibytes = memory
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse::<f64>()
                .ok()
        })
        .unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let virtualised = if cpu.contains(" hypervisor ") {
        ", a virtual machine"
    } else {
        ""
    };
    format!(
        "{model}, {cores} cores{virtualised}, {:.0} GiB, Linux {}, load average {}",
        kibibytes / f64::from(1 << 20),
        kernel.trim(),
        load_average()
    )
}

/// What all CPUs together did since the machine started, in the kernel's ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticks {
    all: f64,
    idle: f64,
}

/// Of the CPUs' time between two moments, in a hundred.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Use {
    /// Nobody had anything to do.
    pub(crate) idle: f64,
    /// Somebody else than those who are measured worked, the host of a virtual machine included.
    pub(crate) others: f64,
}

impl Ticks {
    pub(crate) fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is contained in user.
        let fields = text.lines().next().unwrap_or_default().split_whitespace();
        let ticks: Vec<f64> = fields
            .skip(1)
            .take(8)
            .filter_map(|text| text.parse().ok())
            .collect();
        Self {
            all: ticks.iter().sum(),
            idle: ticks.iter().skip(3).take(2).sum(),
        }
    }

    /// How the CPUs were used since `earlier`, a time in which the measured processes had `spent` in all.
    pub(crate) fn since(&self, earlier: &Self, spent: Duration, time: Duration) -> Use {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let ours = spent.as_secs_f64() * 100.0 / (time.as_secs_f64() * cores as f64);
        let idle = (self.idle - earlier.idle) * 100.0 / (self.all - earlier.all);
        Use {
            idle,
            others: (100.0 - idle - ours).max(0.0),
        }
    }
}

/// Of the last minute: over a few hundredths at the start, somebody else is measured too.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
