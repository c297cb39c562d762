use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

/// How long a test waits for what happens at once on an idle machine. Only a failing test waits so long: tests run in parallel, and other
/// programs of the machine have stalled them for 20 seconds.
pub const SOON: Duration = Duration::from_secs(60);

/// The polling interval.
const INTERVAL: Duration = Duration::from_millis(20);

/// Polls `look` until it succeeds, and returns its value. Fails the test with the last error after `within`.
pub async fn eventually<T, E: Display>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + within;
    let mut reason = "the first attempt did not complete".to_owned();
    loop {
        match timeout_at(deadline, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(why)) => reason = why.to_string(),
            Err(_) => panic!("{what}: not within {within:?}; last error: {reason}"),
        }
        if Instant::now() >= deadline {
            panic!("{what}: not within {within:?}; last error: {reason}");
        }
        sleep(INTERVAL).await;
    }
}
