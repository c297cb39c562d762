//! Compares estimated costs with measured times: `cargo bench -p importguard-decider --bench cost`.
//!
//! Prints units and nanoseconds per friend for each rule, and nanoseconds per unit, which must not exceed what the
//! estimates promise (`NANOS_PER_UNIT`), on the machine named in docs/policy.md.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::{
    hint::black_box,
    time::{Duration, Instant, SystemTime},
};

use importguard_core::Mode;
use importguard_decider::{
    lists::{self, live::LiveLists},
    policy::{Draft, ListFiles, Policy, Request},
};

/// The allocator of the decider.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Friends per request: few enough to measure an expensive rule several times per second.
const FRIENDS: usize = 100;
/// Measuring time per rule.
const MEASURED: Duration = Duration::from_millis(150);

/// Expressions without a loop.
const PLAIN: &[&str] = &[
    "friendCount < 0",
    "friend == 'abc'",
    "friend == ownerUserID",
    "friend < ownerUserID",
    "friend.startsWith('abc')",
    "friend.contains('abc')",
    "friend.matches('[0-9]x[a-z]+')",
    "friend.matches('(a|[0-9]){3,20}[0-9]{2}z')",
    "friend.lowerAscii() == 'abc'",
    "friend.trim() == 'abc'",
    "friend.replace('e', 'ee') == 'abc'",
    "friend.substring(1) == 'abc'",
    "friend.split('e', 16).size() == 7",
    "friend.size() > 100",
    "friend in blocked && false",
    "friend in folded && false",
    "!(friend == 'abc') && false",
    "friend == 'a' || friend == 'b' || friend == 'c' || friend == 'd'",
    "friend + ownerUserID == 'abc'",
    "friendCount * 2 + 1 < 0",
    "(friendCount > 5 ? 'a' : 'b') == 'c'",
    "now < timestamp('2000-01-01T00:00:00Z')",
    "now.getHours('Europe/Berlin') > 100",
    "now - now > duration('1h')",
    "int(friend) > 5",
    "string(now) == 'x'",
    "double(friendCount) < 0.0",
    "int(operationID) < 7",
    "[friendCount, 2][0] == 7",
    "[friendCount, 2].size() == 7",
    "([friendCount, 2] + [3, 4]).size() == 7",
];

/// Loops and look-ups over a list of strings, `LIST`.
const OVER_TEXTS: &[&str] = &[
    "friend in LIST",
    "LIST.exists(x, friend.startsWith(x))",
    "LIST.exists(x, friend == x)",
    "!LIST.all(x, friend != x)",
    "LIST.exists_one(x, friend == x)",
    "LIST.filter(x, x == friend).size() == 7",
    "friend in LIST.map(x, x + friend)",
    "LIST.exists(x, int(friend) > 1000)",
    "LIST.exists(x, now.getHours('Europe/Berlin') > 100)",
    "LIST.exists(x, friendCount in [-1, -2, -3, -4, -5, -6, -7, -8, -9, -10, -11, -12, -13, -14, -15, -16, -17, -18])",
];

fn main() {
    let mut rules: Vec<String> = vec![
        "dropFriends: { in: blocked }".to_owned(),
        "dropFriends: { notIn: blocked }".to_owned(),
        "dropFriends: { in: folded }".to_owned(),
        "dropFriends: { matches: ['[01]*1[01]{12}2$'] }".to_owned(),
    ];
    for count in [1, 16, 64] {
        for (key, item) in [
            ("prefixes", "bot#_"),
            ("prefixes", "friend#_"),
            ("suffixes", "_bot#"),
            ("matches", "'^tmp#_'"),
            ("matches", "'[0-9]x#[a-z]+'"),
            ("matches", "'(a|[0-9]){3,20}[0-9]{2}z#'"),
        ] {
            rules.push(format!(
                "dropFriends: {{ {key}: [{}] }}",
                items(item, count)
            ));
        }
    }
    let expression = |source: &str| format!("dropFriendIf: \"{source}\", onError: skip");
    rules.extend(PLAIN.iter().map(|source| expression(source)));
    for count in [10, 100] {
        let list = format!("[{}]", items("'#'", count));
        let sources = OVER_TEXTS
            .iter()
            .map(|source| source.replace("LIST", &list));
        rules.extend(sources.map(|source| expression(&source)));
    }
    let without = |bytes| measure("limitFriends: { max: 100000, onExceed: truncate }", bytes).nanos;
    let sizes = [16, 4096].map(|bytes| (bytes, without(bytes)));
    for (bytes, nothing) in sizes {
        println!("{nothing:.1} ns per friend of {bytes} B without rules");
    }
    for rule in &rules {
        for (bytes, nothing) in sizes {
            tell(rule, bytes, nothing);
        }
    }
    println!("\ndelay between the deadline and the end of an evaluation of 10,000 friends");
    let numbers = items("1", 160);
    for (rule, bytes) in [
        (
            "dropFriends: { in: blocked, notIn: blocked }".to_owned(),
            16,
        ),
        (
            format!("dropFriends: {{ prefixes: [{}] }}", items("p#", 64)),
            16,
        ),
        (
            format!(
                "dropFriends: {{ matches: [{}] }}",
                items("'[0-9]x#[a-z]+'", 64)
            ),
            400,
        ),
        (expression("friend == ownerUserID"), 400),
        (
            expression(&format!("[{}].exists(x, x == friend)", items("'a'", 100))),
            16,
        ),
        // Just below the maximum cost of one evaluation.
        (
            expression(&format!(
                "[{numbers}].exists(x, friendCount in [{numbers}] && x < 0)"
            )),
            16,
        ),
    ] {
        tell_overshoot(&rule, bytes);
    }
}

