//! The tokio runtime.

use std::{io, num::NonZeroUsize};

use clap::Args;
use tokio::runtime::Builder;

/// How many CPUs a process uses.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Threads")]
pub struct ThreadSettings {
    /// Worker threads. One is the most CPU-efficient; raise it only if one core is saturated and you cannot add a replica
    // Measured on two CPUs with 32 callbacks at once: one thread takes a quarter less CPU for each than two, which wake each
    // other up and send each frame by itself (bench/README.md).
    #[arg(
        long,
        env = "IMPORTGUARD_THREADS",
        value_name = "COUNT",
        default_value = "1"
    )]
    pub threads: NonZeroUsize,
}

/// From how many connections one thread reads before it sends what has come of that. With all that are ready, often all that
/// there are, callbacks go from pod to pod as one convoy, and each waits while another works: with 32 of them two CPUs are idle a
/// quarter of the time, with this an eighth, for a few more system calls.
const AT_ONCE: usize = 8;

impl ThreadSettings {
    /// For what does one thing at a time.
    pub const ONE: Self = Self {
        threads: NonZeroUsize::MIN,
    };

    /// For a command that blocks while it prints: a thread more for what must go on meanwhile.
    pub const TWO: Self = Self {
        threads: NonZeroUsize::MIN.saturating_add(1),
    };
}

/// Runs `future` on a new tokio runtime. What still blocks in the background when it has completed is not waited for.
///
/// # Errors
/// If the operating system gives no threads or files for it.
pub fn block_on<T>(settings: ThreadSettings, future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = match settings.threads.get() {
        1 => Builder::new_current_thread()
            .enable_all()
            .max_io_events_per_tick(AT_ONCE)
            .build(),
        threads => Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build(),
    };
    let runtime = runtime?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}
