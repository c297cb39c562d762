use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

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
