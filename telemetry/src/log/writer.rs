use std::{
    io::{self, BufWriter, Stderr, Write, stderr},
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

use crate::LogFormat;

/// How many lines may wait until standard error takes them: at 5,000 decisions a second more than a second's, and 3 MB of them.
const WAITING_LINES: usize = 8_192;

/// The lines that nobody took, since the process began.
static LEFT_OUT: OnceLock<ErrorCounter> = OnceLock::new();

/// How long the process's end may wait for its lines: a little longer than `WorkerGuard` does.
const FAREWELL: Duration = Duration::from_millis(1_200);

/// Sees to it that lines which still wait are written when the process ends, if somebody takes them.
pub(crate) struct Waiting(Option<WorkerGuard>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let (done, end) = mpsc::channel();
        let guard = self.0.take();
        // When it gives up, it says so on standard output, which may be stuck as well.
        thread::spawn(move || {
            drop(guard);
            done.send(())
        });
        let _ = end.recv_timeout(FAREWELL);
    }
}

/// The way to standard error. A thread of its own writes there: a pipe that nobody reads must not stop a callback. When too many
/// lines wait, further ones are left out, and counted.
pub(crate) fn writer(format: LogFormat) -> (NonBlocking, Waiting) {
    let (lines, waiting) = NonBlockingBuilder::default()
        .buffered_lines_limit(WAITING_LINES)
        .lossy(true)
        .thread_name("log")
        .finish(Lines {
            stderr: BufWriter::new(stderr()),
            format,
            told: 0,
        });
    // A second call is refused by `init`.
    let _ = LEFT_OUT.set(lines.error_counter());
    (lines, Waiting(Some(waiting)))
}

/// How many lines were left out, since the process began.
pub(crate) fn left_out() -> usize {
    LEFT_OUT.get().map_or(0, ErrorCounter::dropped_lines)
}

/// Standard error, where a gap in the lines is a line itself.
struct Lines {
    stderr: BufWriter<Stderr>,
    format: LogFormat,
    told: usize,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let left_out = left_out();
        if left_out > self.told {
            let gap = super::gap(self.format, left_out - self.told);
            self.told = left_out;
            self.stderr.write_all(gap.as_bytes())?;
        }
        self.stderr.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stderr.flush()
    }
}
