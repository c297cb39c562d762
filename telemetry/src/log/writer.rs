use std::{
    io::{self, ErrorKind, Write, stderr},
    mem,
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

use crate::LogFormat;

/// How many bytes of lines may wait until standard error takes them: a second's at 5,000 decisions, each of which is a line of
/// some 400 bytes. As many again may be on their way.
const WAITING_BYTES: usize = 2 * 1024 * 1024;

/// How much memory is kept for lines: what comes together in [`GATHER`] at 16,000 decisions a second, twice over.
const KEPT_BYTES: usize = 64 * 1024;

/// How long lines are gathered before they are written together, and so how late a line may be. With `tracing-appender`, which
/// allocates each line and wakes its thread for each, throughput was an eighth less: bench/README.md has the runs.
const GATHER: Duration = Duration::from_millis(5);

/// How long the process's end may wait for its lines.
const FAREWELL: Duration = Duration::from_secs(1);

/// How many lines nobody got, since the process began.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

static WRITER: Shared = Shared {
    state: Mutex::new(State {
        lines: Vec::new(),
        left_out: 0,
        running: false,
        asleep: false,
        ending: false,
    }),
    work: Condvar::new(),
    done: Condvar::new(),
};

/// How many lines nobody got, since the process began.
pub(crate) fn left_out() -> u64 {
    LEFT_OUT.load(Ordering::Relaxed)
}

/// Begins to write on a thread of its own: a pipe that nobody reads must not stop a callback. When too many lines wait, further
/// ones are left out, and counted. An error if there can be no further thread.
pub(crate) fn start(format: LogFormat) -> io::Result<Stderr> {
    let thread = thread::Builder::new().name("log".to_owned());
    thread.spawn(move || WRITER.write(format))?;
    // A process has one log; a second one fails with its subscriber.
    let _ = FORMAT.set(format);
    WRITER.state().running = true;
    Ok(Stderr)
}

/// The log's form, once there is one.
pub(super) fn format() -> Option<LogFormat> {
    FORMAT.get().copied()
}

/// Waits until all lines are written, for a second at most: who doesn't take them by then doesn't get them. For the process's end.
pub fn finish() {
    let mut state = WRITER.state();
    state.ending = true;
    WRITER.work.notify_one();
    let _ = WRITER
        .done
        .wait_timeout_while(state, FAREWELL, |state| state.running);
}

/// The way to standard error: through the thread, while that runs.
#[derive(Clone, Copy)]
pub(crate) struct Stderr;

impl MakeWriter<'_> for Stderr {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// Takes whole lines, as tracing-subscriber's layer writes them.
impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        WRITER.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Shared {
    state: Mutex<State>,
    /// The thread has something to do.
    work: Condvar,
    /// The thread has nothing more to do, for good.
    done: Condvar,
}

struct State {
    lines: Vec<u8>,
    /// How many lines are missing after those.
    left_out: u64,
    /// There is a thread.
    running: bool,
    /// It waits for a line.
    asleep: bool,
    ending: bool,
}

impl Shared {
    fn take(&self, line: &[u8]) {
        let mut state = self.state();
        if !state.running {
            drop(state);
            write_out(line);
        } else if state.has_room(line) {
            state.lines.extend_from_slice(line);
            let asleep = mem::take(&mut state.asleep);
            drop(state);
            if asleep {
                self.work.notify_one();
            }
        } else {
            state.left_out += 1;
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&self, format: LogFormat) {
        let mut lines = Vec::new();
        let mut missing = 0;
        while let Some(left_out) = self.next(&mut lines) {
            missing += write_out(&lines) + left_out;
            if missing > 0 && write_out(super::gap(format, missing).as_bytes()) == 0 {
                missing = 0;
            }
            lines.clear();
            lines.shrink_to(KEPT_BYTES);
        }
        self.state().running = false;
        self.done.notify_all();
    }

    /// Waits for lines and exchanges the empty `lines` for them. How many are missing after them, or nothing when there are no
    /// more.
    fn next(&self, lines: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.state();
        while state.lines.is_empty() && !state.ending {
            state.asleep = true;
            state = unpoisoned(self.work.wait(state));
        }
        let gathering = |state: &mut State| !state.ending;
        state = unpoisoned(self.work.wait_timeout_while(state, GATHER, gathering)).0;
        if state.lines.is_empty() {
            return None;
        }
        mem::swap(&mut state.lines, lines);
        Some(mem::take(&mut state.left_out))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }
}

impl State {
    /// Nothing goes in behind a gap until the gap is told of, so that it is told of in its place.
    fn has_room(&self, line: &[u8]) -> bool {
        let fits = self.lines.len() + line.len() <= WAITING_BYTES;
        self.lines.is_empty() || fits && self.left_out == 0
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
                ErrorKind::Interrupted | ErrorKind::WouldBlock => thread::sleep(GATHER),
                _ => break,
            },
        }
    }
    let missing = lines.iter().map(|byte| u64::from(*byte == b'\n')).sum();
    LEFT_OUT.fetch_add(missing, Ordering::Relaxed);
    missing
}

/// Nothing that holds the lock can panic half-way.
fn unpoisoned<T>(locked: Result<T, PoisonError<T>>) -> T {
    locked.unwrap_or_else(PoisonError::into_inner)
}
