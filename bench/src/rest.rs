//! Processes at rest: how soon they are ready, and what they hold then.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::time::sleep;

use crate::{
    process::Memory,
    statistics::median,
    system::{DeciderOptions, Nats, Place, start_decider, start_gateway},
};

/// The first start also reads the program from disk, so it does not count.
const STARTS: usize = 6;

/// How long a process is left alone before its memory is read.
const REST: Duration = Duration::from_secs(1);

/// Medians of several starts.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rest {
    /// Milliseconds from a process's start to its `/readyz`'s yes.
    pub(crate) gateway_ready_ms: f64,
    pub(crate) decider_ready_ms: f64,
    /// Resident, in MiB, after a second without a callback.
    pub(crate) gateway_mib: f64,
    pub(crate) decider_mib: f64,
}

/// A policy as small as can be: what a list takes in memory and time is another matter.
const NO_LISTS: &str = "apiVersion: importguard/v1\nname: rest\nrules: []\n";

/// Starts a decider without lists, and a gateway beside it, a few times.
pub(crate) async fn at_rest(place: &mut Place) -> anyhow::Result<Rest> {
    let policy = place.dir.join("no-lists.yaml");
    fs::write(&policy, NO_LISTS)?;
    let options = DeciderOptions {
        policy,
        export: Vec::new(),
    };
    let nats = Nats::start(place, "rest").await?;
    let mut deciders = Vec::new();
    let mut gateways = Vec::new();
    for _ in 0..STARTS {
        let began = Instant::now();
        let (decider, grpc) = start_decider(place, "rest-decider", &options).await?;
        let decider_ready = began.elapsed();
        let began = Instant::now();
        let url = format!("http://{grpc}");
        let (gateway, ..) = start_gateway(place, "rest-gateway", &url, &nats.url(), &[]).await?;
        let gateway_ready = began.elapsed();
        sleep(REST).await;
        deciders.push((decider_ready, Memory::of(decider.id())?.now));
        gateways.push((gateway_ready, Memory::of(gateway.id())?.now));
    }
    let counted = |starts: &[(Duration, f64)]| {
        let starts = &starts[1..];
        (
            median(starts.iter().map(|(ready, _)| ready.as_secs_f64() * 1e3)),
            median(starts.iter().map(|(_, memory)| *memory)),
        )
    };
    let (gateway_ready_ms, gateway_mib) = counted(&gateways);
    let (decider_ready_ms, decider_mib) = counted(&deciders);
    Ok(Rest {
        gateway_ready_ms,
        decider_ready_ms,
        gateway_mib,
        decider_mib,
    })
}
