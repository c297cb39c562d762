//! Checks a running process through its admin listener: for containers, whose images have no shell and no curl.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{ThreadSettings, block_on, settings::duration};

/// How much of a response is read, in bytes: `/readyz` with all its parts has a few hundred.
const RESPONSE_BYTES: u64 = 64 * 1024;

/// Check the running process: exit 0 if ready; otherwise exit 1 and print the reason
#[derive(Args, Clone, Debug)]
#[group(skip)] // Its name would collide with that of the command around it.
pub struct Healthcheck {
    /// Check only whether the process is alive (/livez), as a liveness probe does
    #[arg(long)]
    live: bool,

    /// Maximum time for the response
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "2s",
        value_parser = duration
    )]
    timeout: Duration,
}

/// A failed health check.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// The admin listener cannot be reached.
    #[error(
        "{url}: cannot connect: {source}; check that the process is running and that IMPORTGUARD_ADMIN_LISTEN is the same for it and for this command"
    )]
    Unreachable {
        /// The URL.
        url: String,
        /// The cause.
        source: io::Error,
    },
    /// Something else than an admin listener responds.
    #[error(
        "{url}: the response is not HTTP; check that IMPORTGUARD_ADMIN_LISTEN is the same for the process and for this command"
    )]
    NotHttp {
        /// The URL.
        url: String,
    },
    /// There was no response in time.
    #[error("{url} did not respond within {}", humantime::format_duration(*.within))]
    Timeout {
        /// The URL.
        url: String,
        /// The time limit.
        within: Duration,
    },
    /// The response is not 200.
    #[error("{url} returned {response}")]
    Unhealthy {
        /// The URL.
        url: String,
        /// Status and body of the response, on one line.
        response: String,
    },
}

impl Healthcheck {
    /// Checks the process whose admin listener is at `admin_listen`, and prints a line if it is healthy.
    ///
    /// # Errors
    /// If it is not healthy, or the tokio runtime cannot be started.
    pub fn run(&self, admin_listen: SocketAddr) -> anyhow::Result<ExitCode> {
        Ok(block_on(ThreadSettings::ONE, self.check(admin_listen))??)
    }

    async fn check(&self, admin_listen: SocketAddr) -> Result<ExitCode, HealthcheckError> {
        let path = if self.live { "/livez" } else { "/readyz" };
        let address = reachable(admin_listen);
        let url = format!("http://{address}{path}");
        let within = self.timeout;
        let response = async { get(connect(admin_listen).await?, address, path).await };
        let response = match timeout(within, response).await {
            Ok(Ok(Some(response))) => response,
            Ok(Ok(None)) => return Err(HealthcheckError::NotHttp { url }),
            Ok(Err(source)) => return Err(HealthcheckError::Unreachable { url, source }),
            Err(_) => return Err(HealthcheckError::Timeout { url, within }),
        };
        if !response.starts_with("200 ") {
            return Err(HealthcheckError::Unhealthy { url, response });
        }
        // If standard output is closed, the exit code suffices.
        let _ = writeln!(io::stdout(), "{url} returned {response}");
        Ok(ExitCode::SUCCESS)
    }
}

/// The address at which this machine reaches a listener on `address`: loopback if it listens on all interfaces.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Connects to a listener on `address`. One on `[::]` has IPv4 only where the machine has no IPv6.
async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    match TcpStream::connect(reachable(address)).await {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() => {
            let over_ipv4 = TcpStream::connect((Ipv4Addr::LOCALHOST, address.port()));
            over_ipv4.await.map_err(|_| error)
        }
        connected => connected,
    }
}

/// Status and body of the response, on one line; `None` if it is not HTTP.
async fn get(mut stream: TcpStream, address: SocketAddr, path: &str) -> io::Result<Option<String>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    stream
        .take(RESPONSE_BYTES)
        .read_to_end(&mut response)
        .await?;
    let response = String::from_utf8_lossy(&response);
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let status = head.lines().next();
    let status = status.and_then(|line| line.strip_prefix("HTTP/1.1 "));
    Ok(status.map(|status| {
        let line = format!("{status} {}", body.replace('\n', " "));
        line.trim_end().to_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_interfaces_is_reached_on_loopback() {
        for (listens, reached) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("192.0.2.7:8081", "192.0.2.7:8081"),
        ] {
            let reached: SocketAddr = reached.parse().unwrap();
            assert_eq!(listens.parse().map(reachable), Ok(reached));
        }
    }

    #[tokio::test]
    async fn what_does_not_speak_http_is_named_as_such() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(b"220 ready\r\n").await.unwrap();
        });
        let check = Healthcheck {
            live: false,
            timeout: Duration::from_secs(10),
        };
        let error = check.check(address).await.unwrap_err().to_string();
        assert!(
            error.contains("is not HTTP") && !error.contains("connect:"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_listener_that_found_no_ipv6_is_reached_over_ipv4() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        connect(asked).await.unwrap();
    }
}
