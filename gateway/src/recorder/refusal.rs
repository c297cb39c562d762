//! Classifies why NATS did not acknowledge an event: the cause concerns this event, its subject, or all events.

use std::{error::Error, time::Duration};

use async_nats::jetstream::{
    self, ErrorCode,
    context::{PublishError, PublishErrorKind},
};

use super::settings::{BACKGROUND_TIMEOUT, STREAM};
use crate::spool::ParkReason;

/// Why NATS did not acknowledge an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AckError {
    #[error("NATS gave no ack within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    #[error("the connection to NATS is lost")]
    Disconnected,
    /// The stream or its leader may be missing, or the stream may lack the event's subject.
    #[error("no stream takes the events' subjects, or JetStream is off")]
    NoStream,
    #[error("the stream {STREAM} refuses events: {0}")]
    StreamRefuses(String),
    /// A stream of this name in another JetStream domain has it. The right one may have it, too: only the first ack is seen.
    #[error(
        "the stream {STREAM} of the JetStream domain {0:?} takes the events, too: deny `importguard.v1.>` on the connection of the leaf node (`deny_exports` in its remote), or give that stream other subjects"
    )]
    OtherDomain(String),
    /// The leader of the stream has the event from an earlier attempt, and waits for the servers with the copies.
    #[error(
        "NATS has not stored an event yet that it was sent before: too few servers with a copy of the stream {STREAM} respond, start them"
    )]
    NotStoredYet,
    #[error("NATS refuses an event: {}", .0.detail)]
    Refused(Refusal),
}

/// NATS refuses an event or all events on its subject, but may accept others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: ParkReason,
    /// What is wrong and how to fix it.
    pub(super) detail: String,
    /// Whether the event may be in the stream all the same, because it was not JetStream that answered.
    pub(super) may_be_stored: bool,
}

impl Refusal {
    fn of(reason: ParkReason, detail: String) -> Self {
        Self {
            reason,
            detail,
            may_be_stored: false,
        }
    }

    pub(super) fn subject_missing(subject: &str) -> Self {
        Self::of(
            ParkReason::SubjectMissing,
            format!(
                "the stream {STREAM} does not have the subject {subject}: `nats stream edit {STREAM} --subjects 'importguard.v1.>'`"
            ),
        )
    }

    pub(super) fn permission_denied(subject: &str) -> Self {
        Self::of(
            ParkReason::PermissionDenied,
            format!(
                "the gateway's NATS user may not publish to {subject}: allow `importguard.v1.>` in its permissions"
            ),
        )
    }

    pub(super) fn other_stream(subject: &str, stream: &str) -> Self {
        Self::of(
            ParkReason::OtherStream,
            format!(
                "the stream {stream} has the subject {subject}: take it from that one and give it to {STREAM}, `nats stream edit {STREAM} --subjects 'importguard.v1.>'`"
            ),
        )
    }
}

impl AckError {
    /// Returns whether the event may be in the stream despite the error.
    pub(super) fn may_be_stored(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Disconnected | Self::OtherDomain(_) | Self::NotStoredYet => {
                true
            }
            Self::Refused(refusal) => refusal.may_be_stored,
            Self::NoStream | Self::StreamRefuses(_) => false,
        }
    }

    fn answered(error: &jetstream::Error) -> Self {
        let text = error.to_string();
        match error.error_code() {
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
            | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => Self::Refused(Refusal::of(
                ParkReason::TooLarge,
                format!("{text}: raise its limit, `nats stream edit {STREAM} --max-msg-size=-1`"),
            )),
            // One subject may be full while others are not. NATS has no separate error code for this.
            ErrorCode::STREAM_STORE_FAILED if text.contains("per subject") => {
                Self::Refused(Refusal::of(
                    ParkReason::Refused,
                    format!(
                        "{text}: `nats stream edit {STREAM} --discard old --no-discard-per-subject --max-msgs-per-subject=-1`"
                    ),
                ))
            }
            ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => Self::NotStoredYet,
            // The other errors of nats-server 2.15 are about the stream, the account or the server, or about headers that no event has.
            // Parking all events for an error of the stream would end the wait for its recovery.
            _ => Self::StreamRefuses(text),
        }
    }
}

