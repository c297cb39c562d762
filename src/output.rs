//! Standard output, standard error, and the exit code of usage errors.

use std::{
    env,
    fmt::Display,
    fs::File,
    io::{self, ErrorKind, IsTerminal, Write},
    os::fd::AsFd,
    process::ExitCode,
};

/// The exit code of usage errors, as clap's own.
pub(crate) const USAGE: u8 = 2;

/// An error of standard output, which the text names.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
struct OutputError(io::Error);

/// Locks standard output. Its errors name it, and [`error_kind`] recognizes them.
pub(crate) fn stdout() -> impl Write {
    Output(io::stdout().lock())
}

/// Prints to standard output. If that is closed, the exit code suffices.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    match writeln!(stdout(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Standard output for lines that are written whole or not at all.
pub(crate) struct LineOutput {
    /// Standard output, if it is a file.
    file: Option<File>,
}

impl LineOutput {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        let is_file = |file: &File| file.metadata().is_ok_and(|metadata| metadata.is_file());
        Self {
            file: stdout.ok().filter(is_file),
        }
    }

    /// Writes lines, which end with a newline.
    pub(crate) fn write(&self, lines: &str) -> io::Result<()> {
        let Some(mut file) = self.file.as_ref() else {
            return stdout().write_all(lines.as_bytes());
        };
        let before = file.metadata()?.len();
        // Not to `stdout()`: at the end of the process, its buffer writes what it has of a line.
        let written = file.write_all(lines.as_bytes()).map_err(named);
        if written.is_err() {
            // A full disk may have taken the beginning of a line, which the next command to append to the file would continue. The first
            // error counts.
            let _ = file.set_len(before);
        }
        written
    }
}

/// Whether standard output gets colours: it is a terminal, and `NO_COLOR` is not set (<https://no-color.org>).
pub(crate) fn is_coloured() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The kind of the error of standard output that ended a command, if that is what ended it.
pub(crate) fn error_kind(error: &anyhow::Error) -> Option<ErrorKind> {
    let error = error.downcast_ref::<io::Error>()?;
    let is_output = error
        .get_ref()
        .is_some_and(|error| error.is::<OutputError>());
    is_output.then(|| error.kind())
}

/// Prints to standard error. If that is closed, the exit code suffices.
pub(crate) fn report(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a usage error, and returns its exit code.
pub(crate) fn usage_error(error: impl Display) -> ExitCode {
    report(format_args!("error: {error}"));
    ExitCode::from(USAGE)
}

struct Output<W>(W);

impl<W: Write> Write for Output<W> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.write(text).map_err(named)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(named)
    }
}

fn named(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), OutputError(error))
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use importguard_runtime::whole_text;

    use super::*;

    #[test]
    fn an_error_names_standard_output_and_keeps_its_kind() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = writeln!(Output(full), "text").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        let error = anyhow::Error::from(error);
        assert_eq!(
            whole_text(error.as_ref()),
            "cannot write to standard output: No space left on device (os error 28)"
        );
    }

    #[test]
    fn an_error_is_recognized_with_a_context_and_others_are_not() {
        let closed = || io::Error::from(ErrorKind::BrokenPipe);
        let error = Err::<(), _>(named(closed())).context("context");
        assert_eq!(error_kind(&error.unwrap_err()), Some(ErrorKind::BrokenPipe));
        assert_eq!(error_kind(&closed().into()), None);
    }
}
