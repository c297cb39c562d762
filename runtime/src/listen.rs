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

/// An address that is reserved for this process. Until it listens, connections are refused: callers do not wait for a process that still
/// reads its files.
#[derive(Debug)]
pub struct BoundAddress {
    socket: Socket,
    address: SocketAddr,
    setting: &'static str,
}

impl BoundAddress {
    /// Returns the address, with the port that was chosen if none was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens from now on. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// If another process that bound the same address listens already.
    pub fn listen(self) -> Result<TcpListener, ListenError> {
        let Self {
            socket,
            address,
            setting,
        } = self;
        let listening = socket.listen(BACKLOG);
        listening
            .and_then(|()| TcpListener::from_std(socket.into()))
            .map_err(|source| ListenError {
                address,
                setting,
                source,
            })
    }
}

/// Reserves an address, so that one in use is an error at startup. `setting` names the setting that the address is from. `[::]` stands
/// for all interfaces: IPv6 and IPv4 whatever the system's default is, and IPv4 alone on a machine without IPv6.
///
/// # Errors
/// If the address is in use or is none of this machine.
pub fn bind(address: SocketAddr, setting: &'static str) -> Result<BoundAddress, ListenError> {
    let bound = open(address, |domain| {
        Socket::new(domain, Type::STREAM, Some(Protocol::TCP))
    });
    let bound = bound.and_then(|socket| Ok((socket.local_addr()?, socket)));
    match bound {
        Ok((bound, socket)) => Ok(BoundAddress {
            socket,
            address: bound.as_socket().unwrap_or(address),
            setting,
        }),
        Err(source) => Err(ListenError {
            address,
            setting,
            source,
        }),
    }
}

fn open(address: SocketAddr, new: impl Fn(Domain) -> io::Result<Socket>) -> io::Result<Socket> {
    let is_any_v6 = address.is_ipv6() && address.ip().is_unspecified();
    match open_one(address, is_any_v6, &new) {
        Err(error) if is_any_v6 && is_without_ipv6(&error) => {
            open_one((Ipv4Addr::UNSPECIFIED, address.port()).into(), false, &new)
        }
        bound => bound,
    }
}

fn open_one(
    address: SocketAddr,
    takes_ipv4_too: bool,
    new: impl Fn(Domain) -> io::Result<Socket>,
) -> io::Result<Socket> {
    let socket = new(Domain::for_address(address))?;
    if takes_ipv4_too {
        socket.set_only_v6(false)?;
    }
    // A restart need not wait for connections of the process before it.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
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

    fn listening(new: impl Fn(Domain) -> io::Result<Socket>) -> TcpListener {
        let bound = BoundAddress {
            socket: open(ANY, new).unwrap(),
            address: ANY,
            setting: "",
        };
        bound.listen().unwrap()
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
            let listener = listening(new);
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
            let listener = listening(without);
            assert!(listener.local_addr().unwrap().is_ipv4());
            assert!(is_reached(&listener, Ipv4Addr::LOCALHOST).await);
            // One interface was asked for, and it cannot be had.
            let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
            assert!(open(loopback, without).is_err());
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error_in_either_family() {
        let first = listening(system);
        let port = first.local_addr().unwrap().port();
        for ip in [ANY.ip(), Ipv4Addr::UNSPECIFIED.into()] {
            let error = bind(SocketAddr::new(ip, port), "IMPORTGUARD_HTTP_LISTEN");
            let error = error.unwrap_err();
            assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().contains("IMPORTGUARD_HTTP_LISTEN"));
        }
    }

    #[tokio::test]
    async fn an_address_that_is_only_bound_refuses_connections_at_once() {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let bound = bind(loopback, "IMPORTGUARD_HTTP_LISTEN").unwrap();
        let address = bound.address();
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _listener = bound.listen().unwrap();
        assert!(TcpStream::connect(address).await.is_ok());
    }
}
