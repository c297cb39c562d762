//! The address of NATS, and the credentials for it: for gateways, deciders, and every other client of the operator's NATS.

mod cause;
mod closing;
mod login;
mod reconnect;
mod url;

use std::{future::ready, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};
use clap::Args;
use importguard_runtime::{
    CertificateError, ClientTls, FileWatches, LastGood, NamedFile, Secret, SecretError,
};
use parking_lot::Mutex;

use cause::ConnectFailures;
use login::{Login, NatsAuth};
use reconnect::ReconnectDelay;

pub use {
    closing::ClosingError,
    login::NatsCredentialsError,
    url::{NatsUrlError, NatsUrls},
};

/// NATS and the credentials for it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsSettings {
    /// URLs of the NATS servers, comma-separated: nats://host:port, or tls:// to require TLS. Credentials can go before the first
    /// host, percent-encoded, as user:password@ or token@
    #[arg(
        long,
        env = "NATS_URL",
        value_name = "URL,…",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats_url: NatsUrls,

    /// User for NATS
    #[arg(long, env = "NATS_USER", value_name = "USER", conflicts_with_all = ["nats_token", "nats_token_file"])]
    pub nats_user: Option<String>,

    /// Password of that user. Prefer NATS_PASSWORD_FILE
    #[arg(
        long,
        env = "NATS_PASSWORD",
        value_name = "PASSWORD",
        hide_env_values = true,
        requires = "nats_user",
        conflicts_with = "nats_password_file"
    )]
    pub nats_password: Option<Secret>,

    /// File with the password of that user, on its only line; it is read again when it changes
    #[arg(
        long,
        env = "NATS_PASSWORD_FILE",
        value_name = "FILE",
        requires = "nats_user"
    )]
    pub nats_password_file: Option<PathBuf>,

    /// Token for NATS. Prefer NATS_TOKEN_FILE
    #[arg(
        long,
        env = "NATS_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        conflicts_with = "nats_token_file"
    )]
    pub nats_token: Option<Secret>,

    /// File with the token for NATS, on its only line; it is read again when it changes
    #[arg(long, env = "NATS_TOKEN_FILE", value_name = "FILE")]
    pub nats_token_file: Option<PathBuf>,

    /// NATS credentials file (JWT and NKey seed), as written by `nsc`; it is read again when it changes
    #[arg(long, env = "NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,

    /// PEM file with the CA certificates to verify NATS servers with; requires TLS [default: the system's]
    #[arg(long, env = "NATS_CA", value_name = "FILE")]
    pub nats_ca: Option<PathBuf>,

    /// PEM file with the client certificate for NATS; requires TLS
    #[arg(long, env = "NATS_CERT", value_name = "FILE", requires = "nats_key")]
    pub nats_cert: Option<PathBuf>,

    /// PEM file with the private key of that certificate
    #[arg(long, env = "NATS_KEY", value_name = "FILE", requires = "nats_cert")]
    pub nats_key: Option<PathBuf>,

    /// Prefix of the subjects on which NATS replies to this client. With one of its own, its NATS user needs no permission to read
    /// the replies to others
    #[arg(long, env = "NATS_INBOX_PREFIX", value_name = "PREFIX", default_value = "_INBOX", value_parser = inbox_prefix)]
    pub nats_inbox_prefix: String,
}

/// How long a connection may be idle before the client sends a PING. One that was cut off, or whose server hangs, is detected after three
/// such intervals.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Parses a name for a durable consumer that NATS accepts, and that leaves room for a suffix.
///
/// # Errors
/// If the name is not 1 to 64 letters, digits, `-` or `_`.
pub fn consumer_name(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !text.is_empty() && text.len() <= 64 && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits, - or _".to_owned())
    }
}

fn inbox_prefix(text: &str) -> Result<String, String> {
    let good = |token: &str| {
        let graphic = token.bytes().all(|byte| byte.is_ascii_graphic());
        !token.is_empty() && graphic && !token.contains(['*', '>'])
    };
    if text.len() <= 128 && text.split('.').all(good) && !text.starts_with('$') {
        Ok(text.to_owned())
    } else {
        Err("must be a subject without wildcards, for example _INBOX_importguard".to_owned())
    }
}

