use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Semaphore,
    task::spawn_local,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{Question, Tally, streams::Stream};

/// How often questions are put, all that have become due at once. In an overload there is always one in the queue, so that it
/// makes no difference whether they come evenly; a thread that wakes for each would cost the machine more than they do.
const TICK: Duration = Duration::from_millis(1);

/// Questions over HTTP/2, with many at once on a connection.
#[derive(Debug)]
pub(crate) struct Flood {
    /// How many may be open at once, over as few connections as that takes.
    pub(crate) streams: usize,
    /// Questions a second, more than are answered; if none, each stream asks again as soon as it is answered.
    pub(crate) rate: Option<f64>,
    pub(crate) length: Duration,
}

struct Load {
    question: Question,
    /// A permit for each question that is to be put.
    waiting: Semaphore,
    /// Whether each answer brings the next question.
    closed: bool,
    /// Questions that were lost with their connection.
    lost: Cell<u64>,
    /// Streams without a question.
    free: Cell<usize>,
    number: Cell<u64>,
    tally: RefCell<Tally>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Flooded<E> {
    pub(crate) tally: Tally,
    /// Questions that were due while all streams waited for an answer, and not put for that.
    pub(crate) unput: u64,
    /// Questions that were lost with their connection.
    pub(crate) lost: u64,
    /// When the last questions were put.
    pub(crate) over: Instant,
    pub(crate) spent: E,
}

/// An open loop without a memory: questions that are due while all streams wait for an answer are not put later either, so
/// that the flood is over when it is over. Latencies run from the moment at which a question was written. `begin` and `end` are
/// called before the first question and after the last answer. Must be called inside a `LocalSet`.
pub(crate) async fn flood<B, E>(
    address: SocketAddr,
    question: &Question,
    flood: &Flood,
    begin: impl FnOnce() -> anyhow::Result<B>,
    end: impl FnOnce(B) -> anyhow::Result<E>,
) -> anyhow::Result<Flooded<E>> {
    let load = Rc::new(Load {
        question: question.clone(),
        waiting: Semaphore::new(0),
        closed: flood.rate.is_none(),
        lost: Cell::new(0),
        free: Cell::new(flood.streams),
        number: Cell::new(0),
        tally: RefCell::default(),
    });
    let streams = Stream::open(address, flood.streams).await?;
    let ask = |stream| spawn_local(ask_on(Rc::clone(&load), stream));
    let tasks: Vec<_> = streams.into_iter().map(ask).collect();
    let begun = begin()?;
    let unput = match flood.rate {
        Some(rate) => load.put(rate, flood.length).await,
        None => {
            load.waiting.add_permits(flood.streams);
            sleep(flood.length).await;
            0
        }
    };
    let over = Instant::now();
    // What is under way ends with its task.
    load.waiting.close();
    for task in tasks {
        task.await??;
    }
    Ok(Flooded {
        spent: end(begun)?,
        tally: load.tally.take(),
        unput,
        lost: load.lost.get(),
        over,
    })
}

impl Load {
    /// Has questions put for `length`, and returns how many were not, for want of a free stream.
    async fn put(&self, rate: f64, length: Duration) -> u64 {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (start, mut due, mut unput) = (Instant::now(), 0, 0);
        while start.elapsed() < length {
            tick.tick().await;
            let now_due = (start.elapsed().min(length).as_secs_f64() * rate) as usize;
            let put = (now_due - due).min(self.free.get());
            unput += (now_due - due - put) as u64;
            due = now_due;
            self.free.set(self.free.get() - put);
            self.waiting.add_permits(put);
        }
        unput
    }
}

async fn ask_on(load: Rc<Load>, mut stream: Stream) -> anyhow::Result<()> {
    while let Ok(permit) = load.waiting.acquire().await {
        permit.forget();
        let number = load.number.get();
        load.number.set(number + 1);
        let written = Instant::now();
        let reading = match stream.ask(&load.question, number).await {
            // The connection was closed, with all that was open on it; it is not opened again.
            Err(error) if error.is::<h2::Error>() => {
                load.lost.set(load.lost.get() + 1);
                return Ok(());
            }
            reading => reading?,
        };
        load.tally.borrow_mut().add(reading, written.elapsed());
        load.free.set(load.free.get() + 1);
        if load.closed {
            load.waiting.add_permits(1);
        }
    }
    Ok(())
}
