//! Batches lines: a thread writes what callers have queued, so that a pipe that is not read blocks no callback. `bench/README.md` has
//! the cost of `tracing-appender`, which wakes its thread for each line.

use std::{
    io::{self, ErrorKind, Write, stderr},
    mem,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::Duration,
};

use crate::LogFormat;
use parking_lot::{Condvar, Mutex};

/// Maximum size of queued lines, in bytes: those of a second at 5,000 decisions, with a line of some 400 bytes each. As many again
/// may be in the current write.
const QUEUE_BYTES: usize = 2 * 1024 * 1024;

/// Buffer capacity that is kept between writes: twice what arrives in [`INTERVAL`] at 16,000 decisions a second.
const KEPT_BYTES: usize = 64 * 1024;

/// How long lines are collected before they are written, and so the maximum delay of a line.
const INTERVAL: Duration = Duration::from_millis(5);

/// How long [`flush`] waits.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Whether the last write ended within a line.
static WITHIN_LINE: AtomicBool = AtomicBool::new(false);

/// The process's log on standard error. Takes whole lines.
pub(crate) static WRITER: LineWriter = LineWriter {
    state: Mutex::new(State {
        format: None,
        lines: Vec::new(),
        dropped: 0,
        asleep: false,
        ending: false,
    }),
    changed: Condvar::new(),
};

/// Number of lines dropped since the process started.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

/// Starts the thread that writes lines. When the queue is full, further lines are dropped and counted. Fails if the thread cannot be
/// started.
pub(crate) fn start(format: LogFormat) -> io::Result<()> {
    let thread = thread::Builder::new().name("log".to_owned());
    thread.spawn(move || WRITER.run(format))?;
    // A process has one log; a second one fails with its subscriber.
    WRITER.state.lock().format.get_or_insert(format);
    Ok(())
}

/// The log's format, while the thread runs.
pub(super) fn format() -> Option<LogFormat> {
    WRITER.state.lock().format
}

/// Waits until all lines are written, for at most one second. For the end of the process.
pub fn flush() {
    let mut state = WRITER.state.lock();
    state.ending = true;
    WRITER.changed.notify_all();
    let running = |state: &mut State| state.format.is_some();
    let _ = WRITER
        .changed
        .wait_while_for(&mut state, running, FLUSH_TIMEOUT);
}

pub(crate) struct LineWriter {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The log's format, while the thread runs.
    format: Option<LogFormat>,
    lines: Vec<u8>,
    /// Number of lines dropped after `lines`. No lines are queued after a gap until it has been reported in its place.
    dropped: u64,
    asleep: bool,
    ending: bool,
}

impl Write for &LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl LineWriter {
    /// Queues `line`; writes it directly while the thread does not run.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        let fits = state.lines.len() + line.len() <= QUEUE_BYTES && state.dropped == 0;
        if state.format.is_none() {
            drop(state);
            DROPPED.fetch_add(write_out(line), Relaxed);
        } else if fits || state.lines.is_empty() {
            state.lines.extend_from_slice(line);
            if mem::take(&mut state.asleep) {
                drop(state);
                self.changed.notify_all();
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
            let failed = write_out(&lines);
            DROPPED.fetch_add(failed, Relaxed);
            missing += failed + dropped;
            // This line is not counted if it cannot be written: it is repeated until it can.
            if missing > 0 && write_out(&super::gap(format, missing)) == 0 {
                missing = 0;
            }
            lines.clear();
            lines.shrink_to(KEPT_BYTES);
        }
        self.state.lock().format = None;
        self.changed.notify_all();
    }

    /// Waits for lines and swaps them with the empty `lines`. Returns how many were dropped after them; `None` at the end.
    fn take(&self, lines: &mut Vec<u8>) -> Option<u64> {
        let sleep = |state: &mut State| {
            state.asleep = state.lines.is_empty() && !state.ending;
            state.asleep
        };
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, sleep);
        let collect = |state: &mut State| !state.ending;
        let _ = self.changed.wait_while_for(&mut state, collect, INTERVAL);
        if state.lines.is_empty() {
            return None;
        }
        mem::swap(&mut state.lines, lines);
        Some(mem::take(&mut state.dropped))
    }
}

/// Writes to standard error. Returns the number of lines that could not be written.
fn write_out(lines: &[u8]) -> u64 {
    write_lines(&mut stderr(), &WITHIN_LINE, lines)
}

/// Writes `lines` to `output`, and ends the line before them if a failed write left it unfinished. Returns how many are missing.
fn write_lines(output: &mut impl Write, within_line: &AtomicBool, lines: &[u8]) -> u64 {
    let mut rest = lines;
    if !lines.is_empty() && within_line.load(Relaxed) {
        within_line.store(!write(output, b"\n").is_empty(), Relaxed);
    }
    if !within_line.load(Relaxed) {
        rest = write(output, lines);
        let written = &lines[..lines.len() - rest.len()];
        let is_within = written.last().is_some_and(|last| *last != b'\n');
        within_line.store(is_within, Relaxed);
    }
    rest.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Returns what could not be written.
fn write<'l>(output: &mut impl Write, mut lines: &'l [u8]) -> &'l [u8] {
    while !lines.is_empty() {
        match output.write(lines) {
            Ok(taken) if taken > 0 => lines = &lines[taken..],
            // Another process may have made a shared terminal non-blocking.
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) =>
            {
                thread::sleep(INTERVAL);
            }
            _ => break,
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes as many bytes as there is room for, and fails then.
    struct Disk {
        content: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.room);
            self.content.extend_from_slice(&bytes[..taken]);
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_after_one_that_was_cut_off_begins_on_a_line_of_its_own() {
        let within_line = AtomicBool::new(false);
        let mut disk = Disk {
            content: Vec::new(),
            room: 6,
        };
        assert_eq!(
            write_lines(&mut disk, &within_line, b"one\ntwo\nthree\n"),
            2
        );
        assert_eq!(write_lines(&mut disk, &within_line, b"four\n"), 1);
        disk.room = 100;
        assert_eq!(write_lines(&mut disk, &within_line, b""), 0);
        assert_eq!(write_lines(&mut disk, &within_line, b"five\n"), 0);
        assert_eq!(write_lines(&mut disk, &within_line, b"six\n"), 0);
        let content = String::from_utf8(disk.content).unwrap();
        assert_eq!(content, "one\ntw\nfive\nsix\n");
    }
}
