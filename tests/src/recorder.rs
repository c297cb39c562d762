use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{SOON, Service, eventually};

/// A gateway's recorder status.
impl Service {
    /// The recorder's part of `/readyz`.
    pub async fn recorder(&self) -> anyhow::Result<Value> {
        let readiness: Value = serde_json::from_str(&self.admin("/readyz").await?)?;
        let recorder = readiness.get("recorder").context("no recorder")?;
        Ok(recorder.clone())
    }

    /// Waits until the recorder reports `state`, and returns its status.
    pub async fn wait_for_recorder(&self, state: &str) -> Value {
        eventually(&format!("the recorder is {state}"), SOON, async || {
            let recorder = self.recorder().await?;
            ensure!(recorder["state"] == state, "{recorder}");
            Ok(recorder)
        })
        .await
    }

    /// The value of the series `name`, including its labels, at `/metrics`.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let metrics = self.admin("/metrics").await?;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .with_context(|| format!("no {name}"))?;
        Ok(value.parse()?)
    }

    /// The number of events that took `path`, by the recorder's metrics.
    pub async fn events_by(&self, path: &str) -> anyhow::Result<f64> {
        let name = format!("importguard_recorder_events_total{{path=\"{path}\"}}");
        self.metric(&name).await
    }
}
