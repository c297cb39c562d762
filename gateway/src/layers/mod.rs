//! The layers around the handlers. `app` has their order.

mod authentication;
mod trace;

pub use self::authentication::{CredentialsError, CredentialsFileError};
pub(crate) use self::{authentication::Authentication, trace::trace};
