//! Asks a running process's own admin listener how it is: for containers, whose images have no shell and no curl to ask with.

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

use crate::{ThreadSettings, block_on};

/// How much of an answer is read, in bytes: `/readyz` with all its parts is a few hundred.
const ANSWER_BYTES: u64 = 64 * 1024;

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
        value_parser = humantime::parse_duration
    )]
    timeout: Duration,
}

/// Why a process is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// It can't be asked.
    #[error(
        "{url} cannot be asked: {source}; it should be running, and IMPORTGUARD_ADMIN_LISTEN the same for it and for this command"
    )]
    Unreachable {
        /// What was asked.
        url: String,
        /// What went wrong.
        source: io::Error,
    },
    /// It answers too late.
    #[error("{url} did not answer within {}", humantime::format_duration(*.within))]
    Late {
        /// What was asked.
        url: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// It answers, and not with a yes.
    #[error("{url} says {answer}")]
    No {
        /// What was asked.
        url: String,
        /// Its answer's status and body, on one line.
        answer: String,
    },
}

impl Healthcheck {
    /// Asks the admin listener of the process that has the setting `admin_listen`, and prints a line if it is healthy.
    ///
    /// # Errors
    /// If it is not, or there is no tokio runtime to be had.
    pub fn run(&self, admin_listen: SocketAddr) -> anyhow::Result<ExitCode> {
        Ok(block_on(ThreadSettings::ONE, self.check(admin_listen))??)
    }

    async fn check(&self, admin_listen: SocketAddr) -> Result<ExitCode, HealthcheckError> {
        let path = if self.live { "/livez" } else { "/readyz" };
        let address = reachable(admin_listen);
        let url = format!("http://{address}{path}");
        let within = self.timeout;
        let answer = match timeout(within, ask(address, path)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) => return Err(HealthcheckError::Unreachable { url, source }),
            Err(_) => return Err(HealthcheckError::Late { url, within }),
        };
        if !answer.starts_with("200 ") {
            return Err(HealthcheckError::No { url, answer });
        }
        // Whoever asks without listening reads the exit code.
        let _ = writeln!(io::stdout(), "{url} says {answer}");
        Ok(ExitCode::SUCCESS)
    }
}

/// The address on which this machine reaches what listens on `address`: who listens everywhere is asked on loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// The answer's status and body as one line.
async fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))?;
    let line = format!("{status} {}", body.replace('\n', " "));
    Ok(line.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        for (listens, asked) in [
            ("0.0.0.0:8081", "127.0.0.1:8081"),
            ("[::]:8081", "[::1]:8081"),
            ("192.0.2.7:8081", "192.0.2.7:8081"),
        ] {
            let asked: SocketAddr = asked.parse().unwrap_or_else(|_| unreachable!());
            assert_eq!(listens.parse().map(reachable), Ok(asked));
        }
    }
}
