use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::{NatsServer, Process, SOON, eventually, free_port};

const SERVERS: usize = 3;

/// Three nats-servers with JetStream that form a cluster, each with a store of its own.
#[derive(Debug)]
pub struct NatsCluster {
    program: PathBuf,
    processes: Vec<Option<Process>>,
    ports: Vec<u16>,
    dir: TempDir,
}

impl NatsCluster {
    /// Starts three servers, without waiting for the election of a leader.
    pub async fn start() -> Self {
        Self::of(NatsServer::program()).await
    }

    /// The same with the nats-server `program`.
    pub async fn of(program: &Path) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let ports: Vec<u16> = (0..SERVERS).map(|_| free_port()).collect();
        let routes: Vec<u16> = (0..SERVERS).map(|_| free_port()).collect();
        let all: Vec<_> = routes
            .iter()
            .map(|port| format!("nats://127.0.0.1:{port}"))
            .collect();
        for (number, (port, route)) in ports.iter().zip(&routes).enumerate() {
            let store = dir.path().join(format!("store-{number}"));
            let config = format!(
                "server_name: n{number}\nlisten: 127.0.0.1:{port}\njetstream {{ store_dir: {store:?} }}\n\
                 cluster {{ name: c, listen: 127.0.0.1:{route}, routes: [{}] }}\n",
                all.join(", ")
            );
            fs::write(dir.path().join(format!("n{number}.conf")), config).unwrap();
        }
        let mut cluster = Self {
            program: program.to_owned(),
            processes: (0..SERVERS).map(|_| None).collect(),
            ports,
            dir,
        };
        for number in 0..SERVERS {
            cluster.spawn(number);
        }
        for number in 0..SERVERS {
            cluster.answers(number).await;
        }
        cluster
    }

    /// All of them, for `NATS_URL`.
    pub fn urls(&self) -> String {
        let urls: Vec<_> = (0..SERVERS).map(|number| self.url(number)).collect();
        urls.join(",")
    }

    /// The number of servers.
    pub fn size(&self) -> usize {
        SERVERS
    }

    /// Kills the server `number` with SIGKILL.
    pub fn kill9(&mut self, number: usize) {
        self.processes[number].take().expect("it runs").kill9();
    }

    /// Starts the server `number` again, on its port and its store.
    pub async fn restart(&mut self, number: usize) {
        self.spawn(number);
        self.answers(number).await;
    }

    /// Sends SIGSTOP to the server `number`: its connections stay open without responses.
    pub async fn freeze(&self, number: usize) {
        self.process(number).freeze().await;
    }

    /// Sends SIGCONT to the server `number`.
    pub fn thaw(&self, number: usize) {
        self.process(number).thaw();
    }

    fn process(&self, number: usize) -> &Process {
        self.processes[number].as_ref().expect("it runs")
    }

    /// A connection to any running server.
    pub async fn client(&self) -> async_nats::Client {
        let urls = (0..SERVERS).map(|number| self.url(number).parse::<async_nats::ServerAddr>());
        async_nats::connect(urls.collect::<Result<Vec<_>, _>>().unwrap())
            .await
            .expect("a nats-server lets us in")
    }

    /// The server `number`, which is named `n` and that number, for `NATS_URL`.
    pub fn url(&self, number: usize) -> String {
        format!("nats://127.0.0.1:{}", self.ports[number])
    }

    fn spawn(&mut self, number: usize) {
        assert!(self.processes[number].is_none(), "n{number} already runs");
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.dir.path().join(format!("n{number}.conf")));
        let name = format!("nats-server-{number}");
        self.processes[number] = Some(Process::spawn(&name, command, self.dir.path()));
    }

    async fn answers(&self, number: usize) {
        let address = ("127.0.0.1", self.ports[number]);
        eventually("nats-server answers", SOON, async || {
            // It greets with INFO {…}.
            let mut greeting = [0; 4];
            let mut connection = TcpStream::connect(address).await?;
            connection.read_exact(&mut greeting).await.map(drop)
        })
        .await;
    }
}