impl From<PublishError> for AckError {
    fn from(error: PublishError) -> Self {
        let source = error.source();
        let answered = source.and_then(|source| source.downcast_ref::<jetstream::Error>());
        let detail = source.map_or_else(|| error.to_string(), ToString::to_string);
        match (error.kind(), answered) {
            (PublishErrorKind::TimedOut, _) => Self::Timeout(BACKGROUND_TIMEOUT),
            (PublishErrorKind::StreamNotFound, _) => Self::NoStream,
            (PublishErrorKind::BrokenPipe, _) => Self::Disconnected,
            // Too many acks are outstanding, which is not the fault of this event.
            (PublishErrorKind::MaxAckPending, _) => Self::StreamRefuses(detail),
            // The client's text has the size of the message: each event would be refused for another reason.
            (PublishErrorKind::MaxPayloadExceeded, _) => Self::Refused(Refusal::of(
                ParkReason::TooLarge,
                format!(
                    "{}: raise `max_payload` in nats-server's configuration",
                    error.kind()
                ),
            )),
            (_, Some(answered)) => Self::answered(answered),
            _ if source.is_some_and(|source| source.is::<serde_json::Error>()) => {
                Self::Refused(Refusal {
                    may_be_stored: true,
                    ..Refusal::of(
                        ParkReason::Refused,
                        format!("something else than JetStream answered: {detail}"),
                    )
                })
            }
            // The client has stopped and could not send the event.
            _ => Self::Disconnected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u64, err_code: u64, description: &str) -> AckError {
        let answer =
            serde_json::json!({"code": code, "err_code": err_code, "description": description});
        AckError::answered(&serde_json::from_value(answer).unwrap())
    }

    #[test]
    fn an_answer_about_one_event_leaves_the_others_alone() {
        let reason = |error| match error {
            AckError::Refused(refusal) => Some(refusal.reason),
            _ => None,
        };
        let too_large = answer(400, 10054, "message size exceeds maximum allowed");
        assert_eq!(reason(too_large), Some(ParkReason::TooLarge));
        let full = answer(503, 10077, "maximum messages per subject exceeded");
        assert_eq!(reason(full), Some(ParkReason::Refused));
    }

    #[test]
    fn an_answer_about_the_stream_or_the_server_is_about_every_event() {
        for (code, err_code, description) in [
            (400, 10109, "invalid operation on sealed stream"),
            (503, 10077, "maximum messages exceeded"),
            (503, 10077, "maximum bytes exceeded"),
            (400, 10002, "resource limits exceeded for account"),
            (503, 10023, "insufficient resources"),
            (500, 10118, "stream is offline"),
            (429, 10167, "too many requests"),
            (400, 10169, "message counter increment is missing"),
            (400, 10999, "the moon is full"),
        ] {
            let error = answer(code, err_code, description);
            assert!(matches!(error, AckError::StreamRefuses(_)), "{error:?}");
            assert!(error.to_string().contains(description), "{error}");
        }
    }

    #[test]
    fn an_event_that_is_being_stored_is_not_refused() {
        let error = answer(409, 10158, "duplicate message id is in process");
        assert_eq!(error, AckError::NotStoredYet);
        assert!(error.may_be_stored());
    }

    #[test]
    fn all_events_that_are_too_large_are_refused_for_one_reason() {
        let error = |size: usize| {
            let text = format!("Payload size limit of 600 exceeded by message size of {size}");
            AckError::from(PublishError::with_source(
                PublishErrorKind::MaxPayloadExceeded,
                text,
            ))
        };
        assert_eq!(error(700), error(800));
    }

    #[test]
    fn an_event_may_be_stored_although_somebody_else_answered() {
        let not_json = serde_json::from_str::<()>("+ACK").unwrap_err();
        let foreign = PublishError::with_source(PublishErrorKind::Other, not_json);
        assert!(AckError::from(foreign).may_be_stored());
        let too_large = answer(400, 10054, "message size exceeds maximum allowed");
        assert!(!too_large.may_be_stored());
    }
}
