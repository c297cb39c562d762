//! SIGTERM and Ctrl-C: the first shuts the process down gracefully, the second immediately. SIGHUP never terminates it:
//! [`FileWatches`](crate::FileWatches) reloads all files. Nor does SIGXFSZ.

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
};

use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Keeps SIGHUP from terminating this process, and SIGXFSZ: a write beyond a limit on file sizes (`ulimit -f`) fails with EFBIG then,
/// like one to a full disk. Must be called first: without a handler, they terminate it.
///
/// # Errors
/// If a signal handler cannot be installed.
pub fn survive() -> io::Result<()> {
    // The flag is not read: `FileWatches` has its own handler of SIGHUP, and the failed write is noticed by who writes.
    let received = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGXFSZ] {
        signal_hook::flag::register(signal, received.clone())?;
    }
    Ok(())
}

/// A token that the first SIGTERM or SIGINT cancels. Must be called inside a tokio runtime.
///
/// # Errors
/// If the signal handlers cannot be installed.
pub fn shutdown() -> io::Result<CancellationToken> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let (name, _) = first_of(&mut term, &mut int).await;
        tracing::info!(
            "{name} received: shutting down gracefully; send it again to stop immediately"
        );
        cancel.cancel();
        let (name, number) = first_of(&mut term, &mut int).await;
        tracing::warn!("{name} received again: stopping immediately");
        importguard_telemetry::flush_log();
        // As a shell reports a command that the signal ended.
        std::process::exit(128 + number);
    });
    Ok(token)
}

/// SIGHUP, which makes a process reload its files. The default never receives it.
#[derive(Debug, Default)]
pub struct Hangup(Option<Signal>);

impl Hangup {
    /// Receives SIGHUP from now on. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If the signal handler cannot be installed.
    pub fn listen() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(|signal| Self(Some(signal)))
    }

    /// Completes when the signal has arrived since the last call.
    pub async fn received(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Waits for one of the two, and returns its name and number.
async fn first_of(term: &mut Signal, int: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = term.recv() => ("SIGTERM", SIGTERM),
        _ = int.recv() => ("SIGINT", SIGINT),
    }
}
