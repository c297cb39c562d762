//! The callbacks that are not importguard's.

use http::{Response, request::Parts};
use http_body_util::Either;
use tracing::warn;

use super::{End, Guard, Told};
use crate::{
    callback::{Reason, Rejection, another},
    serve::{Received, Room},
    upstream::{Upstream, UpstreamError},
};

/// A callback for the operator's backend.
pub(super) struct Other<'a> {
    upstream: &'a Upstream,
    below: &'a str,
}

impl Guard {
    /// Whether a request that is none of importguard's is one for the backend.
    pub(super) fn other<'a>(&'a self, head: &'a Parts) -> Option<Other<'a>> {
        let upstream = self.upstream.as_ref()?;
        let below = another(&self.base_path, head.uri.path(), head.uri.query())?;
        Some(Other { upstream, below })
    }
}

impl Other<'_> {
    /// Passes it on, and the answer back as it is.
    pub(super) async fn pass(
        self,
        rejection: Rejection,
        head: &Parts,
        body: Received,
        room: Room,
    ) -> Result<Told, Rejection> {
        let passed = match room {
            Room::Free => self.upstream.pass(self.below, head, body).await,
            Room::None => Err(UpstreamError::Overloaded),
        };
        let error = match passed {
            Ok(answer) => {
                return Ok(Told {
                    response: Response::map(answer, Either::Right),
                    end: End::Done(None),
                });
            }
            Err(error) => error,
        };
        let reason = match error {
            UpstreamError::Unavailable(_) => Reason::UpstreamUnavailable,
            UpstreamError::Timeout(_) => Reason::UpstreamTimeout,
            UpstreamError::Overloaded => Reason::Overloaded,
        };
        // An overload would flood the log; it is counted as a rejection.
        if !matches!(error, UpstreamError::Overloaded) {
            warn!("{error}; the callback is refused: check IMPORTGUARD_UPSTREAM");
        }
        Err(Rejection {
            reason,
            ..rejection
        })
    }
}
