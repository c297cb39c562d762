//! Many lines in one write: a thread takes what callers left, and a pipe that nobody reads stops no callback.
//! `bench/README.md` has what `tracing-appender` costs instead, which wakes its thread for each line.

use std::{
    io::{self, ErrorKind, Write, stderr},
    mem,
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

use crate::LogFormat;

/// How many bytes of lines may wait until standard error takes them: a second's at 5,000 decisions, each of which is a line of
/// some 400 bytes. As many again may be on their way.
const WAITING_BYTES: usize = 2 * 1024 * 1024;

/// How much memory is kept for lines: what comes together in [`INTERVAL`] at 16,000 decisions a second, twice over.
const KEPT_BYTES: usize = 64 * 1024;

/// How long lines are gathered before they are written together, and so how late a line may be.
const INTERVAL: Duration = Duration::from_millis(5);

/// How long the end of the process waits for its lines.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

static WRITER: LineWriter = LineWriter {
    state: Mutex::new(State {
        lines: Vec::new(),
        dropped: 0,
        running: false,
        asleep: false,
        ending: false,
    }),
    work: Condvar::new(),
    done: Condvar::new(),
};

/// How many lines were dropped since the process began.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

/// Begins to write on a thread of its own. When too many lines wait, further ones are dropped and counted. An error if there can
/// be no further thread.
pub(crate) fn start(format: LogFormat) -> io::Result<StandardError> {
    let thread = thread::Builder::new().name("log".to_owned());
    thread.spawn(move || WRITER.run(format))?;
    // A process has one log; a second one fails with its subscriber.
    let _ = FORMAT.set(format);
    WRITER.state().running = true;
    Ok(StandardError)
}

/// The log's form, once there is one.
pub(super) fn format() -> Option<LogFormat> {
    FORMAT.get().copied()
}

/// Waits until all lines are written, for a second at most. For the end of the process.
pub fn flush() {
    let mut state = WRITER.state();
    state.ending = true;
    WRITER.work.notify_one();
    let running = |state: &mut State| state.running;
    let _ = WRITER
        .done
        .wait_timeout_while(state, FLUSH_TIMEOUT, running);
}

/// The way to standard error: through the thread, while that runs. Takes whole lines.
#[derive(Clone, Copy)]
pub(crate) struct StandardError;

impl MakeWriter<'_> for StandardError {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

impl Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        WRITER.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct LineWriter {
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
}

struct State {
    lines: Vec<u8>,
    /// How many lines are missing behind `lines`. Nothing goes in behind a gap until the gap has its line, in its place.
    dropped: u64,
    running: bool,
    asleep: bool,
    ending: bool,
}

impl LineWriter {
    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        let fits = state.lines.len() + line.len() <= WAITING_BYTES && state.dropped == 0;
        if !state.running {
            drop(state);
            write_out(line);
        } else if fits || state.lines.is_empty() {
            state.lines.extend_from_slice(line);
            if mem::take(&mut state.asleep) {
                drop(state);
                self.work.notify_one();
            }
        } else {
            state.dropped += 1;
            DROPPED.fetch_add(1, Relaxed);
        }
    }

    fn run(&self, format: LogFormat) {
        let mut lines = Vec::new();
        let mut missing = 0;
        while let Some(dropped) = self.take(&mut lines) {
            missing += write_out(&lines) + dropped;
            if missing > 0 && write_out(super::gap(format, missing).as_bytes()) == 0 {
                missing = 0;
            }
            lines.clear();
            lines.shrink_to(KEPT_BYTES);
        }
        self.state().running = false;
        self.done.notify_all();
    }

    /// Waits for lines and exchanges the empty `lines` for them. How many are missing behind them; nothing at the end.
    fn take(&self, lines: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.state();
        while state.lines.is_empty() && !state.ending {
            state.asleep = true;
            state = unpoisoned(self.work.wait(state));
        }
        let gathering = |state: &mut State| !state.ending;
        state = unpoisoned(self.work.wait_timeout_while(state, INTERVAL, gathering)).0;
        if state.lines.is_empty() {
            return None;
        }
        mem::swap(&mut state.lines, lines);
        Some(mem::take(&mut state.dropped))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }
}

/// Writes to standard error. How many of the lines it did not take, which are counted.
fn write_out(mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        match stderr().write(lines) {
            Ok(0) => break,
            Ok(taken) => lines = &lines[taken..],
            Err(error) => match error.kind() {
                // Another process may have told the terminal that both use never to block.
                ErrorKind::Interrupted | ErrorKind::WouldBlock => thread::sleep(INTERVAL),
                _ => break,
            },
        }
    }
    let missing = lines.iter().map(|byte| u64::from(*byte == b'\n')).sum();
    DROPPED.fetch_add(missing, Relaxed);
    missing
}

/// Nothing that holds the lock can panic half-way.
fn unpoisoned<T>(locked: Result<T, PoisonError<T>>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}
