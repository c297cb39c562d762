//! What must hold before anything serves: free addresses, and enough open files.

use std::{io, net::SocketAddr};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;

use crate::{admin, table::CLOSING};

/// What is open beside connections: standard streams, listeners, the runtime's own, the spool with its journal, NATS, OTLP,
/// files that are being read, with as many again to spare.
const OTHER_FILES: usize = 64;

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another address with {setting}")]
pub struct ListenError {
    address: SocketAddr,
    setting: &'static str,
    source: io::Error,
}

/// Opens a listener before anything serves, so that an address in use is an error at the start. `setting` is the name of the
/// setting that the address came from.
pub async fn listen(
    address: SocketAddr,
    setting: &'static str,
) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError {
            address,
            setting,
            source,
        })
}

/// The operating system does not let this process open as many files as its settings allow connections.
#[derive(Debug, thiserror::Error)]
#[error(
    "this process may have {limit} files open and its settings need {needed}: raise the hard limit (ulimit -Hn, LimitNOFILE= in systemd) or lower {settings}"
)]
pub struct OpenFilesError {
    limit: u64,
    needed: u64,
    settings: &'static str,
}

/// Raises the soft limit of open files to the hard one, as servers do that use neither `select` nor descriptors by number.
/// `connections` is how many there may be, in and out; the admin listener's come on top. `settings` names where their number comes
/// from.
///
/// # Errors
/// Where the hard limit is below that: the process would leave callers unanswered for want of files.
pub fn allow_open_files(connections: usize, settings: &'static str) -> Result<(), OpenFilesError> {
    let needed = connections + CLOSING + admin::MAX_CONNECTIONS + CLOSING + OTHER_FILES;
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    let mut limits = getrlimit(Resource::Nofile);
    let before = limits.current;
    limits.current = limits.maximum;
    // Raising it is refused only where the hard limit is above what the kernel allows any more; then what was before holds.
    let limit = match setrlimit(Resource::Nofile, limits) {
        Ok(()) => limits.maximum,
        Err(_) => before,
    };
    match limit {
        Some(limit) if limit < needed => Err(OpenFilesError {
            limit,
            needed,
            settings,
        }),
        _ => Ok(()),
    }
}
