use futures_util::{StreamExt, stream};

/// Calls `one` for every number below `count`, `in_flight` at a time, and returns the results in order.
pub async fn load<T>(count: usize, in_flight: usize, one: impl AsyncFn(usize) -> T) -> Vec<T> {
    stream::iter(0..count)
        .map(|number| one(number))
        .buffered(in_flight)
        .collect()
        .await
}
