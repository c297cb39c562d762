use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tempfile::TempDir;

use crate::{Process, SOON, eventually, free_port, kubernetes::copy};

/// A nats-server with JetStream, on a port and with a store of its own.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Process>,
    program: PathBuf,
    port: u16,
    dir: TempDir,
    store: PathBuf,
    config: Option<PathBuf>,
    variables: Vec<(&'static str, String)>,
}

impl NatsServer {
    /// The program, for a server that needs a configuration of its own.
    pub fn program() -> &'static Path {
        binary()
    }

    /// The program of a server that knows `sync_interval: always`: what `NATS_SERVER_CURRENT` names, or [`Self::program`] if that is
    /// new enough. If there is none and `TESTS_REQUIRE` lists `nats-server-current`, panics.
    pub fn current() -> Option<PathBuf> {
        let named = env::var_os("NATS_SERVER_CURRENT");
        let program = named.map_or_else(|| Self::program().to_owned(), PathBuf::from);
        let current = (version(&program) >= SYNC_ALWAYS).then_some(program);
        assert!(
            current.is_some() || !crate::tools::is_required("nats-server-current"),
            "no current nats-server is installed (NATS_SERVER_CURRENT can name it)"
        );
        current
    }

    /// Starts a server.
    pub async fn start() -> Self {
        let mut server = Self::not_started();
        server.restart().await;
        server
    }

    /// A server that is only started by [`restart`](Self::restart).
    pub fn not_started() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        Self {
            process: None,
            program: binary().to_owned(),
            port: free_port(),
            store: dir.path().join("store"),
            dir,
            config: None,
            variables: Vec::new(),
        }
    }

    /// A server of the version that tests run with, and one of the [current](Self::current) version if that is another; not started.
    pub fn of_each_version() -> Vec<Self> {
        let program = Self::program().to_owned();
        let current = Self::current().filter(|current| *current != program);
        let programs = [program].into_iter().chain(current);
        let server = |program| Self {
            program,
            ..Self::not_started()
        };
        programs.map(server).collect()
    }

    /// The nats-server `program` on the directory `store`, started as the command that `wrap` makes of its own. `jetstream` is
    /// the content of that block of its configuration.
    pub async fn on(
        program: &Path,
        store: &Path,
        jetstream: &str,
        wrap: impl FnOnce(Command) -> Command,
    ) -> Self {
        let mut server = Self::not_started();
        server.program = program.to_owned();
        server.store = store.to_owned();
        server.config = Some(server.write_config(&format!("jetstream {{ {jetstream} }}\n")));
        server.launch_under(&server.url(), wrap).await;
        server
    }

    /// Starts a server with the configuration `text`.
    pub async fn with_config(text: &str) -> Self {
        let mut server = Self::not_started();
        server.config = Some(server.write_config(text));
        server.restart().await;
        server
    }

    /// Starts a server with the configuration `file`, which reads `variables` from its environment, and waits until it responds to
    /// `user`, given as `name:password`. `sync_interval: always` is left out for a server that does not know it.
    pub async fn configured(file: PathBuf, variables: &[(&'static str, &str)], user: &str) -> Self {
        let mut server = Self::not_started();
        let text = fs::read_to_string(&file).expect("the configuration can be read");
        let without = text.replace("sync_interval: always", "");
        server.config = Some(
            if without != text && version(&server.program) < SYNC_ALWAYS {
                server.write_config(&without)
            } else {
                file
            },
        );
        let owned = |(name, value): &(&'static str, &str)| (*name, (*value).to_owned());
        server.variables = variables.iter().map(owned).collect();
        server.launch(&server.url_for(user)).await;
        server
    }

    /// For `NATS_URL`, as `user`, which is `name:password`.
    pub fn url_for(&self, user: &str) -> String {
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

    /// Starts it on its port and its store, after [`kill9`](Self::kill9) or [`not_started`](Self::not_started).
    pub async fn restart(&mut self) {
        self.launch(&self.url()).await;
    }

    fn write_config(&self, text: &str) -> PathBuf {
        let file = self.dir.path().join("nats.conf");
        fs::write(&file, text).expect("the configuration can be written");
        file
    }

    async fn launch(&mut self, url: &str) {
        self.launch_under(url, |command| command).await;
    }

    async fn launch_under(&mut self, url: &str, wrap: impl FnOnce(Command) -> Command) {
        assert!(self.process.is_none(), "nats-server already runs");
        let mut command = Command::new(&self.program);
        command
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--jetstream")
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        let store = &self.store;
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
        let process = self.process.insert(Process::spawn(
            "nats-server",
            wrap(command),
            self.dir.path(),
        ));
        eventually("nats-server answers", SOON, async || {
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

    /// A copy of the store of a server that does not run.
    pub fn back_up(&self) -> TempDir {
        assert!(self.process.is_none(), "nats-server runs");
        let backup = TempDir::new().expect("a temporary directory");
        copy(&self.store, backup.path());
        backup
    }

    /// Replaces the store of a server that does not run.
    pub fn restore(&self, backup: &TempDir) {
        assert!(self.process.is_none(), "nats-server runs");
        fs::remove_dir_all(&self.store).expect("the store can be removed");
        copy(backup.path(), &self.store);
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

    /// Replaces its configuration, and waits until it has read it.
    pub async fn reconfigure(&self, text: &str) {
        let file = self.config.as_ref().expect("it has a configuration");
        fs::write(file, text).expect("the configuration can be written");
        self.reload().await;
    }

    /// Has it read its configuration again, and waits until it has.
    pub async fn reload(&self) {
        let process = self.process.as_ref().expect("nats-server runs");
        let reloads = || process.stderr().matches("Reloaded server config").count();
        let before = reloads();
        process.sighup();
        eventually("nats-server reloads", SOON, async || match reloads() {
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

/// The first version of nats-server that knows `sync_interval: always`.
const SYNC_ALWAYS: (u32, u32) = (2, 10);

/// Major and minor of `program`, which prints `nats-server: v2.9.10`.
fn version(program: &Path) -> (u32, u32) {
    let output = Command::new(program).arg("--version").output();
    let output = output.expect("nats-server can be started").stdout;
    let text = String::from_utf8_lossy(&output);
    let mut numbers = text
        .trim()
        .rsplit('v')
        .next()
        .into_iter()
        .flat_map(|version| version.split('.'))
        .map_while(|number| number.parse().ok());
    let mut next = || numbers.next().expect("a version such as v2.9.10");
    (next(), next())
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
