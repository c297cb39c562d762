//! Who decides: a decider over gRPC, or the operator's fallback for the cause that kept it from answering.
//!
//! `client` asks, in the words of `codec`; `pods` knows the deciders and who of them is the least busy, `pod` one of them and how it is. `keeper` keeps
//! that true: `resolve` finds their addresses, `connect` connects, `tls` says how, `link` is the connection.

mod client;
mod codec;
mod connect;
mod decision;
mod error;
mod fallback;
mod keeper;
mod link;
mod metrics;
mod pod;
mod pods;
mod resolve;
mod settings;
mod tls;
mod urls;
mod verify;

pub(crate) use client::Deciders;
pub use client::DecidersStartError;
pub use decision::{Decision, Evidence, Kept, Source, Verdict};
pub use error::DecideError;
pub use fallback::{Fallback, FallbackSettings, OnFailure};
pub(crate) use keeper::Keeper;
pub use settings::{DecideSettings, DeciderTlsSettings};
pub use tls::InvalidDeciderTls;
pub use urls::{DeciderUrls, InvalidDeciderUrls};
