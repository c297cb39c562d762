//! Has the allocator give memory back that nobody uses any more.

use std::{convert::Infallible, hint::black_box, time::Duration};

use tokio::time::sleep;

/// How often: within half a minute a burst is forgotten. Each time it costs a look at all that is allocated, and a page
/// fault for what is used again.
const EVERY: Duration = Duration::from_secs(10);

/// More than an address space has, and what mimalloc just about takes for a size.
const MORE_THAN_THERE_IS: usize = (1 << 48) - (1 << 20);

/// Has the calling thread's free memory given back again and again. mimalloc itself does that only while it is asked for memory and near
/// what was freed, so that after a burst a quiet process would keep the burst's for ever.
pub async fn give_back() -> Infallible {
    loop {
        sleep(EVERY).await;
        collect();
    }
}

/// Asks for what cannot be had: before mimalloc says so it collects all that is free, as by `mi_collect(true)`, which only unsafe
/// code can call. Any other allocator just says no.
fn collect() {
    let mut nothing = Vec::<u8>::new();
    let _ = black_box(&mut nothing).try_reserve_exact(black_box(MORE_THAN_THERE_IS));
}
