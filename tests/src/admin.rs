//! The admin listener of a process, at `address`.

use anyhow::{Context, ensure};
use http::Method;

use crate::{Call, Client, SOON, assert_each_series_is_once, eventually};

/// The page at `path`. Fails unless it is a success.
pub(crate) async fn page(address: &str, path: &str) -> anyhow::Result<String> {
    let call = Call::new(Method::GET, format!("http://{address}{path}"));
    let response = Client::default().try_send(call).await?;
    let (status, text) = (response.status, response.text());
    ensure!(status.is_success(), "{path} returned {status}: {text}");
    if path == "/metrics" {
        assert_each_series_is_once(text);
    }
    Ok(text.to_owned())
}

/// The value of a series, including its labels, at `/metrics`.
pub(crate) async fn metric(address: &str, series: &str) -> anyhow::Result<f64> {
    let metrics = page(address, "/metrics").await?;
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .with_context(|| format!("no {series} in {metrics}"))?;
    Ok(value.parse()?)
}

/// Waits until the value of a series is right, and returns it.
pub(crate) async fn wait_for_metric(
    address: &str,
    series: &str,
    right: impl Fn(f64) -> bool,
) -> f64 {
    eventually(&format!("{series} is right"), SOON, async || {
        let value = metric(address, series).await?;
        ensure!(right(value), "it is {value}");
        Ok(value)
    })
    .await
}
