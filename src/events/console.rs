use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::output::USAGE;

/// How often progress is shown.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Prints messages of one command to standard error. Errors are ignored: if standard error is closed, nobody reads the messages.
#[derive(Clone, Copy)]
pub(crate) struct Console {
    command: &'static str,
}

impl Console {
    /// Messages begin with `importguard` and `command`.
    pub(crate) const fn new(command: &'static str) -> Self {
        Self { command }
    }

    /// The command's name.
    pub(crate) const fn command(self) -> &'static str {
        self.command
    }

    /// Prints a message.
    pub(crate) fn report(self, message: &str) {
        let _ = writeln!(io::stderr(), "importguard {}: {message}", self.command);
    }

    /// Reports that --until is not later than --since, as a usage error.
    pub(crate) fn empty_range(self) -> ExitCode {
        self.report("--until must be later than --since");
        ExitCode::from(USAGE)
    }

    /// Shows how many, for example, `events` were `read`, if standard error is a terminal.
    pub(crate) fn progress(self, done: &'static str, what: &'static str) -> Progress {
        Progress {
            console: self,
            done,
            what,
            next: io::stderr().is_terminal().then(Instant::now),
            shown: false,
        }
    }
}

/// A line on the terminal that is overwritten, and erased at the end.
pub(crate) struct Progress {
    console: Console,
    done: &'static str,
    what: &'static str,
    /// When it is shown next; `None` without a terminal.
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// Shows that `count` of them are done and `pending` remain.
    pub(crate) fn show(&mut self, count: u64, pending: u64) {
        if self.next.is_some_and(|next| next <= Instant::now()) {
            let (command, done, what) = (self.console.command, self.done, self.what);
            let _ = write!(
                io::stderr(),
                "\r\x1b[Kimportguard {command}: {done} {count} {what}, {pending} left"
            );
            self.next = Some(Instant::now() + PROGRESS_INTERVAL);
            self.shown = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// Reports each status once, and not at every retry.
#[derive(Clone)]
pub(super) struct StatusReporter {
    console: Console,
    last: Arc<Mutex<Option<String>>>,
}

impl StatusReporter {
    pub(super) fn new(console: Console) -> Self {
        let last = Arc::default();
        Self { console, last }
    }

    /// Reports `cause`, and that what it prevented is tried again.
    pub(super) fn report_retry(&self, cause: &str) {
        self.note(cause, &format!("{cause}; retrying"));
    }

    /// The console to which it reports.
    pub(super) const fn console(&self) -> Console {
        self.console
    }

    pub(super) fn report(&self, cause: &str) {
        self.note(cause, cause);
    }

    fn note(&self, cause: &str, message: &str) {
        let mut last = self.last.lock();
        if last.as_deref() != Some(cause) {
            self.console.report(message);
            *last = Some(cause.to_owned());
        }
    }

    /// The cause that was reported last, unless it is over.
    pub(super) fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }

    pub(super) fn recovered(&self) {
        let mut last = self.last.lock();
        if last.take().is_some() {
            self.console.report("reading events");
        }
    }
}
