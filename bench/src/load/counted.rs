use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::Instant,
};

use tokio::task::spawn_local;

use super::{Connection, Question, Tally};

/// A closed loop over `connections` connections that ends after `count` questions. Must be called inside a `LocalSet`.
pub(crate) async fn counted(
    address: SocketAddr,
    question: &Question,
    connections: usize,
    count: u64,
) -> anyhow::Result<Tally> {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let next = Rc::new(Cell::new(0));
    let mut tasks = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut connection = Connection::open(address, question).await?;
        let (question, tally, next) = (question.clone(), Rc::clone(&tally), Rc::clone(&next));
        tasks.push(spawn_local(async move {
            while next.get() < count {
                let number = next.replace(next.get() + 1);
                let asked = Instant::now();
                let reading = connection.ask(&question, number).await?;
                tally.borrow_mut().add(reading, asked.elapsed());
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(tally.take())
}
