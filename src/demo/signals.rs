use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Signals that end the demonstration. They do not end the process, because a directory and a child process must be cleaned up.
#[derive(Clone, Default)]
pub(super) struct Stop {
    /// Cancelled by the first signal: no more imports, then the closing table.
    pub(super) asking: CancellationToken,
    /// Cancelled by the second signal: cleanup only.
    pub(super) everything: CancellationToken,
}

impl Stop {
    /// Listens for SIGINT, SIGTERM and SIGHUP. Must be called inside a tokio runtime.
    pub(super) fn on_signals() -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let stop = Self::default();
        let Self { asking, everything } = stop.clone();
        tokio::spawn(async move {
            for token in [asking, everything] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(stop)
    }
}
