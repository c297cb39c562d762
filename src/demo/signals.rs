use std::{
    io,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Signals that end the demonstration. They do not end the process, because a directory and a child process must be cleaned up.
#[derive(Clone, Default)]
pub(super) struct Stop {
    /// Cancelled by the first signal: no more imports, then the closing table.
    pub(super) asking: CancellationToken,
    /// Cancelled by the second signal: cleanup only.
    pub(super) everything: CancellationToken,
    /// Number of the last signal.
    last: Arc<AtomicI32>,
}

impl Stop {
    /// Listens for SIGINT, SIGTERM and SIGHUP. Must be called inside a tokio runtime.
    pub(super) fn on_signals() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let stop = Self::default();
        let Self {
            asking,
            everything,
            last,
        } = stop.clone();
        tokio::spawn(async move {
            for token in [asking, everything] {
                let received = tokio::select! {
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = hangup.recv() => SignalKind::hangup(),
                };
                last.store(received.as_raw_value(), Ordering::Relaxed);
                token.cancel();
            }
        });
        Ok(stop)
    }

    /// The exit code of a demonstration that a signal has interrupted, as a shell reports it.
    pub(super) fn exit_code(&self) -> ExitCode {
        let code = 128 + self.last.load(Ordering::Relaxed);
        u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
    }
}
