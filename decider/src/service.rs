//! The policy engine, spoken to over gRPC.

use std::{sync::Arc, time::SystemTime};

use importguard_proto::{
    OperationId,
    decider::{
        self as wire, DecideRequest, DecideResponse, decide_response::Verdict as WireVerdict,
        decider_server::Decider,
    },
};
use importguard_telemetry::propagation;
use tonic::{Request, Response, Status};
use tracing::{Span, debug, field::Empty, info_span};

use crate::{
    in_force::InForce,
    policy::{self, Fired, Policy, Removal, Verdict},
};

/// Answers `Decide` from the policy that holds at the moment of the call.
pub(crate) struct DeciderService {
    policy: InForce,
    instance: String,
}

impl DeciderService {
    pub(crate) fn new(policy: InForce, instance: String) -> Self {
        Self { policy, instance }
    }
}

#[tonic::async_trait]
impl Decider for DeciderService {
    async fn decide(
        &self,
        request: Request<DecideRequest>,
    ) -> Result<Response<DecideResponse>, Status> {
        let (metadata, _, question) = request.into_parts();
        let operation_id = OperationId::parse(question.operation_id.as_str()).ok();
        let span = server_span();
        propagation::adopt(&span, &metadata.into_headers(), operation_id.as_ref());
        span.in_scope(|| {
            check(&question)?;
            let policy = self.policy.load();
            Ok(Response::new(answer(&policy, &question, &self.instance)))
        })
        .inspect_err(|status: &Status| {
            span.record("rpc.response.status_code", "INVALID_ARGUMENT");
            span.record("otel.status_code", "ERROR");
            span.record("otel.status_description", status.message());
        })
    }
}

fn server_span() -> Span {
    info_span!(
        "decide",
        otel.name = "importguard.decider.v1.Decider/Decide",
        otel.kind = "server",
        rpc.system.name = "grpc",
        rpc.method = "importguard.decider.v1.Decider/Decide",
        rpc.response.status_code = "OK",
        importguard.verdict = Empty,
        importguard.policy.digest = Empty,
        otel.status_code = Empty,
        otel.status_description = Empty,
    )
}

fn check(question: &DecideRequest) -> Result<(), Status> {
    if question.owner_user_id.is_empty() {
        return Err(Status::invalid_argument("owner_user_id is empty"));
    }
    if question.friend_user_ids.iter().any(String::is_empty) {
        return Err(Status::invalid_argument(
            "friend_user_ids holds an empty id",
        ));
    }
    Ok(())
}

fn answer(policy: &Arc<Policy>, question: &DecideRequest, instance: &str) -> DecideResponse {
    let decision = policy.evaluate(&policy::Request {
        operation_id: &question.operation_id,
        owner: &question.owner_user_id,
        friends: &question.friend_user_ids,
        now: SystemTime::now(),
    });
    let (name, verdict) = match decision.verdict {
        Verdict::Allow => ("allow", WireVerdict::Allow(wire::Allow {})),
        Verdict::Refuse(refusal) => (
            "refuse",
            WireVerdict::Refuse(wire::Refuse {
                rule: refusal.rule.clone(),
                code: refusal.code.get(),
                message: refusal.message.clone(),
                detail: refusal.detail.clone(),
            }),
        ),
        Verdict::Modify(kept) => {
            let ids = &question.friend_user_ids;
            let kept = kept.iter().filter_map(|&index| ids.get(index as usize));
            let friend_user_ids = kept.cloned().collect();
            (
                "modify",
                WireVerdict::Modify(wire::Modify { friend_user_ids }),
            )
        }
    };
    let span = Span::current();
    span.record("importguard.verdict", name);
    span.record("importguard.policy.digest", policy.digest().as_str());
    debug!(
        verdict = name,
        friends = question.friend_user_ids.len(),
        "evaluated"
    );
    DecideResponse {
        verdict: Some(verdict),
        rules: decision.fired.iter().map(fired).collect(),
        removed: decision.removed.into_iter().map(removed).collect(),
        policy: Some(wire::Policy {
            name: policy.name().to_owned(),
            digest: policy.digest().to_string(),
        }),
        lists: policy
            .lists()
            .map(|list| wire::ListRevision {
                name: list.name.clone(),
                digest: list.digest.to_string(),
                size: list.size,
            })
            .collect(),
        decider: instance.to_owned(),
    }
}

fn fired(rule: &Fired<'_>) -> wire::FiredRule {
    let mode = match rule.mode {
        policy::Mode::Enforce => wire::Mode::Enforce,
        policy::Mode::Shadow => wire::Mode::Shadow,
    };
    let outcome = match rule.outcome {
        policy::Outcome::Refuse => wire::Outcome::Refuse,
        policy::Outcome::Remove => wire::Outcome::Remove,
        policy::Outcome::Error => wire::Outcome::Error,
    };
    wire::FiredRule {
        id: rule.id.to_owned(),
        mode: mode.into(),
        outcome: outcome.into(),
    }
}

fn removed(removal: Removal<'_>) -> wire::Removal {
    wire::Removal {
        rule: removal.rule.to_owned(),
        friends: removal.friends,
    }
}
