use std::{fs, path::PathBuf};

use tempfile::TempDir;

use crate::{Settings, skip, tool};

/// The library that faketime preloads, below `/usr/lib` or `/usr/lib/<architecture>`.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// The system's clock of a process, which can be set while it runs. The monotonic clock goes on as it does.
#[derive(Debug)]
pub struct FakeClock {
    preloaded: PathBuf,
    dir: TempDir,
}

impl FakeClock {
    /// A clock that is right; none where faketime is not installed, which is then printed with `what` is not tested.
    pub fn start(what: &str) -> Option<Self> {
        tool("faketime", "FAKETIME", what)?;
        let Some(preloaded) = library() else {
            skip(what, "faketime has no library in /usr/lib");
            return None;
        };
        let clock = Self {
            preloaded,
            dir: TempDir::new().expect("a temporary directory"),
        };
        clock.set("+0");
        Some(clock)
    }

    /// Sets it to `offset` from the real time, as faketime reads it: `-1d`.
    pub fn set(&self, offset: &str) {
        // Replaced at once, so that nobody reads half of it.
        let new = self.dir.path().join("new");
        fs::write(&new, offset).expect("the clock's file is written");
        fs::rename(new, self.file()).expect("the clock's file is replaced");
    }

    /// The same with this clock.
    pub fn settings(&self, settings: Settings) -> Settings {
        settings
            .set("LD_PRELOAD", self.preloaded.display().to_string())
            .set("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string())
            .set("FAKETIME_NO_CACHE", "1")
            .set("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .set("DONT_FAKE_MONOTONIC", "1")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("offset")
    }
}

fn library() -> Option<PathBuf> {
    let beside = |dir: PathBuf| Some(dir.join(LIBRARY)).filter(|file| file.is_file());
    let below = fs::read_dir("/usr/lib").ok()?.flatten();
    beside("/usr/lib".into()).or_else(|| below.map(|entry| entry.path()).find_map(beside))
}
