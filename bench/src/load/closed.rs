use std::{
    cell::{Cell, RefCell},
    future::Future,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{task::spawn_local, time::sleep};

use super::{Connection, Question, Tally};

/// How long connections ask before it counts.
const WARMING_UP: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmingUp,
    Measuring,
    Over,
}

struct Load {
    question: Question,
    phase: Cell<Phase>,
    number: Cell<u64>,
    tally: RefCell<Tally>,
}

/// A closed loop: `connections` connections ask again as soon as they are answered. What is answered between the calls of
/// `begin` and `end`, for as long as `measured` takes, is tallied. Must be called inside a `LocalSet`.
pub(crate) async fn closed<B, E>(
    address: SocketAddr,
    question: &Question,
    connections: usize,
    measured: impl Future<Output = anyhow::Result<()>>,
    begin: impl FnOnce() -> anyhow::Result<B>,
    end: impl FnOnce(B) -> anyhow::Result<E>,
) -> anyhow::Result<(Tally, E)> {
    let load = Rc::new(Load {
        question: question.clone(),
        phase: Cell::new(Phase::WarmingUp),
        number: Cell::new(0),
        tally: RefCell::default(),
    });
    let mut tasks = Vec::with_capacity(connections);
    for _ in 0..connections {
        let connection = Connection::open(address, question).await?;
        tasks.push(spawn_local(ask_on(Rc::clone(&load), connection)));
    }
    sleep(WARMING_UP).await;
    let begun = begin()?;
    load.phase.set(Phase::Measuring);
    let measured = measured.await;
    load.phase.set(Phase::Over);
    let ended = end(begun)?;
    for task in tasks {
        task.await??;
    }
    measured?;
    Ok((load.tally.take(), ended))
}

async fn ask_on(load: Rc<Load>, mut connection: Connection) -> anyhow::Result<()> {
    while load.phase.get() != Phase::Over {
        let number = load.number.get();
        load.number.set(number + 1);
        let asked = Instant::now();
        let reading = connection.ask(&load.question, number).await?;
        if load.phase.get() == Phase::Measuring {
            load.tally.borrow_mut().add(reading, asked.elapsed());
        }
    }
    Ok(())
}
