//! The tokio runtime.

use std::io;

use clap::Args;
use tokio::runtime::Builder;

use crate::{saturation, settings::count};

/// The number of worker threads.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Threads")]
pub struct ThreadSettings {
    /// Worker threads, at most 1024. One is the most CPU-efficient; raise it only if one core is saturated and you cannot add a replica
    // Measured on two CPUs with 32 concurrent callbacks: one thread takes a quarter less CPU per callback than two, which wake
    // each other up and send each frame separately (bench/README.md).
    #[arg(
        long,
        env = "IMPORTGUARD_THREADS",
        value_name = "COUNT",
        default_value = "1",
        value_parser = count::<usize>(1..=MAX_THREADS)
    )]
    pub threads: usize,
}

/// More than the CPUs of any machine that importguard is likely to run on. More threads would only take memory.
const MAX_THREADS: u64 = 1024;

/// How many I/O events one thread handles before it runs the tasks they woke. With no such limit, concurrent callbacks move from
/// process to process as one convoy, and each process waits for the other: with 32 callbacks, two CPUs are idle a quarter of the
/// time; with it an eighth, for a few more system calls.
const EVENTS_PER_TICK: usize = 8;

impl ThreadSettings {
    /// For commands that do one thing at a time.
    pub const ONE: Self = Self { threads: 1 };

    /// For a command that blocks while it prints: one more thread for everything else.
    pub const TWO: Self = Self { threads: 2 };

    fn builder(self) -> Builder {
        if self.threads > 1 {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(self.threads);
            return builder;
        }
        let mut builder = Builder::new_current_thread();
        builder.max_io_events_per_tick(EVENTS_PER_TICK);
        builder
    }
}

/// Runs `future` on a new tokio runtime. Does not wait for blocking background tasks once it has completed.
///
/// # Errors
/// If the runtime cannot be started, for lack of threads or file descriptors.
pub fn block_on<T>(settings: ThreadSettings, future: impl Future<Output = T>) -> io::Result<T> {
    run(&mut settings.builder(), future)
}

/// The same for the process's service: measures its [`Saturation`](crate::Saturation).
pub(crate) fn serve_on<T>(
    settings: ThreadSettings,
    future: impl Future<Output = T>,
) -> io::Result<T> {
    let mut builder = settings.builder();
    saturation::measure(&mut builder);
    run(&mut builder, future)
}

fn run<T>(builder: &mut Builder, future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = builder.enable_all().build()?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        threads: ThreadSettings,
    }

    #[test]
    fn a_number_of_threads_out_of_range_is_an_error_with_the_bound() {
        let error = |threads| {
            let parsed = Cli::try_parse_from(["gateway", "--threads", threads]);
            parsed
                .map(|cli| cli.threads.threads)
                .unwrap_err()
                .to_string()
        };
        for (threads, expected) in [
            ("0", "must be at least 1"),
            ("1025", "must be at most 1024"),
            ("abc", "not a number; write an integer"),
        ] {
            let error = error(threads);
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(Cli::parse_from(["gateway"]).threads.threads, 1);
    }
}
