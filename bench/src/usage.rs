//! CPU time and memory, as the kernel counts them.

use std::{collections::HashMap, time::Duration};

use procfs::{
    CpuInfo, Current, CurrentSI, KernelStats, LoadAverage, Meminfo,
    process::{ClearRefs, Process},
};

/// Nanoseconds that a process has spent on CPUs, by thread, from the scheduler's own counts: `/proc/<pid>/stat` has only hundredths of a
/// second.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<HashMap<i32, u64>> {
    let threads = process(pid)?.tasks()?.filter_map(|thread| {
        // A thread may end meanwhile.
        let thread = thread.ok()?;
        Some((thread.tid, thread.schedstat().ok()?.sum_exec_runtime))
    });
    Ok(threads.collect())
}

/// For how long all CPUs together had nothing to do since the machine started.
pub(crate) fn idle() -> anyhow::Result<Duration> {
    let cpu = KernelStats::current()?.total;
    let millis = cpu.idle_ms() + cpu.iowait_ms().unwrap_or_default();
    Ok(Duration::from_millis(millis))
}

/// A process's memory in MiB: resident now (VmRSS), and at most since [`reset_peak`] (VmHWM).
pub(crate) fn memory(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = process(pid)?.status()?;
    let mebibytes = |kibibytes: Option<u64>| kibibytes.map_or(f64::NAN, |n| n as f64 / 1024.0);
    Ok((mebibytes(status.vmrss), mebibytes(status.vmhwm)))
}

/// Lets VmHWM begin anew at what is resident now.
pub(crate) fn reset_peak(pid: u32) -> anyhow::Result<()> {
    Ok(process(pid)?.clear_refs(ClearRefs::PeakRSS)?)
}

fn process(pid: u32) -> anyhow::Result<Process> {
    Ok(Process::new(i32::try_from(pid)?)?)
}

/// The machine in a line. With a load average over a few hundredths at the start somebody else is measured, too.
pub(crate) fn machine() -> anyhow::Result<String> {
    let cpu = CpuInfo::current()?;
    let (model, cores) = (cpu.model_name(0).unwrap_or("unknown CPU"), cpu.num_cores());
    let gibibytes = Meminfo::current()?.mem_total >> 30;
    let load = LoadAverage::current()?.one;
    Ok(format!(
        "{model}, {cores} cores, {gibibytes} GiB, load average {load}"
    ))
}
