//! The policy engine over gRPC.

use std::time::{Instant, SystemTime};

use importguard_core::{Evaluation, IdError, ImportRequest, Match, OperationId, VerdictKind};
use importguard_proto::decider::{DecideRequest, DecideResponse, decider_server};
use importguard_runtime::LastGood;
use importguard_telemetry::{
    propagation,
    span::{self, KeyValue, ServerSpan},
};
use tonic::{Code, Request, Response, Status};
use tracing::debug;

use crate::{
    evaluation::{DeadlineExceededError, Evaluations},
    lists::live::Watch,
    metrics::{CallResult, Metrics},
    reload::Active,
};

/// The full method name in spans.
pub(crate) const METHOD: &str = "importguard.decider.v1.Decider/Decide";

/// Serves `Decide` with the policy that is active at the time of the call.
pub(crate) struct DeciderService {
    pub(crate) policy: LastGood<Active>,
    pub(crate) live: Watch,
    pub(crate) evaluations: Evaluations,
    pub(crate) metrics: Metrics,
    pub(crate) instance: String,
    pub(crate) max_friends: usize,
}

impl DeciderService {
    /// Evaluates a request until `deadline`.
    async fn answer(
        &self,
        operation_id: Result<OperationId, IdError>,
        message: DecideRequest,
        deadline: Instant,
    ) -> Result<(VerdictKind, DecideResponse), Status> {
        if !self.live.status().is_ready() {
            return Err(Status::unavailable(
                "live lists are not current (IMPORTGUARD_ON_STALE_LISTS=not-ready)",
            ));
        }
        let request = self.request(operation_id, message)?;
        let friends = request.friends.len();
        let policy = self.policy.load();
        let live = self.live.load();
        let evaluated = self
            .evaluations
            .evaluate((policy, live), request, deadline)
            .await;
        let evaluation = evaluated.map_err(|DeadlineExceededError| {
            Status::deadline_exceeded("deadline exceeded while evaluating the policy")
        })?;
        record(friends, &evaluation);
        let verdict = evaluation.verdict.kind();
        let response = DecideResponse::of(evaluation, self.instance.clone());
        Ok((verdict, response))
    }

    fn request(
        &self,
        operation_id: Result<OperationId, IdError>,
        message: DecideRequest,
    ) -> Result<ImportRequest, Status> {
        let operation_id = operation_id
            .map_err(|why| Status::invalid_argument(format!("metadata operationid: {why}")))?;
        let friends = message.friend_user_ids.len();
        if friends > self.max_friends {
            return Err(Status::invalid_argument(format!(
                "friend_user_ids has {friends} IDs, more than IMPORTGUARD_DECIDER_MAX_FRIENDS={}",
                self.max_friends
            )));
        }
        let request = message.into_request(operation_id);
        request.map_err(|why| Status::invalid_argument(why.to_string()))
    }
}

#[tonic::async_trait]
impl decider_server::Decider for DeciderService {
    async fn decide(
        &self,
        request: Request<DecideRequest>,
    ) -> Result<Response<DecideResponse>, Status> {
        let timer = self.metrics.call();
        let (metadata, _, message) = request.into_parts();
        let deadline = self.evaluations.deadline(&metadata);
        let headers = metadata.into_headers();
        let operation_id = propagation::metadata_operation_id(&headers);
        let id = operation_id.as_ref().ok();
        let span = ServerSpan::start(&headers, id, METHOD, SystemTime::now());
        let answer = self.answer(operation_id, message, deadline);
        let answer = span.instrument(answer).await;
        span.in_scope(|| timer.end(result(&answer)));
        record_status(&span, answer.as_ref().err());
        answer.map(|(_, response)| Response::new(response))
    }
}

fn result(answer: &Result<(VerdictKind, DecideResponse), Status>) -> CallResult {
    match answer {
        Ok((verdict, _)) => CallResult::Verdict(*verdict),
        Err(status) if status.code() == Code::DeadlineExceeded => CallResult::DeadlineExceeded,
        Err(status) if status.code() == Code::Unavailable => CallResult::Unavailable,
        Err(_) => CallResult::InvalidArgument,
    }
}

/// Records a call's status on its span. By OpenTelemetry's conventions for gRPC servers, DEADLINE_EXCEEDED and UNAVAILABLE are errors
/// and INVALID_ARGUMENT is not.
fn record_status(span: &ServerSpan, status: Option<&Status>) {
    let (code, failed) = match status.map(Status::code) {
        None => ("OK", false),
        Some(Code::DeadlineExceeded) => ("DEADLINE_EXCEEDED", true),
        Some(Code::Unavailable) => ("UNAVAILABLE", true),
        Some(_) => ("INVALID_ARGUMENT", false),
    };
    span.set(|| {
        let error = failed.then(|| KeyValue::new("error.type", code));
        let rpc = [
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", METHOD),
            KeyValue::new("rpc.response.status_code", code),
        ];
        rpc.into_iter().chain(error)
    });
    if let Some(status) = status.filter(|_| failed) {
        span.fail(status.message().to_owned());
    }
}

/// Records the verdict and the policy on the span and in the log.
fn record(friends: usize, evaluation: &Evaluation) {
    let verdict = evaluation.verdict.kind().as_str();
    debug!(verdict, friends, "evaluated");
    span::set(|| {
        [
            KeyValue::new("importguard.verdict", verdict),
            KeyValue::new("importguard.policy.name", evaluation.policy.name.clone()),
            KeyValue::new(
                "importguard.policy.digest",
                evaluation.policy.digest.clone(),
            ),
        ]
    });
    if !span::sampled() {
        return;
    }
    for rule in &evaluation.rules {
        let mut attributes = vec![
            ("importguard.rule.id", rule.id.as_str()),
            ("importguard.rule.mode", rule.mode.as_str()),
            ("importguard.rule.outcome", rule.outcome.as_str()),
        ];
        let reason = rule.reason.as_deref();
        attributes.extend(reason.map(|reason| ("importguard.rule.reason", reason)));
        let matched = rule.matched.iter().filter_map(Match::summary);
        let matched = matched.collect::<Vec<_>>().join(", ");
        if !matched.is_empty() {
            attributes.push(("importguard.rule.matched", &matched));
        }
        span::event("importguard.rule", &attributes);
    }
}
