//! An expression in CEL wherever a policy may have one: compiled and evaluated.
#![no_main]

use std::thread;

use importguard_fuzz::decide;
use libfuzzer_sys::fuzz_target;

/// As much as a decider's threads have, on which expressions are evaluated.
const STACK_BYTES: usize = 2 << 20;

fuzz_target!(|source: &str| {
    // A JSON string is a YAML string.
    let source = serde_json::to_string(source).unwrap();
    let policies = [
        format!("refuseIf: {source}, refusal: {{ code: 5100, message: no }}"),
        format!("dropFriendIf: {source}, onError: skip"),
        format!("limitFriends: {{ max: 2, onExceed: truncate }}, when: {source}, onError: skip"),
    ];
    thread::scope(|threads| {
        let deciding = thread::Builder::new().stack_size(STACK_BYTES);
        let decided = deciding.spawn_scoped(threads, || {
            for rule in &policies {
                let policy = format!(
                    "apiVersion: importguard/v1\nname: fuzz\nlists:\n  blocked: {{ file: lists/blocked.txt }}\nrules:\n- {{ id: rule, {rule} }}\n"
                );
                if let Err(diagnostics) = decide(&policy) {
                    assert!(!diagnostics.to_string().is_empty());
                }
            }
        });
        decided.unwrap().join().unwrap();
    });
});
