//! Files that change while a process runs: policies, secrets and certificates. [`Files`] notices that, [`LastGood`] keeps what was
//! read from them last, and a file that cannot be used changes nothing but what is told about it; [`Reloads`] tells.

mod certificates;
mod last_good;
mod reloads;
mod stamps;

pub use certificates::{InvalidCertificate, certified_key, root_store};
pub use last_good::{LastGood, Reading, Watch};
pub use reloads::Reloads;
pub use stamps::Files;
