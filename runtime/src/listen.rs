//! Preconditions of serving: free addresses and enough file descriptors.

use std::{io, net::SocketAddr};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;

use crate::{admin, table::CLOSING};

/// File descriptors for other uses than connections: standard streams, listeners, the runtime, the spool and its journal, NATS,
/// OTLP, files being read; twice what is needed.
const OTHER_FILES: usize = 64;

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; choose another address with {setting}")]
pub struct ListenError {
    address: SocketAddr,
    setting: &'static str,
    source: io::Error,
}

/// Opens a listener, before anything is served, so that an address in use is an error at startup. `setting` names the setting that
/// the address is from.
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

/// The limit of open files is too low for the connections that the settings allow.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, but the settings need {needed}: raise the hard limit (ulimit -Hn, LimitNOFILE= in systemd) or lower {settings}"
)]
pub struct OpenFilesError {
    limit: u64,
    needed: u64,
    settings: &'static str,
}

/// Raises the soft limit of open files to the hard limit; safe, as this process does not use `select`. `connections` is the maximum
/// number of connections, in and out, without the admin listener's. `settings` names the settings that determine it.
///
/// # Errors
/// If the hard limit is too low: connections could not be accepted.
pub fn allow_open_files(connections: usize, settings: &'static str) -> Result<(), OpenFilesError> {
    let needed = connections + CLOSING + admin::MAX_CONNECTIONS + CLOSING + OTHER_FILES;
    let needed = u64::try_from(needed).unwrap_or(u64::MAX);
    let mut limits = getrlimit(Resource::Nofile);
    let before = limits.current;
    limits.current = limits.maximum;
    // Raising it fails only if the hard limit exceeds what the kernel now allows; then the soft limit is unchanged.
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
