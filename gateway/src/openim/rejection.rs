//! Errors that end a request before a decision.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use importguard_core::IdError;

/// Why a request is rejected without a decision. `Display` is the response's `errDlt`: what happened and what to do.
///
/// As a response it has no body yet: `complete` adds one in the dialect of the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The request line names none of OpenIM's callbacks.
    #[error(
        "the URL must be the base path (IMPORTGUARD_BASE_PATH) followed directly by /callbackBeforeImportFriendsCommand, /callbackAfterImportFriendsCommand or ?command=ImportFriendReqBeforeCommand"
    )]
    UnknownCommand,
    /// The callback is another one of OpenIM's, and no upstream backend is set.
    #[error(
        "importguard itself handles only the callbacks of friend imports; set IMPORTGUARD_UPSTREAM to forward the others to a backend, or disable this one in OpenIM"
    )]
    NoUpstream,
    /// The request line and the query or the body name different callbacks.
    #[error(
        "the request line names {expected}, but the query or body names {found:?}; they must match"
    )]
    CommandMismatch {
        /// The callback that the request line names.
        expected: &'static str,
        /// The callback that the query or body names.
        found: String,
    },
    /// The credentials are missing or wrong.
    #[error("missing or wrong credentials; set user:password@ in OpenIM's webhook URL")]
    Unauthorised,
    /// The method is not POST.
    #[error("callbacks must use POST")]
    MethodNotAllowed,
    /// The body is not declared as JSON, or it is compressed.
    #[error(
        "send the body as plain JSON, with Content-Type: application/json and without Content-Encoding"
    )]
    UnsupportedMediaType,
    /// The body cannot be parsed.
    #[error("{0}")]
    Malformed(String),
    /// The body, or the list in it, is larger than allowed.
    #[error("{what} must not exceed {max} {unit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The limit.
        max: usize,
        /// The limit's unit.
        unit: &'static str,
    },
    /// The request line and the headers are too large together, or the headers too many.
    #[error(
        "the request line and headers exceed IMPORTGUARD_MAX_HEADER_BYTES, or there are more than 100 headers"
    )]
    HeadTooLarge,
    /// The URL alone is too long.
    #[error("the URL exceeds IMPORTGUARD_MAX_HEADER_BYTES")]
    UriTooLong,
    /// The body did not arrive in time.
    #[error("the body did not arrive within IMPORTGUARD_BODY_READ_TIMEOUT")]
    TooSlow,
    /// The upstream backend is unreachable.
    #[error("the backend for OpenIM's other callbacks is unreachable; check IMPORTGUARD_UPSTREAM")]
    UpstreamUnavailable,
    /// The upstream backend timed out.
    #[error(
        "the backend for OpenIM's other callbacks did not respond within IMPORTGUARD_UPSTREAM_TIMEOUT"
    )]
    UpstreamTimeout,
    /// The gateway is overloaded.
    #[error("too many callbacks; try again later")]
    Overloaded,
    /// The caller has not read the responses on its connection.
    #[error("earlier responses on this connection are unread; read them, and try again")]
    UnreadResponses,
    /// The header `operationID` is missing.
    #[error("the header operationID is missing")]
    OperationIdMissing,
    /// The header `operationID` is invalid.
    #[error("invalid header operationID: {0}")]
    OperationIdInvalid(IdError),
    /// The header `operationID` is repeated.
    #[error("the header operationID occurs more than once")]
    OperationIdRepeated,
    /// An internal error.
    #[error("internal error; see importguard's log")]
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

impl From<Rejection> for Response {
    fn from(rejection: Rejection) -> Self {
        rejection.into_response()
    }
}

impl Rejection {
    /// Every [`code`](Self::code).
    pub(crate) const CODES: [i32; 9] = [5900, 5901, 5902, 5903, 5904, 5910, 5911, 5913, 5915];

    /// The rejection for a status that a library set.
    pub(crate) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::NOT_FOUND => Self::UnknownCommand,
            _ => Self::Internal,
        }
    }

    /// The answer's HTTP status, `errCode` and `errMsg`.
    fn parts(&self) -> (StatusCode, i32, &'static str) {
        match self {
            Self::UnknownCommand | Self::NoUpstream => {
                (StatusCode::NOT_FOUND, 5901, "unknown command")
            }
            Self::CommandMismatch { .. } => (StatusCode::BAD_REQUEST, 5900, "command mismatch"),
            Self::Unauthorised => (StatusCode::UNAUTHORIZED, 5902, "unauthorised"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, 5900, "method not allowed"),
            Self::UnsupportedMediaType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                5900,
                "unsupported media type",
            ),
            Self::Malformed(_) => (StatusCode::BAD_REQUEST, 5900, "malformed request"),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, 5903, "request too large"),
            Self::HeadTooLarge => (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                5903,
                "request too large",
            ),
            Self::UriTooLong => (StatusCode::URI_TOO_LONG, 5903, "request too large"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, 5900, "request too slow"),
            Self::UpstreamUnavailable => (StatusCode::BAD_GATEWAY, 5910, "backend unavailable"),
            Self::UpstreamTimeout => (StatusCode::GATEWAY_TIMEOUT, 5911, "backend timed out"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, 5913, "overloaded"),
            Self::UnreadResponses => (StatusCode::SERVICE_UNAVAILABLE, 5913, "responses not read"),
            Self::OperationIdMissing | Self::OperationIdInvalid(_) | Self::OperationIdRepeated => (
                StatusCode::BAD_REQUEST,
                5904,
                "operationID missing or unusable",
            ),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, 5915, "internal error"),
        }
    }

    /// The answer's HTTP status.
    pub fn status(&self) -> StatusCode {
        self.parts().0
    }

    /// The answer's `errCode`; 5900–5999 are importguard's own.
    pub fn code(&self) -> i32 {
        self.parts().1
    }

    /// The answer's `errMsg`.
    pub fn message(&self) -> &'static str {
        self.parts().2
    }

    /// Whether a callback after something is answered with success despite this rejection. That its backend does not respond is passed
    /// on, as the backend's own errors are.
    pub(crate) fn allows_after(&self) -> bool {
        !matches!(
            self,
            Self::Unauthorised | Self::UpstreamUnavailable | Self::UpstreamTimeout
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_fits_each_cause() {
        let text = Rejection::UnsupportedMediaType.to_string();
        assert!(
            text.contains("Content-Type") && text.contains("Content-Encoding"),
            "{text}"
        );
        let text = Rejection::UnknownCommand.to_string();
        assert!(
            text.contains("the base path (IMPORTGUARD_BASE_PATH)"),
            "{text}"
        );
    }
}
