//! Deciders are current while thousands of changes a second come in.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_nats::jetstream;
use futures_util::{StreamExt, stream};
use importguard_tests::{NatsServer, Proxy};
use tokio::time::interval;

use super::{current, decider, decides, is_cut_off, listed, nats, policy};

/// Puts users on the list again and again, a thousand times a second, until `done`. Returns how often.
async fn change_often(nats: &NatsServer, users: u64, done: &AtomicBool) -> u64 {
    const AT_MOST: u64 = 60_000;
    const IN_FLIGHT: usize = 64;
    let jetstream = &jetstream::new(nats.client().await);
    let ticks = interval(Duration::from_millis(1));
    let changes = stream::unfold((ticks, 0), |(mut ticks, number)| async move {
        ticks.tick().await;
        (number < AT_MOST && !done.load(Ordering::Relaxed)).then_some((number, (ticks, number + 1)))
    });
    let change = |number| async move {
        let subject = format!("$KV.IMPORTGUARD_LISTS.bad.user{}", number % users);
        let ack = jetstream.publish(subject, "".into()).await.unwrap();
        ack.await.unwrap();
    };
    changes
        .map(change)
        .buffer_unordered(IN_FLIGHT)
        .count()
        .await as u64
}

/// A decider comes back beside many changes among so many users. Returns how often it read everything anew.
async fn comes_back_beside_changes_of(users: u64) -> f64 {
    let (nats, policy) = (nats().await, policy());
    listed(&nats, &["add", "bad", "mallory"]).await;
    let proxy = Proxy::to(nats.address()).await;
    let decider = decider(format!("nats://{}", proxy.address()), &policy).await;
    decides(&decider, &["mallory"], &["alice"]).await;
    current(&decider, true).await;
    is_cut_off(&proxy, &decider).await;

    let done = AtomicBool::new(false);
    let returns = async {
        proxy.restore().await;
        current(&decider, true).await;
        done.store(true, Ordering::Relaxed);
    };
    let ((), changes) = tokio::join!(returns, change_often(&nats, users, &done));
    assert!(changes > 100, "{changes}");
    let last = format!("user{}", (changes - 1) % users);
    decides(&decider, &["mallory", "user0", &last], &["alice"]).await;
    decider
        .metric("importguard_live_lists_rereads_total")
        .await
        .unwrap()
}

/// Whether it read everything anew less often than `limit` in one of three attempts: on a busy machine it may be late, but not always.
async fn comes_back_with_few_rereads(users: u64, limit: f64) -> bool {
    for _ in 0..3 {
        if comes_back_beside_changes_of(users).await < limit {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn a_decider_that_was_away_is_current_beside_many_changes_and_reads_nothing_anew() {
    assert!(comes_back_with_few_rereads(u64::MAX, 1.0).await);
}

#[tokio::test]
async fn so_it_is_beside_changes_of_a_few_entries_though_it_may_have_to_read_them_anew() {
    assert!(comes_back_with_few_rereads(50, 2.0).await);
}
