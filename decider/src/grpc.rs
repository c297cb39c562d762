//! The policy engine over gRPC.

use std::time::Instant;

use importguard_core::{Evaluation, IdError, ImportRequest, Match, OperationId};
use importguard_proto::decider::{DecideRequest, DecideResponse, decider_server};
use importguard_runtime::LastGood;
use importguard_telemetry::{
    propagation,
    span::{self, KeyValue},
};
use tonic::{Request, Response, Status};
use tracing::debug;

use crate::{
    deadline::Deadline,
    evaluation::{EvaluateError, Evaluations},
    lists::live::Watch,
    reload::Active,
};

/// The full method name in spans.
pub(crate) const METHOD: &str = "importguard.decider.v1.Decider/Decide";

/// Serves `Decide` with the policy that is active at the time of the call.
pub(crate) struct DeciderService {
    pub(crate) policy: LastGood<Active>,
    pub(crate) live: Watch,
    pub(crate) evaluations: Evaluations,
    pub(crate) instance: String,
    pub(crate) max_friends: usize,
}

impl DeciderService {
    /// Evaluates a request until `deadline`. The response has its verdict as an extension.
    async fn answer(
        &self,
        operation_id: Result<OperationId, IdError>,
        message: DecideRequest,
        deadline: Instant,
    ) -> Result<Response<DecideResponse>, Status> {
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
        let evaluation = evaluated.map_err(|error| match error {
            EvaluateError::DeadlineExceeded => Status::deadline_exceeded(error.to_string()),
            EvaluateError::Overloaded => Status::resource_exhausted(error.to_string()),
        })?;
        record(friends, &evaluation);
        let verdict = evaluation.verdict.kind();
        let response = DecideResponse::of(evaluation, self.instance.clone());
        let mut response = Response::new(response);
        response.extensions_mut().insert(verdict);
        Ok(response)
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
        let (metadata, extensions, message) = request.into_parts();
        // Each call gets one when it arrives.
        let Some(Deadline(deadline)) = extensions.get() else {
            return Err(Status::internal("a call without a deadline"));
        };
        let operation_id = propagation::metadata_operation_id(metadata.as_ref());
        self.answer(operation_id, message, *deadline).await
    }
}

/// Records the verdict and the policy on the span and in the log.
fn record(friends: usize, evaluation: &Evaluation) {
    let verdict = evaluation.verdict.kind().into_str();
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
            ("importguard.rule.mode", rule.mode.into_str()),
            ("importguard.rule.outcome", rule.outcome.into_str()),
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
