//! The client: one thread, connections that are kept alive, requests prepared beforehand, and every response compared with the
//! expected one. See "The client" in `bench/README.md` for why it is not one of the well-known tools.

mod client;
mod question;

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::Future,
    net::SocketAddr,
    num::NonZeroU64,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use rustix::thread::set_current_timer_slack;
use tokio::{
    sync::{
        Mutex,
        mpsc::{UnboundedReceiver, unbounded_channel},
    },
    task::spawn_local,
    time::sleep,
};

use self::client::Stream;
pub(crate) use self::{
    client::Connection,
    question::{Expected, Question},
};

/// open-im-server has at most so many connections to one URL.
const MAX_CONNECTIONS: usize = 100;

/// For how long requests are sent before they count.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long the last requests of an open loop may wait for a client. Then they count with the age they have.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How late a request of a flood may be sent: it is late only where no stream is free.
const LATE: Duration = Duration::from_millis(5);

/// Requests of an open loop are due at moments that are at least this far apart, several at one where they come closer: a thread
/// that wakes for each of twelve thousand a second takes more CPU than a gateway, so that the client measured its own wake-ups.
const GRID: Duration = Duration::from_micros(500);

/// How requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    /// Whether clients are streams of HTTP/2, spread over as many connections as open-im-server has at most, or connections of HTTP/1.1.
    pub(crate) http2: bool,
    pub(crate) clients: usize,
    /// Requests a second of an open loop. Without it the loop is closed: each client sends its next request as soon as it has a
    /// response.
    ///
    /// Over HTTP/1.1 requests that are due while no client is free wait for one, and latencies run from the moment at which they were
    /// due, so that a stall is felt by all who would have asked meanwhile. Over HTTP/2 they are not sent, then or later, and latencies
    /// run from the write: in an overload the client's queue would only grow, whatever the gateway does.
    pub(crate) rate: Option<f64>,
}

impl Load {
    pub(crate) fn closed(clients: usize) -> Self {
        Self {
            http2: false,
            clients,
            rate: None,
        }
    }

    pub(crate) fn paced(rate: f64) -> Self {
        Self {
            rate: Some(rate),
            ..Self::closed(MAX_CONNECTIONS)
        }
    }

    /// Whether it is an open loop without a queue.
    pub(crate) fn is_flood(&self) -> bool {
        self.http2 && self.rate.is_some()
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rate {
            Some(rate) => write!(f, "paced, {rate:.0}/s"),
            None if self.http2 => write!(f, "{} streams", self.clients),
            None => write!(f, "{} connections", self.clients),
        }
    }
}

/// How a response compares with the expected one. One that is neither ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Right,
    /// Refused with a code from 5910 to 5919: without the policy's verdict.
    Fallback,
}

/// What came of a load.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Of the right responses.
    pub(crate) latencies: Vec<Duration>,
    pub(crate) fallbacks: u64,
    /// Requests of a flood that were not sent, for want of a free stream.
    pub(crate) unsent: u64,
    /// Requests that were lost with their HTTP/2 connection, which is not opened again.
    pub(crate) lost: u64,
}

struct Shared {
    load: Load,
    question: Question,
    /// Of the next request.
    number: Cell<u64>,
    /// From when on responses count, or in an open loop requests, and until when.
    begin: Cell<Option<Instant>>,
    end: Cell<Option<Instant>>,
    /// When the requests of an open loop are due.
    due: Option<Mutex<UnboundedReceiver<Instant>>>,
    answers: RefCell<Answers>,
}

enum Client {
    Http1(Connection),
    Http2(Stream),
}

