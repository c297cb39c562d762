use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    task::JoinHandle,
    time::{Instant, interval_at},
};
use tokio_util::sync::CancellationToken;

use crate::{Client, OpenIm, Response, SOON, eventually};

const CALLERS: u32 = 20;

/// Interval of each caller; together they send 400 callbacks a second, and catch up after a delay.
const INTERVAL: Duration = Duration::from_millis(50);

/// A caller's imports: the operationID, and the answer unless the connection broke before.
type Told = Vec<(String, Option<Response>)>;

/// Continuous imports, until [`stop`](Self::stop).
#[derive(Debug)]
pub struct Traffic {
    callers: Vec<JoinHandle<Told>>,
    answers: Arc<AtomicUsize>,
    began: Instant,
    stop: CancellationToken,
}

/// The results of the imports.
#[derive(Debug)]
pub struct TrafficReport {
    /// By operationID: the answer, or `None` if the connection broke before.
    pub answers: HashMap<String, Option<Response>>,
    /// How long the traffic lasted.
    pub lasted: Duration,
}

impl Traffic {
    /// Makes `server` import with operationIDs that begin with `name`. `owner_and_friends` returns the owner and the friends of the
    /// callback with this number.
    pub fn start(
        server: &OpenIm,
        name: &str,
        owner_and_friends: fn(usize) -> (&'static str, Vec<String>),
    ) -> Self {
        let (answers, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let (client, next) = (Client::default(), Arc::new(AtomicUsize::new(0)));
        let callers = (0..CALLERS).map(|caller| {
            let (server, client, name) = (server.clone(), client.clone(), name.to_owned());
            let (answers, stop, next) = (answers.clone(), stop.clone(), next.clone());
            tokio::spawn(async move {
                // One after another: in a burst there would be pauses, and a kill could fall into each of them.
                let turn = INTERVAL * caller / CALLERS;
                let (mut asked, mut clock) =
                    (Vec::new(), interval_at(Instant::now() + turn, INTERVAL));
                while !stop.is_cancelled() {
                    clock.tick().await;
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (owner, friends) = owner_and_friends(number);
                    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
                    let id = format!("{name}-{number}");
                    let call = server.before_import(&id, owner, &friends);
                    let answer = client.try_send(call).await.ok();
                    if answer.is_some() {
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                    asked.push((id, answer));
                }
                asked
            })
        });
        Self {
            callers: callers.collect(),
            answers,
            began: Instant::now(),
            stop,
        }
    }

    /// Waits until `count` more callbacks are answered.
    pub async fn answers(&self, count: usize) {
        let target = self.answers.load(Ordering::Relaxed) + count;
        eventually("the imports are answered", SOON, async || {
            let now = self.answers.load(Ordering::Relaxed);
            if now >= target { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// Sends no more callbacks, and waits for the outstanding answers.
    pub async fn stop(self) -> TrafficReport {
        self.stop.cancel();
        let mut answers = HashMap::new();
        for caller in self.callers {
            answers.extend(caller.await.expect("a caller comes to its end"));
        }
        TrafficReport {
            answers,
            lasted: self.began.elapsed(),
        }
    }
}

impl TrafficReport {
    /// The answers, by operationID.
    pub fn answered(&self) -> impl Iterator<Item = (&str, &Response)> {
        let all = self.answers.iter();
        all.filter_map(|(id, answer)| Some((id.as_str(), answer.as_ref()?)))
    }

    /// Answers per second, including delays.
    pub fn rate(&self) -> f64 {
        self.answered().count() as f64 / self.lasted.as_secs_f64()
    }
}
