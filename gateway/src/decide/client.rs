use std::{error::Error as _, time::Duration};

use importguard_proto::{
    decider::{DecideRequest, decider_client::DeciderClient},
    event::Cause,
};
use importguard_telemetry::{propagation, whole_text};
use tokio::time::timeout;
use tonic::{
    Code, Extensions, Request, Status, TimeoutExpired,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use tracing::{Instrument, Span, field::Empty, info_span};

use super::{DecideSettings, Evidence, Verdict, verify::verify};
use crate::{callback::ImportRequest, record::EventId};

/// The method's full name, as spans have it.
const METHOD: &str = "importguard.decider.v1.Decider/Decide";

/// The deciders, over one channel that connects when it is first used and again when it breaks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Deciders {
    client: DeciderClient<Channel>,
}

/// The setting does not name a decider.
#[derive(Debug, thiserror::Error)]
#[error(
    "IMPORTGUARD_DECIDER_URL={url} is no URL of a decider: {reason}; write for example http://127.0.0.1:50051"
)]
pub struct InvalidDeciderUrl {
    url: String,
    reason: String,
}

/// Why a decider's verdict could not be had. `Display` says what happened, for the log.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// No decider could be reached, or the connection broke.
    #[error("no decider can be reached: {0}")]
    Unavailable(String),
    /// No answer came in time.
    #[error("the decider did not answer within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The answer was an error, or no verdict.
    #[error("the decider failed: {0}")]
    Failed(String),
}

impl DecideError {
    /// The fallback's cause.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Unavailable(_) => Cause::DeciderUnavailable,
            Self::Timeout(_) => Cause::DeciderTimeout,
            Self::Failed(_) => Cause::DeciderFailed,
        }
    }
}

impl Deciders {
    /// Prepares the channel; needs no decider to be there yet. Must be called inside a tokio runtime.
    pub fn new(settings: &DecideSettings) -> Result<Self, InvalidDeciderUrl> {
        let invalid = |reason: String| InvalidDeciderUrl {
            url: settings.decider_url.clone(),
            reason,
        };
        let endpoint = Endpoint::from_shared(settings.decider_url.clone())
            .map_err(|error| invalid(error.to_string()))?;
        if endpoint.uri().scheme_str() != Some("http") {
            return Err(invalid("it does not begin with http://".to_owned()));
        }
        let channel = endpoint
            .connect_timeout(settings.decider_timeout)
            .tcp_nodelay(true)
            .connect_lazy();
        Ok(Self {
            client: DeciderClient::new(channel),
        })
    }

    /// Asks for a verdict on `request` and checks it; gives up after `within`.
    pub async fn decide(
        &self,
        id: &EventId,
        request: &ImportRequest,
        within: Duration,
    ) -> Result<(Verdict, Evidence), DecideError> {
        let span = info_span!(
            "decide",
            otel.name = METHOD,
            otel.kind = "client",
            rpc.system.name = "grpc",
            rpc.method = METHOD,
            rpc.response.status_code = Empty,
            otel.status_code = Empty,
            otel.status_description = Empty,
        );
        let result = self
            .call(id, request, within)
            .instrument(span.clone())
            .await;
        if let Err(error) = &result {
            span.record("otel.status_code", "ERROR");
            span.record("otel.status_description", error.to_string());
        }
        result
    }

    async fn call(
        &self,
        id: &EventId,
        request: &ImportRequest,
        within: Duration,
    ) -> Result<(Verdict, Evidence), DecideError> {
        let message = DecideRequest {
            decision_id: id.to_string(),
            operation_id: request.operation_id.to_string(),
            owner_user_id: request.owner.to_string(),
            friend_user_ids: request.friends.iter().map(ToString::to_string).collect(),
        };
        let metadata = MetadataMap::from_headers(propagation::outgoing());
        let mut question = Request::from_parts(metadata, Extensions::default(), message);
        // The decider learns the deadline too and stops working on what nobody waits for.
        question.set_timeout(within);
        let mut client = self.client.clone();
        let answer = match timeout(within, client.decide(question)).await {
            Ok(answer) => answer,
            Err(_) => return Err(DecideError::Timeout(within)),
        };
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        Span::current().record("rpc.response.status_code", code_name(code));
        match answer {
            Ok(response) => verify(response.into_inner(), request).map_err(|reason| {
                DecideError::Failed(format!("its answer cannot be used: {reason}"))
            }),
            Err(status) => Err(failure(&status, within)),
        }
    }
}

/// The status's message and what lies beneath it: tonic's own stops at "transport error".
fn text(status: &Status) -> String {
    match status.source() {
        Some(source) => whole_text(source),
        None => status.message().to_owned(),
    }
}

/// tonic reports a connection that breaks under a call as `Unknown` or, like a deadline that passed, as `Cancelled`: what the
/// status was made from tells them apart. A decider's own word, for its deadline too, is made from nothing.
fn failure(status: &Status, within: Duration) -> DecideError {
    let made_from = || std::iter::successors(status.source(), |error| (*error).source());
    let deadline = || made_from().any(|error| error.is::<TimeoutExpired>());
    let broken = || made_from().next().is_some();
    match status.code() {
        Code::DeadlineExceeded => DecideError::Timeout(within),
        Code::Cancelled if deadline() || !broken() => DecideError::Timeout(within),
        Code::Unavailable => DecideError::Unavailable(text(status)),
        Code::Unknown | Code::Cancelled if broken() => DecideError::Unavailable(text(status)),
        code => DecideError::Failed(format!("{}: {}", code_name(code), status.message())),
    }
}

/// The code as gRPC's specification spells it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
