//! A policy file: read, compiled, and asked.
#![no_main]

use importguard_fuzz::decide;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    if let Err(diagnostics) = decide(source) {
        // Each mistake is told with its place in the text, which must be one.
        assert!(!diagnostics.to_string().is_empty());
    }
});
