//! The address of NATS and the credentials: for the recorder, and for every other client of the operator's NATS.

use std::{fmt, fs, future::ready, io, path::PathBuf, str::FromStr};

use async_nats::{Auth, AuthError, ConnectOptions, ServerAddr};
use clap::Args;
use importguard_runtime::{FileWatcher, LastGood, Snapshot};
use nkeys::KeyPair;

/// NATS and the credentials for it.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "NATS")]
pub struct NatsSettings {
    /// URLs of the NATS servers, comma-separated: nats://host:port, or tls:// for TLS. Credentials go before the first host, as
    /// user:password@ or token@
    #[arg(
        long,
        env = "NATS_URL",
        value_name = "URL,…",
        value_delimiter = ',',
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    pub nats_url: Vec<NatsUrl>,

    /// NATS credentials file (JWT and NKey seed), as written by `nsc`
    #[arg(long, env = "NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,

    /// PEM file with the CA certificates to verify NATS servers with [default: the system's]
    #[arg(long, env = "NATS_CA", value_name = "FILE")]
    pub nats_ca: Option<PathBuf>,

    /// PEM file with the client certificate for NATS
    #[arg(long, env = "NATS_CERT", value_name = "FILE", requires = "nats_key")]
    pub nats_cert: Option<PathBuf>,

    /// PEM file with the private key of that certificate
    #[arg(long, env = "NATS_KEY", value_name = "FILE", requires = "nats_cert")]
    pub nats_key: Option<PathBuf>,
}

/// The address of a NATS server, as it was given. Shown without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsUrl(String);

impl NatsUrl {
    /// With user and password.
    fn as_given(&self) -> &str {
        self.0.trim()
    }
}

impl<T: Into<String>> From<T> for NatsUrl {
    fn from(url: T) -> Self {
        Self(url.into())
    }
}

impl fmt::Debug for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NatsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.as_given();
        match url.rsplit_once('@') {
            Some((_, host)) => write!(f, "…@{host}"),
            None => f.write_str(url),
        }
    }
}

/// Settings that no connection can be made with.
#[derive(Debug, thiserror::Error)]
pub enum NatsSettingsError {
    /// An address can't be read.
    #[error(
        "NATS_URL: {url} is no address of a NATS server: {source}; nats://host:4222 would be one"
    )]
    Url {
        /// The address.
        url: NatsUrl,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The credentials can't be read.
    #[error("NATS_CREDS: can't use {}: {source}", file.display())]
    Creds {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
}

/// A user of NATS, from a credentials file: a JWT, and the key that it is about.
pub struct NatsCredentials {
    jwt: String,
    key: KeyPair,
}

impl NatsCredentials {
    /// What answers the server's `nonce`.
    fn auth(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        auth.jwt = Some(self.jwt.clone());
        auth.signature = Some(self.key.sign(nonce).map_err(AuthError::new)?);
        Ok(auth)
    }
}

impl FromStr for NatsCredentials {
    type Err = io::Error;

    /// Reads the first two blocks between lines of dashes.
    fn from_str(text: &str) -> Result<Self, io::Error> {
        let mut lines = text.lines().map(str::trim);
        let mut block = |what: &str| {
            lines.find(|line| line.starts_with("---") && line.contains("BEGIN"));
            let content = lines.next().filter(|line| !line.starts_with("---"));
            content.ok_or_else(|| invalid(format!("it holds no {what}")))
        };
        let jwt = block("user JWT")?.to_owned();
        let key = KeyPair::from_seed(block("nkey seed")?);
        let key = key.map_err(|error| invalid(format!("its nkey seed is invalid: {error}")))?;
        Ok(Self { jwt, key })
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// NATS servers, and how to be let in there.
pub struct NatsServers {
    /// What to connect to.
    pub addresses: Vec<ServerAddr>,
    /// What to connect with.
    pub options: ConnectOptions,
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
}

impl NatsSettings {
    /// Reads the credentials file, if there is one.
    ///
    /// # Errors
    /// If there are no credentials in it.
    pub async fn credentials(
        &self,
    ) -> Result<Option<FileWatcher<NatsCredentials, NatsSettingsError>>, NatsSettingsError> {
        let Some(file) = self.nats_creds.clone() else {
            return Ok(None);
        };
        let read = move || {
            Snapshot::take(std::slice::from_ref(&file), || {
                let credentials = fs::read_to_string(&file).and_then(|text| text.parse());
                credentials.map_err(|source| NatsSettingsError::Creds {
                    file: file.clone(),
                    source,
                })
            })
        };
        FileWatcher::open(read).await.map(Some)
    }

    /// What these settings say, ready for a client that calls itself `name`. Each connection is made with the `credentials` of its
    /// time.
    ///
    /// # Errors
    /// If an address is invalid.
    pub fn servers(
        &self,
        name: &str,
        credentials: Option<LastGood<NatsCredentials>>,
    ) -> Result<NatsServers, NatsSettingsError> {
        let addresses = self
            .nats_url
            .iter()
            .map(|url| {
                ServerAddr::from_str(url.as_given()).map_err(|source| NatsSettingsError::Url {
                    url: url.clone(),
                    source,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        // async-nats itself passes over what a URL says about user and password.
        let login = addresses.iter().find_map(|server| {
            let user = server.username()?.to_owned();
            Some((user, server.password().map(str::to_owned)))
        });
        let options = match (credentials, login) {
            (None, None) => ConnectOptions::new(),
            (None, Some((user, Some(password)))) => {
                ConnectOptions::with_user_and_password(user, password)
            }
            (None, Some((token, None))) => ConnectOptions::with_token(token),
            // A callback replaces all other authentication, and an auth callout may want both.
            (Some(credentials), login) => ConnectOptions::with_auth_callback(move |nonce| {
                let mut auth = credentials.load().auth(&nonce);
                if let (Ok(auth), Some((user, password))) = (&mut auth, login.clone()) {
                    match password {
                        Some(password) => {
                            auth.username = Some(user);
                            auth.password = Some(password);
                        }
                        None => auth.token = Some(user),
                    }
                }
                ready(auth)
            }),
        };
        let mut options = options.name(name);
        if let Some(file) = &self.nats_ca {
            options = options.add_root_certificates(file.clone());
        }
        if let (Some(cert), Some(key)) = (&self.nats_cert, &self.nats_key) {
            options = options.add_client_certificate(cert.clone(), key.clone());
        }
        Ok(NatsServers { addresses, options })
    }
}

impl Default for NatsSettings {
    /// The documented defaults, whatever the environment says.
    fn default() -> Self {
        Self {
            nats_url: vec![NatsUrl::from("nats://127.0.0.1:4222")],
            nats_creds: None,
            nats_ca: None,
            nats_cert: None,
            nats_key: None,
        }
    }
}
