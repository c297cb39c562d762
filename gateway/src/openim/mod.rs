//! OpenIM's wire format: commands, the two dialects, requests and answers.

mod answer;
mod command;
mod operation_id;
mod rejection;
mod request;

#[cfg(test)]
pub(crate) use answer::Wire;
pub use answer::{Answer, Refusals};
pub use command::{BasePath, BasePathError, Callback, Command, Target};
pub(crate) use command::{Route, callback_name};
pub use operation_id::{OnMissingOperationId, operation_id};
pub use rejection::Rejection;
#[cfg(test)]
pub(crate) use request::Body as RequestBody;
pub use request::{acceptable, parse};
