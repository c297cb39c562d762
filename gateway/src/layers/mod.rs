//! The layers around the handlers. `app` has their order.

mod authentication;
mod credentials;
mod head;
mod trace;

pub(crate) use self::{authentication::Authentication, head::HeadCheck, trace::trace};
pub use self::{authentication::CredentialsFileError, credentials::CredentialsError};