/// Ends evaluations at several deadlines, and prints the maximum delay.
fn tell_overshoot(rule: &str, bytes: usize) {
    // In shadow it would be skipped; for one friend each of these may be enforced.
    let policy = policy(&format!("- {{ id: r, {rule} }}\n"), 1);
    let friends = friends(10_000, bytes);
    let request = request(&friends);
    let mut late: Vec<Duration> = Vec::new();
    for step in 0..200 {
        let deadline = Instant::now() + Duration::from_micros(step * 37);
        if policy
            .with_live(LiveLists::none())
            .evaluate_until(&request, || Instant::now() >= deadline, &mut ())
            .is_err()
        {
            late.push(deadline.elapsed());
        }
    }
    late.sort();
    let rule: String = rule.chars().take(60).collect();
    match (late.get(late.len() / 2), late.last()) {
        (Some(half), Some(most)) => println!(
            "{half:>9.1?} half, {most:>9.1?} at most of {:>3}  {rule}",
            late.len()
        ),
        _ => println!("never ended early  {rule}"),
    }
}

/// `count` strings with their numbers in place of `#`, comma-separated.
fn items(item: &str, count: usize) -> String {
    let items: Vec<_> = (0..count)
        .map(|n| item.replace('#', &n.to_string()))
        .collect();
    items.join(", ")
}

fn tell(rule: &str, bytes: usize, nothing: f64) {
    let Measured { units, nanos } = measure(rule, bytes);
    let each = (nanos - nothing) / units;
    let rule: String = rule.chars().take(90).collect();
    println!("{units:>8.1} units {nanos:>9.1} ns {each:>6.1} ns/unit {bytes:>5} B  {rule}");
}

struct Measured {
    units: f64,
    nanos: f64,
}

/// Both per friend; the time is the best of several.
fn measure(rule: &str, bytes: usize) -> Measured {
    let policy = policy(&format!("- {{ id: r, {rule} }}\n"), FRIENDS);
    let friends = friends(FRIENDS, bytes);
    let request = request(&friends);
    let units = policy.expected_cost(FRIENDS, FRIENDS * bytes, 13) - policy_free(&policy, bytes);
    let began = Instant::now();
    let mut best = Duration::MAX;
    while best == Duration::MAX || began.elapsed() < MEASURED {
        let one = Instant::now();
        black_box(policy.evaluate(black_box(&request)));
        best = best.min(one.elapsed());
    }
    Measured {
        units: units as f64 / FRIENDS as f64,
        nanos: best.as_nanos() as f64 / FRIENDS as f64,
    }
}

/// The cost of a request without rules.
fn policy_free(policy: &Policy, bytes: usize) -> u64 {
    assert!(policy.cost().units(Mode::Shadow) == 0);
    self::policy("  []", FRIENDS).expected_cost(FRIENDS, FRIENDS * bytes, 13)
}

fn friends(count: usize, bytes: usize) -> Vec<String> {
    let width = bytes - "friend".len();
    (0..count).map(|n| format!("friend{n:0>width$}")).collect()
}

fn request(friends: &[String]) -> Request<'_, String> {
    Request {
        operation_id: "1646445464564",
        owner: "user123",
        friends,
        // 2026-11-24.
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_478_400),
    }
}

/// A policy for imports of up to `max_friends` friends.
fn policy(rules: &str, max_friends: usize) -> Policy {
    let source = format!(
        "apiVersion: importguard/v1\nname: bench\nlists: {{ blocked: {{ file: blocked.txt }}, folded: {{ file: blocked.txt, fold: [case, space] }} }}\nrules:\n{rules}"
    );
    let text: String = (0..10_000).map(|n| format!("u{n:015}\n")).collect();
    let mut files = ListFiles::new();
    files.insert(
        "blocked.txt".to_owned(),
        Ok(lists::parse(text.as_bytes()).unwrap()),
    );
    let policy = Draft::read("bench.yaml", &source).compile_for(max_friends, &files);
    policy.unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}
