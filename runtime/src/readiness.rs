use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

/// Whether the process is ready for requests: from the end of startup until shutdown begins. Cheap to clone.
#[derive(Clone)]
pub struct Readiness(Arc<Shared>);

struct Shared {
    shutdown: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    started: bool,
    /// The pending startup steps.
    starting: Vec<&'static str>,
    parts: Vec<Part>,
    conditions: Vec<Condition>,
}

/// Whether a part of the process is ready.
type Condition = Arc<dyn Fn() -> bool + Send + Sync>;

#[derive(Clone)]
struct Part {
    name: &'static str,
    describe: Arc<dyn Fn() -> Value + Send + Sync>,
}

/// The response of `/readyz`.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) ready: bool,
    /// The pending startup steps; absent after startup.
    #[serde(skip_serializing_if = "Option::is_none")]
    starting: Option<Vec<&'static str>>,
    #[serde(flatten)]
    parts: Map<String, Value>,
}

impl Readiness {
    pub(crate) fn new(shutdown: CancellationToken) -> Self {
        Self(Arc::new(Shared {
            shutdown,
            state: Mutex::default(),
        }))
    }

    /// Runs `opening`, a startup step, which is reported as `what` until it has succeeded.
    ///
    /// # Errors
    /// If `opening` fails.
    pub async fn opening<T, E>(
        &self,
        what: &'static str,
        opening: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        self.0.state.lock().starting.push(what);
        let opened = opening.await?;
        self.0
            .state
            .lock()
            .starting
            .retain(|&starting| starting != what);
        Ok(opened)
    }

    /// Adds a part of the process to `/readyz`, under `name`.
    pub fn add(&self, name: &'static str, describe: impl Fn() -> Value + Send + Sync + 'static) {
        let describe = Arc::new(describe);
        self.0.state.lock().parts.push(Part { name, describe });
    }

    /// After startup, the process is ready only while `is_ready` returns true.
    pub fn require(&self, is_ready: impl Fn() -> bool + Send + Sync + 'static) {
        self.0.state.lock().conditions.push(Arc::new(is_ready));
    }

    /// Marks startup as complete.
    pub(crate) fn set_started(&self) {
        self.0.state.lock().started = true;
    }

    pub(crate) fn is_started(&self) -> bool {
        self.0.state.lock().started
    }

    pub(crate) fn report(&self) -> Report {
        let state = self.0.state.lock();
        let (started, starting) = (state.started, state.starting.clone());
        let parts = state.parts.clone();
        let conditions = state.conditions.clone();
        drop(state);
        let parts = parts.iter();
        Report {
            ready: started
                && !self.0.shutdown.is_cancelled()
                && conditions.iter().all(|is_ready| is_ready()),
            starting: (!started).then_some(starting),
            parts: parts
                .map(|part| (part.name.to_owned(), (part.describe)()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use serde_json::json;

    use super::*;

    fn report(readiness: &Readiness) -> Value {
        serde_json::to_value(readiness.report()).unwrap()
    }

    #[tokio::test]
    async fn it_is_ready_between_start_and_shutdown() {
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new(shutdown.clone());
        assert_eq!(
            report(&readiness),
            json!({ "ready": false, "starting": [] })
        );
        readiness.add("policy", || json!("good"));
        readiness.set_started();
        assert_eq!(
            report(&readiness),
            json!({ "ready": true, "policy": "good" })
        );
        shutdown.cancel();
        assert_eq!(
            report(&readiness),
            json!({ "ready": false, "policy": "good" })
        );
    }

    #[test]
    fn it_is_not_ready_while_a_part_is_not() {
        let readiness = Readiness::new(CancellationToken::new());
        let part = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let condition = part.clone();
        readiness.require(move || condition.load(std::sync::atomic::Ordering::Relaxed));
        readiness.set_started();
        assert_eq!(report(&readiness), json!({ "ready": false }));
        part.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(report(&readiness), json!({ "ready": true }));
    }

    #[tokio::test]
    async fn it_names_what_is_being_opened_and_what_failed_to() {
        let readiness = Readiness::new(CancellationToken::new());
        let opened = readiness.opening("spool", ready(Ok::<_, ()>(1))).await;
        assert_eq!(opened, Ok(1));
        assert_eq!(report(&readiness)["starting"], json!([]));
        let failed = readiness.opening("policy", ready(Err::<(), _>(2))).await;
        assert_eq!(failed, Err(2));
        assert_eq!(report(&readiness)["starting"], json!(["policy"]));
        let opening = readiness.opening("spool", pending::<Result<(), ()>>());
        tokio::select! {
            biased;
            _ = opening => {}
            () = ready(()) => {}
        }
        assert_eq!(report(&readiness)["starting"], json!(["policy", "spool"]));
    }
}
