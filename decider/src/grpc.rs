//! The policy engine over gRPC.

use std::time::{Instant, SystemTime};

use importguard_core::{
    Evaluation, FiredRule, ImportRequest, InvalidId, Kept, ListRevision, OperationId,
    PolicyRevision, Refusal, Removal, Verdict,
};
use importguard_proto::decider::{DecideRequest, DecideResponse, decider_server};
use importguard_telemetry::{
    Ending, Served, propagation,
    span::{self, KeyValue, SpanKind, recorded},
};
use tonic::{Request, Response, Status};
use tracing::{Span, debug, field::Empty, info_span};

use crate::{
    in_force::InForce,
    metrics::Metrics,
    policy::{self, Policy},
};

/// The method's full name, as spans have it.
const METHOD: &str = "importguard.decider.v1.Decider/Decide";

/// Answers `Decide` from the policy that is active at the moment of the call.
pub(crate) struct DeciderService {
    policy: InForce,
    metrics: Metrics,
    instance: String,
    max_friends: usize,
}

impl DeciderService {
    pub(crate) fn new(
        policy: InForce,
        metrics: Metrics,
        instance: String,
        max_friends: usize,
    ) -> Self {
        Self {
            policy,
            metrics,
            instance,
            max_friends,
        }
    }

    fn answer(
        &self,
        operation_id: Result<OperationId, InvalidId>,
        message: DecideRequest,
    ) -> Result<DecideResponse, Status> {
        let request = self.request(operation_id, message)?;
        let policy = self.policy.load();
        let began = Instant::now();
        let evaluation = evaluate(&policy, &request);
        let verdict = evaluation.verdict.kind();
        self.metrics.evaluated(verdict, began.elapsed());
        record(request.friends.len(), &evaluation);
        Ok(DecideResponse::of(evaluation, self.instance.clone()))
    }

    fn request(
        &self,
        operation_id: Result<OperationId, InvalidId>,
        message: DecideRequest,
    ) -> Result<ImportRequest, Status> {
        let operation_id = operation_id
            .map_err(|why| Status::invalid_argument(format!("the metadata operationid: {why}")))?;
        let friends = message.friend_user_ids.len();
        if friends > self.max_friends {
            return Err(Status::invalid_argument(format!(
                "friend_user_ids holds {friends} ids, more than IMPORTGUARD_DECIDER_MAX_FRIENDS={}",
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
        let (metadata, _, message) = request.into_parts();
        let headers = metadata.into_headers();
        let operation_id = propagation::metadata_operation_id(&headers);
        let served = Served::begin(&headers, operation_id.as_ref().ok(), server_span);
        let answer = served.in_scope(|| self.answer(operation_id, message));
        end(served, answer.as_ref().err());
        answer.map(Response::new)
    }
}

fn server_span() -> Span {
    info_span!(
        "decide",
        otel.name = METHOD,
        otel.kind = "server",
        importguard.verdict = Empty,
        importguard.policy.name = Empty,
        importguard.policy.digest = Empty,
    )
}

/// Ends a call's span: all that a call can be refused for is its arguments, which are no error of the server's (OpenTelemetry's
/// conventions for gRPC).
fn end(served: Served, refused: Option<&Status>) {
    let ending = refused.map_or(Ending::Well, |_| Ending::Rejected);
    let code = refused.map_or("OK", |_| "INVALID_ARGUMENT");
    served.end(
        SpanKind::Server,
        ending,
        || METHOD.to_owned(),
        || {
            [
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", METHOD),
                KeyValue::new("rpc.response.status_code", code),
            ]
        },
    );
}

/// On the span and in the log: the verdict, and what it came from.
fn record(friends: usize, evaluation: &Evaluation) {
    let verdict = evaluation.verdict.kind().as_str();
    debug!(verdict, friends, "evaluated");
    if !recorded() {
        return;
    }
    let span = Span::current();
    span.record("importguard.verdict", verdict);
    span.record("importguard.policy.name", &evaluation.policy.name);
    span.record("importguard.policy.digest", &evaluation.policy.digest);
    for rule in &evaluation.rules {
        let attributes = [
            ("importguard.rule.id", rule.id.as_str()),
            ("importguard.rule.mode", rule.mode.as_str()),
            ("importguard.rule.outcome", rule.outcome.as_str()),
        ];
        span::event("importguard.rule", &attributes);
    }
}

fn evaluate(policy: &Policy, request: &ImportRequest) -> Evaluation {
    let decision = policy.evaluate(&policy::Request {
        operation_id: request.operation_id.as_str(),
        owner: request.owner.as_str(),
        friends: &request.friends,
        now: SystemTime::now(),
    });
    Evaluation {
        verdict: match decision.verdict {
            policy::Verdict::Allow => Verdict::Allow,
            policy::Verdict::Refuse(refusal) => Verdict::Refuse(Refusal {
                rule: Some(refusal.rule.clone()),
                code: refusal.code.get(),
                message: refusal.message.clone(),
                detail: refusal.detail.clone(),
            }),
            policy::Verdict::Modify(kept) => Verdict::Modify(Kept::trusted(kept)),
        },
        rules: decision.fired.iter().map(fired).collect(),
        removed: decision.removed.into_iter().map(removed).collect(),
        policy: PolicyRevision {
            name: policy.name().to_owned(),
            digest: policy.digest().to_string(),
        },
        lists: policy
            .lists()
            .map(|list| ListRevision {
                name: list.name.clone(),
                digest: list.digest.to_string(),
                size: list.size,
            })
            .collect(),
    }
}

fn fired(rule: &policy::Fired<'_>) -> FiredRule {
    FiredRule {
        id: rule.id.to_owned(),
        mode: match rule.mode {
            policy::Mode::Enforce => importguard_core::Mode::Enforce,
            policy::Mode::Shadow => importguard_core::Mode::Shadow,
        },
        outcome: match rule.outcome {
            policy::Outcome::Refuse => importguard_core::Outcome::Refuse,
            policy::Outcome::Remove => importguard_core::Outcome::Remove,
            policy::Outcome::Error => importguard_core::Outcome::Error,
        },
    }
}

fn removed(removal: policy::Removal<'_>) -> Removal {
    Removal {
        rule: removal.rule.to_owned(),
        friends: removal.friends,
    }
}
