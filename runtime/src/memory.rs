//! Makes the allocator return unused memory.

use std::{convert::Infallible, hint::black_box, time::Duration};

use tokio::time::sleep;

/// How often: a burst's memory is returned within half a minute. Each time costs a scan of the heap, and page faults for memory
/// that is used again.
const INTERVAL: Duration = Duration::from_secs(10);

/// More than the address space has, and just below what mimalloc rejects as a size.
const IMPOSSIBLE_BYTES: usize = (1 << 48) - (1 << 20);

/// Periodically returns the calling thread's free memory to the operating system. mimalloc itself does so only during allocations
/// near the freed memory, so an idle process would keep a burst's memory for ever.
pub(crate) async fn return_unused() -> Infallible {
    loop {
        sleep(INTERVAL).await;
        collect();
    }
}

/// Requests an impossible allocation: before mimalloc fails it, it collects all free memory, as `mi_collect(true)` does, which only
/// unsafe code can call. Any other allocator just fails.
fn collect() {
    let mut nothing = Vec::<u8>::new();
    let _ = black_box(&mut nothing).try_reserve_exact(black_box(IMPOSSIBLE_BYTES));
}
