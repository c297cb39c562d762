//! importguard
fn main() {}
