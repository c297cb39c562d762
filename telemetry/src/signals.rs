//! SIGTERM and Ctrl-C: the first begins an orderly end, the second ends the process at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::log;

/// The exit code after a second signal: 128 + SIGINT, as a shell reports an interrupted command.
const INTERRUPTED: i32 = 130;

/// A token that the first SIGTERM or SIGINT cancels. Must be called inside a tokio runtime; fails where the operating
/// system refuses a signal handler.
pub fn shutdown() -> io::Result<CancellationToken> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let name = first_of(&mut term, &mut int).await;
        tracing::info!("{name} received: finishing what is under way; a second one ends at once");
        cancel.cancel();
        let name = first_of(&mut term, &mut int).await;
        tracing::warn!("{name} received again: ending at once");
        log::finish();
        std::process::exit(INTERRUPTED);
    });
    Ok(token)
}

async fn first_of(
    term: &mut tokio::signal::unix::Signal,
    int: &mut tokio::signal::unix::Signal,
) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
