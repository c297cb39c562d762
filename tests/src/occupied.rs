use tokio::task::JoinHandle;

use crate::{Line, Response, Settings};

/// Callbacks that a gateway keeps in progress until they are released: their decider is stopped.
#[derive(Debug)]
pub struct Occupied<'a> {
    line: &'a Line,
    calls: Vec<JoinHandle<Response>>,
}

impl<'a> Occupied<'a> {
    /// Settings with which a gateway waits for a stopped decider for as long as a test takes.
    pub fn settings() -> Settings {
        Settings::new()
            .set("IMPORTGUARD_DECIDER_TIMEOUT", "30s")
            .set("IMPORTGUARD_REQUEST_BUDGET", "30s")
            // So that no health check fails meanwhile.
            .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h")
    }

    /// Stops the decider of `line` and sends `count` callbacks that wait for it, with the operationIDs `op-held-0`, `op-held-1`, … and an
    /// import that the usual policy allows. Returns when the gateway is processing all of them.
    pub async fn start(line: &'a Line, count: usize) -> Self {
        line.decider.freeze().await;
        let mut occupied = Self {
            line,
            calls: Vec::new(),
        };
        for _ in 0..count {
            occupied.add().await;
        }
        occupied
    }

    /// Sends another waiting callback, on its own connection.
    pub async fn add(&mut self) {
        let (server, number) = (self.line.server(), self.calls.len());
        self.calls.push(tokio::spawn(async move {
            let id = format!("op-held-{number}");
            server.import(&id, "user123", &["user456"]).await
        }));
        let (gateway, expected) = (&self.line.gateway, self.calls.len() as f64);
        gateway
            .wait_for_metric("importguard_in_flight", |found| found >= expected)
            .await;
    }

    /// Continues the decider, and returns the answers.
    pub async fn release(self) -> Vec<Response> {
        self.line.decider.thaw();
        let mut answers = Vec::new();
        for call in self.calls {
            answers.push(call.await.expect("an answer"));
        }
        answers
    }
}
