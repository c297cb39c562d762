use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    net::SocketAddr,
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, mpsc::UnboundedReceiver},
    task::spawn_local,
    time::sleep,
};

use super::{Connection, Question, Reading, Tally, beat::beat};

/// open-im-server has at most so many connections to one URL.
const CONNECTIONS: usize = 100;

/// How long questions are put before it counts.
const WARMING_UP: Duration = Duration::from_millis(500);

/// How long the last answers are waited for. What is then unanswered counts with the age it has.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether they have come.
const GLANCE: Duration = Duration::from_millis(5);

struct Load {
    question: Question,
    /// Questions that should have been put, by the moment at which they should have been.
    due: RefCell<VecDeque<Instant>>,
    waiting: Semaphore,
    counted_from: Instant,
    number: Cell<u64>,
    tally: RefCell<Tally>,
}

/// An open loop: `rate` questions a second, evenly, whether or not the ones before are answered. `begin` and `end` are called around
/// what is tallied, which is what is due for as long as `measured` takes. Latencies run from the moment at which a question was
/// due, so that a stall is felt by all who would have asked meanwhile. Must be called inside a `LocalSet`.
pub(crate) async fn paced<B, E>(
    address: SocketAddr,
    question: &Question,
    rate: f64,
    measured: impl Future<Output = anyhow::Result<()>>,
    begin: impl FnOnce() -> anyhow::Result<B>,
    end: impl FnOnce(B) -> anyhow::Result<E>,
) -> anyhow::Result<(Tally, E)> {
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        connections.push(Connection::open(address, question).await?);
    }
    let start = Instant::now();
    let load = Rc::new(Load {
        question: question.clone(),
        due: RefCell::default(),
        waiting: Semaphore::new(0),
        counted_from: start + WARMING_UP,
        number: Cell::new(0),
        tally: RefCell::default(),
    });
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|connection| spawn_local(ask_on(Rc::clone(&load), connection)))
        .collect();
    let mut beat = beat(rate, start);
    load.put(&mut beat, sleep(WARMING_UP)).await;
    let begun = begin()?;
    let measured = load.put(&mut beat, measured).await;
    drop(beat);
    let ended = end(begun)?;
    let patient_until = Instant::now() + PATIENCE;
    while !load.due.borrow().is_empty() && Instant::now() < patient_until {
        sleep(GLANCE).await;
    }
    // What is under way ends with its task.
    load.waiting.close();
    for task in tasks {
        task.await??;
    }
    measured?;
    let mut tally = load.tally.take();
    for due in load.due.take() {
        tally.add(Reading::Right, due.elapsed());
    }
    Ok((tally, ended))
}

impl Load {
    /// Has somebody put each question when it is due, until `end`.
    async fn put<T>(
        &self,
        beat: &mut UnboundedReceiver<Instant>,
        end: impl Future<Output = T>,
    ) -> T {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                biased;
                ended = &mut end => return ended,
                Some(due) = beat.recv() => {
                    self.due.borrow_mut().push_back(due);
                    self.waiting.add_permits(1);
                }
            }
        }
    }
}

async fn ask_on(load: Rc<Load>, mut connection: Connection) -> anyhow::Result<()> {
    while let Ok(permit) = load.waiting.acquire().await {
        permit.forget();
        let Some(due) = load.due.borrow_mut().pop_front() else {
            continue;
        };
        let number = load.number.get();
        load.number.set(number + 1);
        let reading = connection.ask(&load.question, number).await?;
        if due >= load.counted_from {
            load.tally.borrow_mut().add(reading, due.elapsed());
        }
    }
    Ok(())
}
