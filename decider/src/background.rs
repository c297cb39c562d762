use std::{io, thread};

use tokio::sync::oneshot;
use tracing::debug;

/// The nicest of all: such a thread runs where nobody else wants to.
const NICE: i32 = 19;

/// Does `work` on a thread of its own that yields the processors to the threads that answer. Fails where no thread can be had or
/// the work panicked.
pub(crate) async fn in_background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            step_back();
            // Nobody waits any more where the process is ending.
            let _ = done.send(work());
        })?;
    result
        .await
        .map_err(|_| io::Error::other("its thread ended early"))
}

/// On Linux a thread has a niceness of its own. Where it cannot be set, the work only gets in the way a little more.
fn step_back() {
    let thread = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        debug!(%error, "a background thread runs at full priority");
    }
}
