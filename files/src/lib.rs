//! Files that change while a process runs: policies, secrets and certificates. [`Files`] notices that, [`LastGood`] keeps what was
//! read from them last, and a file that cannot be used changes nothing but what is told about it.

mod last_good;
mod stamps;

pub use last_good::{LastGood, Reading, Watch};
pub use stamps::Files;
