use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{self, consumer::pull};
use futures_util::TryStreamExt;
use importguard_core::{Dialect, VerdictKind};
use importguard_gateway::events::DecisionEvent;
use importguard_tests::{NatsServer, OpenIm, Reading};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::site::Site;
use crate::{asserts, chaos::of_every_verdict};

/// Fewer than the gateway works on at once, so that nobody is turned away.
const CALLERS: usize = 48;

/// How callers go about it.
#[derive(Clone, Copy)]
pub(super) enum Pace {
    AsFastAsPossible,
    /// So many a second, all of them together; who had to wait catches up.
    PerSecond(f64),
}

/// Who was told what: each import by its number, with the verdict that it must have.
#[derive(Default)]
pub(super) struct Ledger {
    next: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

/// Callers under way.
pub(super) struct Callers {
    tasks: Vec<JoinHandle<usize>>,
    stop: CancellationToken,
}

impl Callers {
    /// Returns how many answers they got.
    pub(super) async fn stop(self) -> f64 {
        self.stop.cancel();
        let mut answers = 0;
        for task in self.tasks {
            answers += task.await.unwrap();
        }
        answers as f64
    }
}

impl Ledger {
    /// Has many callers ask, all of them at `pace` together, and looks at every answer.
    pub(super) fn ask(self: &Arc<Self>, site: &Site, pace: Pace) -> Callers {
        let (caller, stop) = (site.caller(), CancellationToken::new());
        let tasks = (0..CALLERS).map(|_| {
            let (ledger, caller, stop) = (Arc::clone(self), caller.clone(), stop.clone());
            tokio::spawn(async move { ledger.ask_on(&caller, pace, &stop).await })
        });
        Callers {
            tasks: tasks.collect(),
            stop,
        }
    }

    async fn ask_on(&self, caller: &OpenIm, pace: Pace, stop: &CancellationToken) -> usize {
        let mut clock = match pace {
            Pace::AsFastAsPossible => None,
            Pace::PerSecond(rate) => {
                let mut clock = interval(Duration::from_secs_f64(CALLERS as f64 / rate));
                clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
                Some(clock)
            }
        };
        let mut answers = 0;
        while !stop.is_cancelled() {
            if let Some(clock) = &mut clock {
                clock.tick().await;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let (owner, friends) = of_every_verdict(number);
            let friends: Vec<_> = friends.iter().map(String::as_str).collect();
            let call = caller.before_import(&format!("op-{number}"), owner, &friends);
            let began = Instant::now();
            match caller.try_send(call).await {
                Ok(answer) => {
                    let reading = asserts::reading(Dialect::Server, &answer);
                    if summary(&reading) != Some(reading_of(number)) {
                        self.complain(format!("op-{number} was answered {reading:?}"));
                    }
                }
                Err(error) => self.complain(format!(
                    "op-{number} got no answer, after {:?}: {error:#}",
                    began.elapsed()
                )),
            }
            answers += 1;
        }
        answers
    }

    fn complain(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    /// Compares what was answered with what is stored.
    pub(super) async fn settle(&self, nats: &NatsServer) {
        let wrong = self.wrong.lock().unwrap().clone();
        let first: Vec<_> = wrong.iter().take(5).collect();
        assert!(wrong.is_empty(), "{} went wrong: {first:#?}", wrong.len());

        let asked = self.next.load(Ordering::Relaxed);
        let mut told: HashMap<usize, u32> = HashMap::with_capacity(asked);
        let stream = jetstream::new(nats.client().await)
            .get_stream("IMPORTGUARD")
            .await
            .unwrap();
        let stored = stream.cached_info().state.messages;
        let consumer = stream
            .create_consumer(pull::OrderedConfig::default())
            .await
            .unwrap();
        let mut messages = consumer.messages().await.unwrap();
        for _ in 0..stored {
            let message = messages.try_next().await.unwrap().unwrap();
            let event: DecisionEvent<'_> = serde_json::from_slice(&message.payload).unwrap();
            let id = event.data.operation_id.as_str();
            let number: usize = id.strip_prefix("op-").unwrap().parse().unwrap();
            assert_eq!(event.data.verdict, verdict_of(number), "{id}");
            *told.entry(number).or_default() += 1;
        }
        eprintln!("soak: {asked} asked for, {stored} events");
        let missing: Vec<_> = (0..asked)
            .filter(|number| !told.contains_key(number))
            .collect();
        assert!(
            missing.is_empty(),
            "{} events are lost, the first of them: {:?}",
            missing.len(),
            &missing[..missing.len().min(20)]
        );
        let twice: Vec<_> = told.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "stored more than once: {twice:?}");
    }
}

/// What number `number` of [`of_every_verdict`] must be told, in short.
fn reading_of(number: usize) -> (VerdictKind, i32, usize) {
    match number % 4 {
        0 => (VerdictKind::Allow, 0, 0),
        1 => (VerdictKind::Modify, 0, 2),
        2 => (VerdictKind::Refuse, 5002, 0),
        _ => (VerdictKind::Refuse, 5001, 0),
    }
}

fn verdict_of(number: usize) -> VerdictKind {
    reading_of(number).0
}

/// Nothing where the answer can't be read.
fn summary(reading: &Reading) -> Option<(VerdictKind, i32, usize)> {
    Some(match reading {
        Reading::Imports { instead: None } => (VerdictKind::Allow, 0, 0),
        Reading::Imports {
            instead: Some(kept),
        } => (VerdictKind::Modify, 0, kept.len()),
        Reading::Refuses { code, .. } => (VerdictKind::Refuse, *code, 0),
        Reading::Fails(_) => return None,
    })
}
