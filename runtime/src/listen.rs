//! Preconditions of serving: free addresses and enough file descriptors.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use rustix::{
    io::Errno,
    process::{Resource, getrlimit, setrlimit},
};
use socket2::{Domain, Protocol, Socket, Type};
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

/// How many connections the kernel completes before they are accepted: as tokio has it.
const BACKLOG: i32 = 1024;

/// Opens a listener, before anything is served, so that an address in use is an error at startup. `setting` names the setting that
/// the address is from. `[::]` stands for all interfaces: IPv6 and IPv4 whatever the system's default is, and IPv4 alone on a
/// machine without IPv6. Must be called inside a tokio runtime.
///
/// # Errors
/// If the address is in use or is none of this machine.
pub async fn listen(
    address: SocketAddr,
    setting: &'static str,
) -> Result<TcpListener, ListenError> {
    open(address, |domain| {
        Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
    })
    .map_err(|source| ListenError {
        address,
        setting,
        source,
    })
}

fn open(
    address: SocketAddr,
    new: impl Fn(Domain) -> io::Result<Socket>,
) -> io::Result<TcpListener> {
    let is_any_v6 = address.is_ipv6() && address.ip().is_unspecified();
    match bind(address, is_any_v6, &new) {
        Err(error) if is_any_v6 && is_without_ipv6(&error) => {
            bind((Ipv4Addr::UNSPECIFIED, address.port()).into(), false, &new)
        }
        bound => bound,
    }
}

fn bind(
    address: SocketAddr,
    takes_ipv4_too: bool,
    new: impl Fn(Domain) -> io::Result<Socket>,
) -> io::Result<TcpListener> {
    let socket = new(Domain::for_address(address))?;
    if takes_ipv4_too {
        socket.set_only_v6(false)?;
    }
    // A restart need not wait for connections of the process before it.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The kernel has no IPv6, or no interface may use it.
fn is_without_ipv6(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
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

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::net::TcpStream;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

    fn system(domain: Domain) -> io::Result<Socket> {
        Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
    }

    async fn is_reached(listener: &TcpListener, ip: impl Into<std::net::IpAddr>) -> bool {
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((ip.into(), port)).await.is_ok()
    }

    /// As where `net.ipv6.bindv6only` is 1.
    fn only_v6(domain: Domain) -> io::Result<Socket> {
        let socket = system(domain)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(true)?;
        }
        Ok(socket)
    }

    #[tokio::test]
    async fn all_interfaces_are_those_of_both_families() {
        if system(Domain::IPV6).is_err() {
            return;
        }
        for new in [system, only_v6] {
            let listener = open(ANY, new).unwrap();
            assert!(is_reached(&listener, Ipv4Addr::LOCALHOST).await);
            assert!(is_reached(&listener, Ipv6Addr::LOCALHOST).await);
        }
    }

    #[tokio::test]
    async fn all_interfaces_are_those_of_ipv4_where_there_is_no_ipv6() {
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let without = |domain| match domain {
                Domain::IPV6 => Err(errno.into()),
                domain => system(domain),
            };
            let listener = open(ANY, without).unwrap();
            assert!(listener.local_addr().unwrap().is_ipv4());
            assert!(is_reached(&listener, Ipv4Addr::LOCALHOST).await);
            // One interface was asked for, and it cannot be had.
            let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
            assert!(open(loopback, without).is_err());
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error_in_either_family() {
        let first = open(ANY, system).unwrap();
        let port = first.local_addr().unwrap().port();
        for ip in [ANY.ip(), Ipv4Addr::UNSPECIFIED.into()] {
            let error = listen(SocketAddr::new(ip, port), "IMPORTGUARD_HTTP_LISTEN").await;
            let error = error.unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().contains("IMPORTGUARD_HTTP_LISTEN"));
        }
    }
}