/// Why the settings are invalid.
#[derive(Debug, thiserror::Error)]
pub enum NatsSettingsError {
    /// There are credentials both in the URL and in other settings.
    #[error("NATS_URL contains credentials, and {0} is set; use one of them")]
    TwoLogins(&'static str),
    /// A user is set without a password.
    #[error("NATS_USER is set without a password; set NATS_PASSWORD_FILE or NATS_PASSWORD")]
    NoPassword,
    /// A file with a password or a token cannot be used.
    #[error("{setting}: cannot use {}: {source}", file.display())]
    Secret {
        /// The setting.
        setting: &'static str,
        /// The file.
        file: PathBuf,
        /// Why it cannot be used.
        source: SecretError,
    },
    /// The credentials file cannot be used.
    #[error("NATS_CREDS: cannot use {}: {source}", file.display())]
    Creds {
        /// The file.
        file: PathBuf,
        /// Why it cannot be used.
        source: NatsCredentialsError,
    },
    /// A certificate or a key cannot be used.
    #[error("NATS_CA, NATS_CERT, NATS_KEY: {0}")]
    Tls(#[from] CertificateError),
}

/// The NATS servers, and the options for connecting to them.
pub struct NatsServers {
    /// The addresses of the servers, without credentials.
    pub addresses: Vec<ServerAddr>,
    /// The options of the client, including TLS and authentication.
    pub options: ConnectOptions,
    failures: Arc<ConnectFailures>,
    /// A warning to log for the operator before connecting.
    pub warning: Option<&'static str>,
}

impl NatsServers {
    /// `host:port` of every server, comma-separated.
    pub fn names(&self) -> String {
        let names = self.addresses.iter();
        let names: Vec<_> = names
            .map(|server| format!("{}:{}", server.host(), server.port()))
            .collect();
        names.join(",")
    }

    /// Calls `report` with the cause after each failed round of connection attempts, except for the initial round of a client that does
    /// not retry the initial connection.
    #[must_use]
    pub fn on_failure(mut self, report: impl Fn(String) + Send + Sync + 'static) -> Self {
        let failures = self.failures.clone();
        // The client calls this before each round, with the errors of the previous one. `None` leaves the choice of the server to it.
        self.options = self.options.reconnect_to_server_callback(move |pool, _| {
            if let Some(line) = failures.new_ones(&pool) {
                report(line);
            }
            ready(None)
        });
        self
    }

    /// Connects, for a command.
    ///
    /// # Errors
    /// If no server accepts the connection, with the kind of the last error and the cause on one line.
    pub async fn connect(&self) -> Result<Client, (ConnectErrorKind, String)> {
        let options = self.options.clone();
        let connected = options.connect(self.addresses.clone()).await;
        connected.map_err(|error| {
            let cause = self.failures.describe(&self.names(), &error.to_string());
            (error.kind(), cause)
        })
    }

    /// Connects in the background, and again whenever the connection is lost: for a process, which starts while NATS is unreachable.
    ///
    /// # Errors
    /// If the client rejects its options.
    pub async fn connect_in_background(self) -> Result<Client, ConnectError> {
        self.options
            .retry_on_initial_connect()
            .connect(self.addresses)
            .await
    }
}

impl NatsSettings {
    /// Describes the security of the connection: `mutual TLS, user and password`.
    pub fn security(&self) -> String {
        let tls = match (self.tls(), &self.nats_cert) {
            (true, Some(_)) => "mutual TLS",
            (true, None) => "TLS",
            (false, _) => "TLS only if the server requires it",
        };
        let in_url = self.nats_url.login();
        let login = match (&self.nats_user, &self.nats_token, &self.nats_token_file) {
            (Some(_), ..) => "user and password",
            (None, Some(_), _) | (None, _, Some(_)) => "token",
            _ if in_url.is_some_and(|login| matches!(login, Login::Token(_))) => "token",
            _ if in_url.is_some() => "user and password",
            _ if self.nats_creds.is_some() => "credentials file",
            _ => "no login",
        };
        format!("{tls}, {login}")
    }

    /// Whether TLS is required.
    fn tls(&self) -> bool {
        self.nats_url.tls() || self.nats_ca.is_some() || self.nats_cert.is_some()
    }

    /// Reads the files, adds them to `watches` to be reloaded, and returns the servers and options for a client named `name`. Each
    /// connection uses the last valid content of the files at that time.
    ///
    /// # Errors
    /// If a file cannot be used, or settings conflict with each other.
    pub async fn servers(
        &self,
        name: &str,
        watches: &mut FileWatches,
    ) -> Result<NatsServers, NatsSettingsError> {
        let auth = self.auth(watches).await?;
        let tls = self.tls();
        let in_clear = auth.login.is_some() && !tls && !self.nats_url.are_local();
        let mut options = if auth.is_some() {
            // The callback replaces every other kind of authentication.
            ConnectOptions::with_auth_callback(move |nonce| ready(auth.answer(&nonce)))
        } else {
            ConnectOptions::new()
        };
        let delay = ReconnectDelay::default();
        options = options
            .name(name)
            .ping_interval(PING_INTERVAL)
            .custom_inbox_prefix(&self.nats_inbox_prefix)
            .reconnect_delay_callback(move |attempts| delay.before(attempts))
            .require_tls(tls);
        if let Some(files) = self.tls_files(watches).await? {
            options = options.tls_client_config(ClientTls::reloading_config(files)?);
        }
        Ok(NatsServers {
            addresses: self.nats_url.servers().to_vec(),
            options,
            failures: Arc::new(ConnectFailures {
                tls,
                certificate: self.nats_cert.is_some(),
                seen: Mutex::default(),
            }),
            warning: in_clear.then_some(
                "the credentials for NATS are sent unencrypted if its servers do not require TLS: use tls:// in NATS_URL, or set NATS_CA",
            ),
        })
    }

    async fn auth(&self, watches: &mut FileWatches) -> Result<NatsAuth, NatsSettingsError> {
        let mut auth = NatsAuth::default();
        if let Some(file) = self.nats_creds.clone() {
            let watcher = login::credentials(file).await?;
            auth.credentials = Some(watches.add("NATS_CREDS", watcher));
        }
        auth.login = self.login(watches).await?;
        match (self.nats_url.login(), &auth.login) {
            (Some(login), None) => auth.login = Some(LastGood::new(login.clone())),
            (Some(_), Some(_)) => {
                let user = self.nats_user.as_ref().map(|_| "NATS_USER");
                let token = self.nats_token.as_ref().map(|_| "NATS_TOKEN");
                let name = user.or(token).unwrap_or("NATS_TOKEN_FILE");
                return Err(NatsSettingsError::TwoLogins(name));
            }
            (None, _) => {}
        }
        Ok(auth)
    }

    /// Returns the user and password or the token in the settings other than the URL.
    async fn login(
        &self,
        watches: &mut FileWatches,
    ) -> Result<Option<LastGood<Login>>, NatsSettingsError> {
        let login = match (&self.nats_user, &self.nats_password, &self.nats_token) {
            (Some(user), Some(password), _) => LastGood::new(Login::Password {
                user: user.clone(),
                password: password.clone(),
            }),
            (Some(user), None, _) => {
                let file = self.nats_password_file.clone();
                let file = file.ok_or(NatsSettingsError::NoPassword)?;
                let user = user.clone();
                let login = move |password| Login::Password {
                    user: user.clone(),
                    password,
                };
                let watcher = login::secret("NATS_PASSWORD_FILE", file, login).await?;
                watches.add("NATS_PASSWORD_FILE", watcher)
            }
            (None, _, Some(token)) => LastGood::new(Login::Token(token.clone())),
            (None, _, None) => {
                let Some(file) = self.nats_token_file.clone() else {
                    return Ok(None);
                };
                let watcher = login::secret("NATS_TOKEN_FILE", file, Login::Token).await?;
                watches.add("NATS_TOKEN_FILE", watcher)
            }
        };
        Ok(Some(login))
    }

    async fn tls_files(
        &self,
        watches: &mut FileWatches,
    ) -> Result<Option<LastGood<ClientTls>>, NatsSettingsError> {
        let named = |setting, path| NamedFile { setting, path };
        let ca = self.nats_ca.clone().map(|ca| named("NATS_CA", ca));
        let cert = self.nats_cert.clone();
        let cert = cert.map(|cert| named("NATS_CERT", cert));
        let identity = cert.zip(self.nats_key.clone());
        Ok(ClientTls::watch(ca, identity, &[], watches).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_name_has_no_special_characters_of_nats() {
        assert!(consumer_name("archive-2_b").is_ok());
        for bad in ["", "a.b", "a*", ">", "a b", "ä"] {
            assert!(consumer_name(bad).is_err(), "{bad}");
        }
    }
}
