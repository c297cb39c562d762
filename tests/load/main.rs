//! importguard under load while things go wrong: nothing is lost, and no verdict changes. Cargo runs this after the other tests, and
//! most of these take turns, so that what they ask for in a second is theirs to have.

// A helper that finds something else than it expects stops its test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../e2e/asserts.rs"]
#[allow(dead_code, reason = "the other tests say more")]
mod asserts;
mod chaos;
mod cluster;
mod deciders;
mod lists;
mod mtls;
mod soak;
