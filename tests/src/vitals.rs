use std::fs;

use crate::Process;

/// The resources of a process.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    /// Memory in RAM, in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub files: usize,
    /// Threads.
    pub threads: usize,
}

impl Process {
    /// Its current resources.
    pub fn vitals(&self) -> Vitals {
        let dir = format!("/proc/{}", self.id());
        let entries = |name: &str| fs::read_dir(format!("{dir}/{name}")).unwrap().count();
        let status = fs::read_to_string(format!("{dir}/status")).unwrap();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"))
            .unwrap_or_else(|| panic!("no memory in {status}"));
        Vitals {
            resident_bytes: resident.trim().parse::<u64>().unwrap() * 1024,
            files: entries("fd"),
            threads: entries("task"),
        }
    }
}
