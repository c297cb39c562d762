//! Why a request is answered before anybody decides about it.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use importguard_core::IdError;

/// A request that does not come as far as a decision. `Display` is the answer's `errDlt`: what happened, and what to do.
///
/// As a response it has no body yet: [`answer`](super::answer::answer) writes that in the dialect of the request, which who
/// rejects need not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The request line names no callback that importguard knows.
    #[error(
        "importguard answers callbackBeforeImportFriendsCommand and callbackAfterImportFriendsCommand in the path, or command=ImportFriendReqBeforeCommand in the query, below its base path"
    )]
    UnknownCommand,
    /// The request line and the query or the body name different callbacks.
    #[error(
        "the request line asks for {expected} and the query or the body for {found:?}: they must agree"
    )]
    CommandMismatch {
        /// What the request line names.
        expected: &'static str,
        /// What was found elsewhere.
        found: String,
    },
    /// The caller does not show that it may ask.
    #[error(
        "callbacks come with a password or a token that the operator has chosen: user:password@ in OpenIM's url is sent as one"
    )]
    Unauthorised,
    /// OpenIM only ever posts.
    #[error("callbacks are sent with POST")]
    MethodNotAllowed,
    /// The body says that it is no JSON, or that it is compressed.
    #[error("send the body as plain JSON with Content-Type: application/json")]
    UnsupportedMediaType,
    /// The body cannot be read as the callback's request.
    #[error("{0}")]
    Malformed(String),
    /// The body, or the list in it, is larger than allowed.
    #[error("{what} may have {max} {unit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it may be.
        max: usize,
        /// In which unit.
        unit: &'static str,
    },
    /// The request line and the headers are too large together, or the headers too many.
    #[error(
        "the request line and the headers are too large together (IMPORTGUARD_MAX_HEADER_BYTES), or there are more than 100 headers"
    )]
    HeadTooLarge,
    /// The URL alone is too long.
    #[error("the URL is too long (IMPORTGUARD_MAX_HEADER_BYTES)")]
    UriTooLong,
    /// The body did not arrive in time.
    #[error("the body did not arrive in time (IMPORTGUARD_BODY_READ_TIMEOUT)")]
    TooSlow,
    /// The operator's other backend cannot be reached.
    #[error(
        "the backend for OpenIM's other callbacks cannot be reached: check IMPORTGUARD_UPSTREAM"
    )]
    UpstreamUnavailable,
    /// The operator's other backend does not answer.
    #[error(
        "the backend for OpenIM's other callbacks did not answer in time (IMPORTGUARD_UPSTREAM_TIMEOUT)"
    )]
    UpstreamTimeout,
    /// There is no time for it.
    #[error("more callbacks came than can be answered in time; try again later")]
    Overloaded,
    /// There is no header `operationID`.
    #[error("every callback carries a header operationID")]
    OperationIdMissing,
    /// The header `operationID` is unusable.
    #[error("the header operationID is unusable: {0}")]
    OperationIdInvalid(IdError),
    /// There are several headers `operationID`.
    #[error("the header operationID is there more than once")]
    OperationIdRepeated,
    /// importguard has a fault.
    #[error("importguard failed; its log says where")]
    Internal,
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        if self == Self::MethodNotAllowed {
            let post = HeaderValue::from_static("POST");
            response.headers_mut().insert(header::ALLOW, post);
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl Rejection {
    /// Every [`code`](Self::code).
    pub(crate) const CODES: [i32; 9] = [5900, 5901, 5902, 5903, 5904, 5910, 5911, 5913, 5915];

    /// What a status means that a library responded with by itself.
    pub(crate) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::NOT_FOUND => Self::UnknownCommand,
            _ => Self::Internal,
        }
    }

    /// The answer's HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownCommand => StatusCode::NOT_FOUND,
            Self::Unauthorised => StatusCode::UNAUTHORIZED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::UpstreamUnavailable => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::CommandMismatch { .. }
            | Self::Malformed(_)
            | Self::OperationIdMissing
            | Self::OperationIdInvalid(_)
            | Self::OperationIdRepeated => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether a report of something done is answered as if all were well. The operator's backend decides about those that it
    /// gets.
    pub(crate) fn excuses_reports(&self) -> bool {
        !matches!(
            self,
            Self::Unauthorised | Self::UpstreamUnavailable | Self::UpstreamTimeout
        )
    }

    /// The answer's `errCode`; 5900–5999 are importguard's own.
    pub fn code(&self) -> i32 {
        match self {
            Self::CommandMismatch { .. }
            | Self::MethodNotAllowed
            | Self::UnsupportedMediaType
            | Self::Malformed(_)
            | Self::TooSlow => 5900,
            Self::UnknownCommand => 5901,
            Self::Unauthorised => 5902,
            Self::TooLarge { .. } | Self::HeadTooLarge | Self::UriTooLong => 5903,
            Self::OperationIdMissing | Self::OperationIdInvalid(_) | Self::OperationIdRepeated => {
                5904
            }
            // Whoever decides about these is out of reach, or late.
            Self::UpstreamUnavailable => 5910,
            Self::UpstreamTimeout => 5911,
            Self::Overloaded => 5913,
            Self::Internal => 5915,
        }
    }

    /// The answer's `errMsg`.
    pub fn message(&self) -> &'static str {
        match self {
            Self::UnknownCommand => "unknown command",
            Self::Unauthorised => "unauthorised",
            Self::CommandMismatch { .. } => "command mismatch",
            Self::MethodNotAllowed => "method not allowed",
            Self::UnsupportedMediaType => "unsupported media type",
            Self::Malformed(_) => "malformed request",
            Self::TooLarge { .. } | Self::HeadTooLarge | Self::UriTooLong => "request too large",
            Self::TooSlow => "request too slow",
            Self::OperationIdMissing | Self::OperationIdInvalid(_) | Self::OperationIdRepeated => {
                "operationID missing or unusable"
            }
            Self::UpstreamUnavailable => "backend unavailable",
            Self::UpstreamTimeout => "backend timed out",
            Self::Overloaded => "overloaded",
            Self::Internal => "internal error",
        }
    }
}
