use std::time::Duration;

use anyhow::ensure;
use tokio::task::JoinHandle;

use crate::{Line, Response, Settings, eventually};

const SOON: Duration = Duration::from_secs(15);

/// Callbacks that a gateway works on until the test says so: their decider stands still.
#[derive(Debug)]
pub struct Occupied<'a> {
    line: &'a Line,
    calls: Vec<JoinHandle<Response>>,
}

impl<'a> Occupied<'a> {
    /// What lets a gateway wait for a decider that stands still for as long as a test takes.
    pub fn settings() -> Settings {
        Settings::new()
            .set("IMPORTGUARD_DECIDER_TIMEOUT", "30s")
            .set("IMPORTGUARD_REQUEST_BUDGET", "30s")
            // Who stands still is not found out meanwhile.
            .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h")
    }

    /// Stops the decider of `line` and has `places` callbacks wait for it, with the operationIDs `op-held-0`, `op-held-1`, … and an
    /// import that the usual policy allows. Returns when the gateway works on all of them.
    pub async fn places(line: &'a Line, places: usize) -> Self {
        line.decider.freeze().await;
        let mut occupied = Self {
            line,
            calls: Vec::new(),
        };
        for _ in 0..places {
            occupied.one_more().await;
        }
        occupied
    }

    /// Has one more callback wait, on a connection of its own.
    pub async fn one_more(&mut self) {
        let (server, number) = (self.line.server(), self.calls.len());
        self.calls.push(tokio::spawn(async move {
            let id = format!("op-held-{number}");
            server.import(&id, "user123", &["user456"]).await
        }));
        let (gateway, expected) = (&self.line.gateway, self.calls.len() as f64);
        eventually("the callback is worked on", SOON, async || {
            let found = gateway.metric("importguard_in_flight").await?;
            ensure!(found >= expected, "{found} are");
            Ok(())
        })
        .await;
    }

    /// Lets the decider go on, and returns the answers.
    pub async fn release(self) -> Vec<Response> {
        self.line.decider.thaw();
        let mut answers = Vec::new();
        for call in self.calls {
            answers.push(call.await.expect("an answer"));
        }
        answers
    }
}
