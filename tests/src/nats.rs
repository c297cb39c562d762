use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::Duration,
};

use tempfile::TempDir;

use crate::{Process, eventually, free_port};

const START: Duration = Duration::from_secs(20);

/// A nats-server with JetStream, on a port and with a store of its own.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Process>,
    port: u16,
    dir: TempDir,
    config: Option<PathBuf>,
    variables: Vec<(&'static str, String)>,
}

impl NatsServer {
    /// The program, for a server that needs a configuration of its own.
    pub fn program() -> &'static Path {
        binary()
    }

    /// Starts a server.
    pub async fn start() -> Self {
        let mut server = Self::later();
        server.restart().await;
        server
    }

    /// A server with a port that starts only at [`restart`](Self::restart).
    pub fn later() -> Self {
        Self {
            process: None,
            port: free_port(),
            dir: TempDir::new().expect("a temporary directory"),
            config: None,
            variables: Vec::new(),
        }
    }

    /// Starts a server with the configuration `file`, which reads `variables` from its environment, and waits until it responds to
    /// `user`, given as `name:password`.
    pub async fn configured(file: PathBuf, variables: &[(&'static str, &str)], user: &str) -> Self {
        let mut server = Self::later();
        server.config = Some(file);
        let owned = |(name, value): &(&'static str, &str)| (*name, (*value).to_owned());
        server.variables = variables.iter().map(owned).collect();
        server.launch(&server.url_of(user)).await;
        server
    }

    /// For `NATS_URL`, as `user`, which is `name:password`.
    pub fn url_of(&self, user: &str) -> String {
        format!("nats://{user}@127.0.0.1:{}", self.port)
    }

    /// `host:port` it listens on.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// For `NATS_URL`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it on its port and its store, after [`kill9`](Self::kill9) or [`later`](Self::later).
    pub async fn restart(&mut self) {
        self.launch(&self.url()).await;
    }

    async fn launch(&mut self, url: &str) {
        assert!(self.process.is_none(), "nats-server already runs");
        let mut command = Command::new(binary());
        command
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--jetstream")
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        let store = self.dir.path().join("store");
        let mut names_store = false;
        if let Some(file) = &self.config {
            command.arg("--config").arg(file);
            // Only such a configuration can be reloaded, and then the option may not be given beside it.
            let text = fs::read_to_string(file).expect("the configuration can be read");
            names_store = text.contains("$STORE_DIR");
        }
        if names_store {
            command.env("STORE_DIR", store);
        } else {
            command.arg("--store_dir").arg(store);
        }
        let process = self
            .process
            .insert(Process::spawn("nats-server", command, self.dir.path()));
        eventually("nats-server answers", START, async || {
            assert_eq!(process.ended(), None, "nats-server gave up");
            // It opens its port only when JetStream has read its store.
            let address: async_nats::ServerAddr = url.parse()?;
            let (user, password) = (address.username(), address.password());
            let options = async_nats::ConnectOptions::new();
            let options = match (user, password) {
                (Some(user), Some(password)) => {
                    options.user_and_password(user.to_owned(), password.to_owned())
                }
                _ => options,
            };
            options.connect(address).await?;
            anyhow::Ok(())
        })
        .await;
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&mut self) {
        self.process.take().expect("nats-server runs").kill9();
    }

    /// Sends SIGSTOP: connections stay open without responses.
    pub async fn freeze(&self) {
        self.process
            .as_ref()
            .expect("nats-server runs")
            .freeze()
            .await;
    }

    /// Sends SIGCONT.
    pub fn thaw(&self) {
        self.process.as_ref().expect("nats-server runs").thaw();
    }

    /// Has it read its configuration again, and waits until it has.
    pub async fn reload(&self) {
        let process = self.process.as_ref().expect("nats-server runs");
        let reloads = || process.stderr().matches("Reloaded server config").count();
        let before = reloads();
        process.sighup();
        eventually("nats-server reloads", START, async || match reloads() {
            now if now > before => Ok(()),
            _ => Err(process.stderr()),
        })
        .await;
    }

    /// A connection to it.
    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url())
            .await
            .expect("nats-server lets us in")
    }
}

fn binary() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(path) = env::var_os("NATS_SERVER") {
            return path.into();
        }
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/usr/local/bin".into()])
            .map(|dir| dir.join("nats-server"))
            .find(|file| file.is_file())
            .expect("install nats-server (Debian: `apt-get install nats-server`) or name its binary in NATS_SERVER")
    })
}
