//! Blocking work on dedicated threads.

use std::{io, thread};

use tokio::sync::oneshot;
use tracing::debug;

/// The lowest priority.
const NICE: i32 = 19;

/// Runs `work` on a new thread called `name`. Unlike a task of `spawn_blocking`, it does not delay the end of the process.
///
/// # Errors
/// If the thread cannot be started or `work` panics.
pub(super) async fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // The receiver is gone if the process is ending.
            let _ = done.send(work());
        })?;
    result
        .await
        .map_err(|_| io::Error::other("its thread panicked"))
}

/// Lowers the priority of the current thread, so that it does not slow down request processing. On Linux, priorities are per
/// thread.
pub(super) fn lower_priority() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        debug!(%error, "a background thread runs at normal priority");
    }
}
