use std::{fmt::Display, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

/// How long to rest between two looks.
const BETWEEN: Duration = Duration::from_millis(20);

/// Looks again and again until `look` finds what it looks for, and returns it. Stops the test with the last reason for
/// not finding it when `within` is over.
pub async fn eventually<T, E: Display>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + within;
    let mut reason = "the first look never came to an end".to_owned();
    loop {
        match timeout_at(deadline, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(why)) => reason = why.to_string(),
            Err(_) => panic!("{what}: not within {within:?}; at last: {reason}"),
        }
        if Instant::now() >= deadline {
            panic!("{what}: not within {within:?}; at last: {reason}");
        }
        sleep(BETWEEN).await;
    }
}
