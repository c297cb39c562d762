//! The layers around the handlers. `app` has their order.

mod authentication;
mod credentials;
mod head;
mod trace;

pub(crate) use self::{authentication::Authentication, head::check_head, trace::trace};
pub use self::{authentication::CredentialsFileError, credentials::CredentialsError};
