//! The policy engine, spoken to over gRPC.

use std::time::{Instant, SystemTime};

use importguard_proto::{
    OperationId,
    decider::{
        self as wire, DecideResponse, Question, decide_response::Verdict as WireVerdict,
        question_server::Decider,
    },
    event::{self, Mode, Outcome},
};
use importguard_telemetry::{
    Ending, Served,
    span::{self, KeyValue, SpanKind, recorded},
};
use tonic::{Request, Response, Status};
use tracing::{Span, debug, field::Empty, info_span};

use crate::{
    in_force::InForce,
    metrics::Metrics,
    policy::{self, Decision, Fired, Policy, Removal, Verdict},
};

/// The method's full name, as spans have it.
const METHOD: &str = "importguard.decider.v1.Decider/Decide";

/// Answers `Decide` from the policy that holds at the moment of the call.
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

    fn answer(&self, policy: &Policy, friends: &[&str], decision: Decision<'_>) -> DecideResponse {
        DecideResponse {
            verdict: Some(wire_verdict(decision.verdict, friends)),
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
            decider: self.instance.clone(),
        }
    }
}

#[tonic::async_trait]
impl Decider for DeciderService {
    async fn decide(&self, request: Request<Question>) -> Result<Response<DecideResponse>, Status> {
        let (metadata, _, question) = request.into_parts();
        let operation_id = OperationId::parse(question.operation_id.as_str()).ok();
        let served = Served::begin(&metadata.into_headers(), operation_id.as_ref(), server_span);
        let answer = served.in_scope(|| {
            check(&question, self.max_friends)?;
            let friends: Vec<&str> = question.friend_user_ids.iter().collect();
            let policy = self.policy.load();
            let began = Instant::now();
            let decision = policy.evaluate(&policy::Request {
                operation_id: &question.operation_id,
                owner: &question.owner_user_id,
                friends: &friends,
                now: SystemTime::now(),
            });
            self.metrics
                .evaluated(kind(&decision.verdict), began.elapsed());
            tell(&policy, friends.len(), &decision);
            Ok(Response::new(self.answer(&policy, &friends, decision)))
        });
        end(served, answer.as_ref().err());
        answer
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

fn check(question: &Question, max_friends: usize) -> Result<(), Status> {
    let friends = question.friend_user_ids.len();
    if friends > max_friends {
        return Err(Status::invalid_argument(format!(
            "friend_user_ids holds {friends} ids, more than IMPORTGUARD_DECIDER_MAX_FRIENDS={max_friends}"
        )));
    }
    if question.owner_user_id.is_empty() {
        return Err(Status::invalid_argument("owner_user_id is empty"));
    }
    if question.friend_user_ids.iter().any(str::is_empty) {
        return Err(Status::invalid_argument(
            "friend_user_ids holds an empty id",
        ));
    }
    Ok(())
}

/// On the span and in the log: the verdict, and what it came from.
fn tell(policy: &Policy, friends: usize, decision: &Decision<'_>) {
    let verdict = kind(&decision.verdict).as_str();
    debug!(verdict, friends, "evaluated");
    if !recorded() {
        return;
    }
    let span = Span::current();
    span.record("importguard.verdict", verdict);
    span.record("importguard.policy.name", policy.name());
    span.record("importguard.policy.digest", policy.digest().as_str());
    for rule in &decision.fired {
        let attributes = [
            ("importguard.rule.id", rule.id),
            ("importguard.rule.mode", mode(rule.mode).as_str()),
            ("importguard.rule.outcome", outcome(rule.outcome).as_str()),
        ];
        span::event("importguard.rule", &attributes);
    }
}

fn mode(mode: policy::Mode) -> Mode {
    match mode {
        policy::Mode::Enforce => Mode::Enforce,
        policy::Mode::Shadow => Mode::Shadow,
    }
}

fn outcome(outcome: policy::Outcome) -> Outcome {
    match outcome {
        policy::Outcome::Refuse => Outcome::Refuse,
        policy::Outcome::Remove => Outcome::Remove,
        policy::Outcome::Error => Outcome::Error,
    }
}

fn kind(verdict: &Verdict<'_>) -> event::Verdict {
    match verdict {
        Verdict::Allow => event::Verdict::Allow,
        Verdict::Refuse(_) => event::Verdict::Refuse,
        Verdict::Modify(_) => event::Verdict::Modify,
    }
}

fn wire_verdict(verdict: Verdict<'_>, friends: &[&str]) -> WireVerdict {
    match verdict {
        Verdict::Allow => WireVerdict::Allow(wire::Allow {}),
        Verdict::Refuse(refusal) => WireVerdict::Refuse(wire::Refuse {
            rule: refusal.rule.clone(),
            code: refusal.code.get(),
            message: refusal.message.clone(),
            detail: refusal.detail.clone(),
        }),
        Verdict::Modify(kept) => {
            let kept = kept.iter().filter_map(|&index| friends.get(index as usize));
            let friend_user_ids = kept.map(|&friend| friend.to_owned()).collect();
            WireVerdict::Modify(wire::Modify { friend_user_ids })
        }
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
