//! OpenIM on the wire: commands, the two dialects, requests and answers. Pure: bytes in, bytes out.

mod answer;
mod command;
mod operation_id;
mod rejection;
mod request;
mod route;

pub use answer::Answer;
pub(crate) use answer::encode_rejection;
pub use command::{BasePath, Command, InvalidBasePath, another, recognise};
pub use operation_id::{OnMissingOperationId, operation_id};
pub use rejection::{Reason, Rejection};
pub use request::{ImportRequest, Limits};
pub(crate) use route::Route;
