//! Half of what the gateway can, with a fault every ten seconds, and nothing is lost, unanswered, wrong or grown.
//!
//! The suite does it for a minute; `tests/soak.sh` for ten, with release builds. `IMPORTGUARD_SOAK_SECONDS` says how long, and
//! `IMPORTGUARD_SOAK_SEED` repeats an order of faults.

// Ten minutes are long without a word.
#![allow(clippy::print_stderr)]

mod faults;
mod ledger;
mod site;

use std::{
    env,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep_until};

use self::{
    faults::Faults,
    ledger::{Ledger, Pace},
    site::Site,
};
use crate::chaos::alone;

/// From one fault to the next.
const EVERY: Duration = Duration::from_secs(10);

/// How long the callers go as fast as they can, to find out how fast that is.
const GAUGE: Duration = Duration::from_secs(3);

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_every_ten_seconds_costs_no_event_no_answer_no_verdict_and_no_memory() {
    let _turn = alone().await;
    let lasts = Duration::from_secs(setting("IMPORTGUARD_SOAK_SECONDS").unwrap_or(60));
    let seed = setting("IMPORTGUARD_SOAK_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_secs()
    });
    let mut site = Site::start().await;
    let ledger = Arc::new(Ledger::default());

    let gauge = ledger.ask(&site, Pace::AsFastAsPossible);
    sleep_until(Instant::now() + GAUGE).await;
    let capacity = gauge.stop().await / GAUGE.as_secs_f64();
    let rate = capacity / 2.0;
    eprintln!("soak: seed {seed}; {capacity:.0} answers a second at most, {rate:.0} from here on");

    let callers = ledger.ask(&site, Pace::PerSecond(rate));
    let mut faults = Faults::in_an_order_of(seed);
    let (began, mut vitals) = (Instant::now(), Vec::new());
    let mut due = began + EVERY;
    while began.elapsed() < lasts {
        let fault = faults.next();
        eprintln!("soak: {:>4} s: {fault:?}", began.elapsed().as_secs());
        site.suffer(fault).await;
        site.recovers().await;
        sleep_until(due).await;
        due = Instant::now().max(due + EVERY);
        vitals.push(site.vitals());
    }
    let asked = callers.stop().await;
    let kept = asked / began.elapsed().as_secs_f64();
    eprintln!("soak: {asked:.0} answers, {kept:.0} a second");
    assert!(kept > rate * 0.9, "the callers did not keep their pace");

    site.recovers().await;
    site.ends_well().await;
    ledger.settle(site.nats()).await;
    site::nothing_grew(&vitals);
}
