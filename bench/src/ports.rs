use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
};

use anyhow::Context;

/// Below the ports that Linux gives to outgoing connections, of which a benchmark opens many.
const RANGE: Range<u16> = 10_240..32_000;

/// Hands out addresses of this machine that nobody listens on, each once.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    taken: HashSet<u16>,
}

impl Ports {
    pub(crate) fn free(&mut self) -> anyhow::Result<SocketAddr> {
        // Every RandomState is seeded anew, so two runs don't walk through the same ports.
        let width = u64::from(RANGE.end - RANGE.start);
        let first = RandomState::new().hash_one("port") % width;
        let port = RANGE
            .cycle_from(first)
            .find(|port| {
                !self.taken.contains(port)
                    && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
            })
            .context("no port of 127.0.0.1 is free")?;
        self.taken.insert(port);
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

trait CycleFrom {
    fn cycle_from(self, first: u64) -> impl Iterator<Item = u16>;
}

impl CycleFrom for Range<u16> {
    fn cycle_from(self, first: u64) -> impl Iterator<Item = u16> {
        let first = usize::try_from(first).unwrap_or_default();
        self.clone().skip(first).chain(self.take(first))
    }
}