/// Sends requests for as long as `event` takes, which begins after a warm-up, and returns what came of it with what `look` returned at
/// the beginning and at the end. A flood has no warm-up, and its end is that of the last response. An error where any response was
/// wrong. Must be called inside a `LocalSet`.
pub(crate) async fn run<T>(
    address: SocketAddr,
    question: Question,
    load: Load,
    event: impl Future<Output = anyhow::Result<()>>,
    look: impl Fn() -> anyhow::Result<T>,
) -> anyhow::Result<(Answers, T, T)> {
    let mut clients = Vec::new();
    if load.http2 {
        let streams = Stream::open(address, load.clients, MAX_CONNECTIONS).await?;
        clients.extend(streams.into_iter().map(Client::Http2));
    }
    while clients.len() < load.clients {
        clients.push(Client::Http1(Connection::open(address, &question).await?));
    }
    let shared = Rc::new(Shared {
        load,
        question,
        number: Cell::default(),
        begin: Cell::default(),
        end: Cell::default(),
        due: load.rate.map(|rate| Mutex::new(beat(rate))),
        answers: RefCell::default(),
    });
    let ask = |client| spawn_local(Rc::clone(&shared).ask_on(client));
    let tasks: Vec<_> = clients.into_iter().map(ask).collect();
    if !load.is_flood() {
        sleep(WARM_UP).await;
    }
    let before = look()?;
    shared.begin.set(Some(Instant::now()));
    let event = event.await;
    shared.end.set(Some(Instant::now()));
    let mut after = look()?;
    for task in tasks {
        task.await??;
    }
    if load.is_flood() {
        after = look()?;
    }
    event?;
    Ok((shared.answers.take(), before, after))
}

impl Shared {
    /// Waits until a client is to send a request, and returns the moment from which its latency runs; none at the end.
    async fn next(&self) -> Option<Instant> {
        let Some(due) = &self.due else {
            return self.end.get().is_none().then(Instant::now);
        };
        loop {
            // Clients take turns.
            let mut moments = due.lock().await;
            let due = moments.recv().await?;
            match self.end.get() {
                Some(end) if due > end => moments.close(),
                _ if self.load.is_flood() && due.elapsed() < LATE => return Some(Instant::now()),
                _ if self.load.is_flood() => self.answers.borrow_mut().unsent += 1,
                Some(end) if end.elapsed() > TIMEOUT => self.count(due, Reading::Right),
                _ => return Some(due),
            }
        }
    }

    /// Counts a response to a request of such a moment.
    fn count(&self, from: Instant, reading: Reading) {
        let (Some(begin), took) = (self.begin.get(), from.elapsed()) else {
            return;
        };
        // In a closed loop what is answered within the time counts, in an open one what was due within it.
        if self.due.is_some() && from < begin || self.due.is_none() && self.end.get().is_some() {
            return;
        }
        let mut answers = self.answers.borrow_mut();
        match reading {
            Reading::Right => answers.latencies.push(took),
            Reading::Fallback => answers.fallbacks += 1,
        }
    }

    async fn ask_on(self: Rc<Self>, mut client: Client) -> anyhow::Result<()> {
        while let Some(from) = self.next().await {
            let number = self.number.replace(self.number.get() + 1);
            let asked = match &mut client {
                Client::Http1(connection) => connection.ask(&self.question, number).await,
                Client::Http2(stream) => stream.ask(&self.question, number).await,
            };
            match asked {
                Ok(reading) => self.count(from, reading),
                Err(error) if error.is::<h2::Error>() => {
                    self.answers.borrow_mut().lost += 1;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Sends the moments of an even beat of `rate` a second as they come, until the receiver is dropped. On a thread of its own: tokio's
/// timers fire at whole milliseconds.
fn beat(rate: f64) -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    let start = Instant::now();
    thread::spawn(move || {
        // The kernel may wake a sleeper 50 µs late; where it doesn't allow less, all systems are measured with later wake-ups.
        let _ = set_current_timer_slack(Some(NonZeroU64::MIN));
        for number in 0_u32.. {
            let slot = f64::from(number) / rate / GRID.as_secs_f64();
            let due = start + GRID.mul_f64(slot.ceil());
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                thread::sleep(wait);
            }
            if sender.send(due).is_err() {
                return;
            }
        }
    });
    receiver
}
