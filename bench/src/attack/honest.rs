use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    task::spawn_local,
    time::{sleep_until, timeout_at},
};

use crate::{
    load::{Connection, Expected, Question, Reading},
    statistics::Percentiles,
};

/// How many callbacks there are, so that a p99 is the tenth worst.
pub(super) const COUNT: usize = 1_000;

/// Over how many connections, which are kept alive.
pub(super) const CONNECTIONS: usize = 16;

/// Callbacks a second: a hundredth of what the gateway can answer, so that nobody waits for another honest one, and so few that they
/// last ten seconds, several times each time-out that ends an attacker's request.
const RATE: f64 = 100.0;

/// How long an open-im-server waits unless it is told otherwise, for a free connection too. Who has no verdict counts with this time.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of an answer that is no verdict is told.
const SHOWN: usize = 100;

/// What came of honest callbacks.
pub(super) struct Honest {
    /// Those that were answered with the policy's verdict.
    pub(super) right: usize,
    /// Of all, those without a verdict included.
    pub(super) micros: Percentiles,
    /// What the others got, and how many of them.
    pub(super) others: BTreeMap<String, usize>,
}

struct Load {
    address: SocketAddr,
    /// Put in turns: one that is allowed and one whose owner is refused.
    questions: [Question; 2],
    start: Instant,
    next: Cell<usize>,
    nanos: RefCell<Vec<u64>>,
    others: RefCell<BTreeMap<String, usize>>,
}

/// Puts the callbacks at an even pace, and compares each answer with the policy's verdict. Must be called inside a `LocalSet`.
pub(super) async fn honest(address: SocketAddr) -> anyhow::Result<Honest> {
    let question = |expected| Question::new(address, 2, expected);
    let load = Rc::new(Load {
        address,
        questions: [question(Expected::Allow), question(Expected::Refuse)],
        start: Instant::now(),
        next: Cell::new(0),
        nanos: RefCell::default(),
        others: RefCell::default(),
    });
    let tasks: Vec<_> = (0..CONNECTIONS)
        .map(|_| spawn_local(ask_on(Rc::clone(&load))))
        .collect();
    for task in tasks {
        task.await?;
    }
    let others = load.others.take();
    Ok(Honest {
        right: COUNT - others.values().sum::<usize>(),
        micros: Percentiles::of(load.nanos.take()),
        others,
    })
}

async fn ask_on(load: Rc<Load>) {
    let mut connection = None;
    loop {
        let number = load.next.get();
        if number == COUNT {
            return;
        }
        load.next.set(number + 1);
        let due = load.start + Duration::from_secs_f64(number as f64 / RATE);
        let early = Instant::now() < due;
        sleep_until(due.into()).await;
        // A timer's lateness, up to a millisecond, is not the gateway's; waiting for a free connection is.
        let due = if early { Instant::now() } else { due };
        let patient_until = (due + PATIENCE).into();
        let asked = timeout_at(patient_until, load.ask(&mut connection, number)).await;
        let took = match asked.unwrap_or_else(|_| Err("nothing within 5 seconds".to_owned())) {
            Ok(()) => due.elapsed(),
            Err(why) => {
                let why = why.chars().take(SHOWN).collect();
                *load.others.borrow_mut().entry(why).or_default() += 1;
                PATIENCE
            }
        };
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        load.nanos.borrow_mut().push(nanos);
    }
}

impl Load {
    /// Asks over the connection that is held, or over a new one if the gateway has closed that meanwhile, as Go's client does. An
    /// error if the answer is not the policy's.
    async fn ask(&self, held: &mut Option<Connection>, number: usize) -> Result<(), String> {
        let question = &self.questions[number % self.questions.len()];
        let mut connection = match held.take().filter(Connection::is_quiet) {
            Some(held) => held,
            None => Connection::open(self.address, question)
                .await
                .map_err(|error| error.to_string())?,
        };
        connection.turn_to(question);
        match connection.ask(question, number as u64).await {
            Ok(Reading::Right) => {
                *held = Some(connection);
                Ok(())
            }
            Ok(Reading::Overloaded) => Err("refused for an overload".to_owned()),
            Ok(Reading::Fallback) => Err("another fallback".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}
