use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    sync::{LazyLock, Mutex},
};

/// Below Linux's ephemeral ports, so that no outgoing connection takes a port before it is listened on.
const RANGE: std::ops::Range<u16> = 10_240..32_000;

/// A free port of 127.0.0.1 that no other test of this process has.
pub fn free_port() -> u16 {
    static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    let mut taken = TAKEN.lock().unwrap();
    // Every RandomState is seeded anew, so two test processes don't walk through the same ports.
    let random = RandomState::new().hash_one("port");
    let width = u64::from(RANGE.end - RANGE.start);
    let port = (0..width)
        .map(|step| RANGE.start + u16::try_from(random.wrapping_add(step) % width).unwrap())
        .find(|port| {
            !taken.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
        })
        .expect("a port is free");
    taken.insert(port);
    port
}
