use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::spawn_local;

use super::{Question, Reading, streams::Stream};

/// One answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// When it came, since the start.
    pub(crate) at: Duration,
    pub(crate) took: Duration,
    pub(crate) reading: Reading,
}

/// A closed loop of `streams` streams over HTTP/2 for `length`, without warming up, that tells when each answer came. Must be called
/// inside a `LocalSet`.
pub(crate) async fn timeline(
    address: SocketAddr,
    question: &Question,
    streams: usize,
    length: Duration,
) -> anyhow::Result<Vec<Answered>> {
    let (start, number) = (Instant::now(), Rc::new(Cell::new(0)));
    let answers = Rc::new(RefCell::new(Vec::new()));
    let mut tasks = Vec::with_capacity(streams);
    for mut stream in Stream::open(address, streams).await? {
        let question = question.clone();
        let (number, answers) = (Rc::clone(&number), Rc::clone(&answers));
        tasks.push(spawn_local(async move {
            while start.elapsed() < length {
                let asked = Instant::now();
                let number = number.replace(number.get() + 1);
                let reading = stream.ask(&question, number).await?;
                let (at, took) = (start.elapsed(), asked.elapsed());
                answers.borrow_mut().push(Answered { at, took, reading });
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(answers.take())
}
