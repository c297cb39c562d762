//! Measures evaluations and compares them with baselines: `cargo bench -p importguard-decider`.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{collections::HashSet, hint::black_box, path::Path, time::SystemTime};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use importguard_decider::{
    lists::{self, IdSet},
    load::load,
    policy::{Draft, ListFiles, Policy, Request},
};

criterion_group!(
    benches,
    shipped,
    many_friends,
    list_size,
    rules,
    expressions,
    loading
);
criterion_main!(benches);

fn request<'r, S>(owner: &'r str, friends: &'r [S]) -> Request<'r, S> {
    Request {
        operation_id: "1646445464564",
        owner,
        friends,
        now: SystemTime::UNIX_EPOCH,
    }
}

/// A policy with these rules, and a list `blocked` of IDs of 16 bytes.
fn policy(rules: &str, blocked: usize) -> Policy {
    let source = format!(
        "apiVersion: importguard/v1\nname: bench\nlists: {{ blocked: {{ file: blocked.txt }} }}\nrules:\n{rules}"
    );
    let text: String = (0..blocked).map(|n| format!("{}\n", id(n))).collect();
    let mut files = ListFiles::new();
    files.insert(
        "blocked.txt".to_owned(),
        Ok(lists::parse(text.as_bytes()).unwrap()),
    );
    Draft::read("bench.yaml", &source).compile(&files).unwrap()
}

fn id(n: usize) -> String {
    format!("u{n:015}")
}

/// Friends of which every tenth is in the list.
fn friends(count: usize, blocked: usize) -> Vec<String> {
    (0..count)
        .map(|n| {
            if n % 10 == 0 {
                id(n * 7 % blocked)
            } else {
                format!("friend{n:010}")
            }
        })
        .collect()
}

const DROP: &str = "- { id: drop, dropFriends: { in: blocked } }\n";

/// A typical import: two friends and the shipped policy.
fn shipped(c: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policy/policy.yaml");
    let policy = load(&path, importguard_decider::policy::DEFAULT_MAX_FRIENDS).unwrap();
    let friends = ["user456".to_owned(), "user789".to_owned()];
    let request = request("user123", &friends);
    c.bench_function("two friends, the shipped policy", |b| {
        b.iter(|| policy.evaluate(black_box(&request)))
    });
}

/// 10,000 friends against 100,000 ids, and the minimum work that this requires.
fn many_friends(c: &mut Criterion) {
    let mut group = c.benchmark_group("10,000 friends, 100,000 ids");
    let friends = friends(10_000, 100_000);
    let request = request("user123", &friends);
    let policy = policy(DROP, 100_000);
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("policy", |b| {
        b.iter(|| policy.evaluate(black_box(&request)))
    });

    let ids: Vec<String> = (0..100_000).map(id).collect();
    let blocked: HashSet<&str, ahash::RandomState> = ids.iter().map(String::as_str).collect();
    group.bench_function("bare loop over an ahash set", |b| {
        b.iter(|| -> Vec<&str> {
            let friends = black_box(&friends).iter().map(String::as_str);
            friends.filter(|friend| !blocked.contains(friend)).collect()
        });
    });
    group.finish();
}

/// The size of a list must not matter, apart from CPU caches.
fn list_size(c: &mut Criterion) {
    let mut group = c.benchmark_group("1,000 friends by list size");
    for blocked in [1_000, 10_000, 100_000, 1_000_000] {
        let policy = policy(DROP, blocked);
        let friends = friends(1_000, blocked);
        let request = request("user123", &friends);
        group.bench_function(BenchmarkId::from_parameter(blocked), |b| {
            b.iter(|| policy.evaluate(black_box(&request)))
        });
    }
    group.finish();
}

/// Cost is linear in rules and in friends.
fn rules(c: &mut Criterion) {
    let mut group = c.benchmark_group("friends x rules");
    for (count, rules) in [
        (100, 1),
        (1_000, 1),
        (10_000, 1),
        (1_000, 4),
        (1_000, 16),
        (1_000, 64),
    ] {
        let lines: String = (0..rules)
            .map(|n| format!("- {{ id: r{n}, dropFriends: {{ in: blocked }} }}\n"))
            .collect();
        let policy = policy(&lines, 10_000);
        let friends = friends(count, 10_000);
        let request = request("user123", &friends);
        group.bench_function(format!("{count} x {rules}"), |b| {
            b.iter(|| policy.evaluate(black_box(&request)))
        });
    }
    group.finish();
}

/// CEL compared with equivalent native rules.
fn expressions(c: &mut Criterion) {
    let mut group = c.benchmark_group("expressions");
    let refusal = "refusal: { code: 5100, message: no }";
    let two = ["user456".to_owned(), "user789".to_owned()];
    let many = friends(1_000, 1_000);
    for (name, rule, friends) in [
        (
            "refuseIf, 2 friends",
            format!("refuseIf: \"friendCount > 50 && !(ownerUserID in blocked)\", {refusal}"),
            &two[..],
        ),
        (
            "dropFriendIf, 1,000 friends",
            "dropFriendIf: \"friend.startsWith('bot_') || friend in blocked\", onError: skip"
                .to_owned(),
            &many,
        ),
        (
            "prefixes and in, 1,000 friends",
            "dropFriends: { prefixes: [bot_], in: blocked }".to_owned(),
            &many,
        ),
        (
            "matches, 1,000 friends",
            "dropFriends: { matches: ['^tmp[_-]', '[0-9]{16}$'] }".to_owned(),
            &many,
        ),
        (
            "rollout, 2 friends",
            "dropFriends: { in: blocked }, rollout: 50".to_owned(),
            &two[..],
        ),
    ] {
        let policy = policy(&format!("- {{ id: r, {rule} }}"), 1_000);
        let request = request("user123", friends);
        group.bench_function(name, |b| b.iter(|| policy.evaluate(black_box(&request))));
    }
    group.finish();
}

/// Loading, which is off the request path.
fn loading(c: &mut Criterion) {
    let mut group = c.benchmark_group("loading");
    group.sample_size(10);
    let text: String = (0..1_000_000).map(|n| format!("{}\n", id(n))).collect();
    let set = lists::parse(text.as_bytes()).unwrap();
    let each = set.ids.heap_bytes() as f64 / 1e6;
    let note = format!("a list of 1,000,000 ids, {each:.1} bytes an id in memory");
    group.bench_function(note, |b| {
        b.iter(|| lists::parse(black_box(text.as_bytes())))
    });
    let probe = id(500_000);
    let ids: &IdSet = &set.ids;
    group.bench_function("one look-up among 1,000,000", |b| {
        b.iter(|| ids.contains(black_box(&probe)))
    });
    group.finish();
}
