//! What is kept and written about each request: its time, its log lines and its spans.

mod clock;
pub(crate) mod log;
pub(crate) mod span;

pub(crate) use self::{clock::Clock, log::RequestLog, span::RequestResult};
