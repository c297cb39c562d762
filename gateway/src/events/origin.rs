//! Builds the events of callbacks.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use importguard_core::{Decision, Dialect, EventId, ImportRequest, OperationId, UserId, Verdict};
use importguard_runtime::LastGood;
use importguard_telemetry::propagation::MessageHeaders;
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    CloudEvent, DecisionData, EventType, Fired, ImportedData, Micros, Pseudonyms, SpecVersion,
    Subject, fit,
};

/// An event, ready to be published or spooled.
#[derive(Clone, Debug)]
pub struct Event {
    /// The event's ID, also the message's `Nats-Msg-Id`. Events leave the spool in the order of their IDs.
    pub id: EventId,
    /// The subject that it is published on.
    pub subject: Subject,
    /// The callback's operationID, for the header of that name.
    pub operation_id: OperationId,
    /// The trace context of the publishing span, for the message's headers.
    pub trace: MessageHeaders,
    /// The CloudEvent as JSON.
    pub payload: Bytes,
}

/// How an event is published.
#[derive(Debug)]
pub struct EventContext {
    /// The event's ID.
    pub id: EventId,
    /// The trace context of the publishing span.
    pub headers: MessageHeaders,
    /// NATS's `max_payload`, in bytes.
    pub max_payload: usize,
    /// What the caller sent instead of a usable operationID, where one was generated.
    pub replaced_operation_id: Option<String>,
}

/// A callback's durations.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// From the request to the decider until its response or the timeout.
    pub decide: Duration,
    /// From the callback's arrival to now.
    pub total: Duration,
}

/// The publisher: the `source` of every event of this gateway.
#[derive(Clone, Debug)]
pub struct Origin {
    instance: String,
    source: String,
    pseudonyms: LastGood<Pseudonyms>,
}

impl Origin {
    /// The gateway called `instance`, which replaces user IDs by `pseudonyms`.
    pub fn new(instance: String, pseudonyms: LastGood<Pseudonyms>) -> Self {
        Self {
            source: format!("importguard/gateway/{instance}"),
            instance,
            pseudonyms,
        }
    }

    /// The event of a decision on `request`.
    pub fn decision(
        &self,
        context: EventContext,
        request: &ImportRequest,
        dialect: Dialect,
        decision: &Decision,
        timings: Timings,
    ) -> Event {
        let evaluation = decision.evaluation();
        let verdict = decision.verdict();
        let pseudonyms = self.pseudonyms.load();
        let owner = pseudonyms.of(&request.owner);
        let replaced = context.replaced_operation_id.clone();
        let data = DecisionData {
            operation_id: Cow::Borrowed(&request.operation_id),
            replaced_operation_id: replaced.map(|text| pseudonyms.of_free_text(text)),
            owner_user_id: owner.clone(),
            friend_user_ids: Some(pseudonyms.of_all(&request.friends)),
            friend_count: None,
            verdict: verdict.kind(),
            decided_by: decision.decided_by(),
            cause: decision.cause(),
            refusal: match verdict {
                Verdict::Refuse(refusal) => Some(Cow::Borrowed(refusal)),
                Verdict::Allow | Verdict::Modify(_) => None,
            },
            removed: evaluation.map_or_else(Vec::new, |evaluation| {
                evaluation.removed.iter().map(Into::into).collect()
            }),
            rules: evaluation.map_or_else(Vec::new, |evaluation| {
                let rules = evaluation.rules.iter();
                rules.map(|rule| Fired::of(rule, &pseudonyms)).collect()
            }),
            policy: evaluation.map(|evaluation| Cow::Borrowed(&evaluation.policy)),
            lists: pseudonyms.of_lists(evaluation.map_or(&[], |evaluation| &evaluation.lists)),
            dialect,
            gateway: Cow::Borrowed(&self.instance),
            decider: decision.decider().map(Cow::Borrowed),
            micros: Micros {
                decide: micros(timings.decide),
                total: micros(timings.total),
            },
            omitted: Vec::new(),
        };
        // What a policy decided is as of the time that its rules saw.
        let time = evaluation.map_or_else(SystemTime::now, |evaluation| evaluation.at);
        let about = (EventType::Decision, owner.into_owned(), time);
        let event = self.envelope(&context, about, &pseudonyms, data);
        finish(context, verdict.into(), request, &event)
    }

    /// Records on the current span why the users are on lists that made rules act, and until when.
    pub(crate) fn trace(&self, decision: &Decision) {
        let rules = decision.evaluation().map(|evaluation| &evaluation.rules);
        let rules = rules.into_iter().flatten();
        let pseudonyms = self.pseudonyms.load();
        for rule in rules.filter(|rule| !rule.matched.is_empty()) {
            Fired::of(rule, &pseudonyms).trace();
        }
    }

    /// The event of a completed import.
    pub fn imported(&self, context: EventContext, request: &ImportRequest) -> Event {
        let pseudonyms = self.pseudonyms.load();
        let owner = pseudonyms.of(&request.owner);
        let replaced = context.replaced_operation_id.clone();
        let data = ImportedData {
            operation_id: Cow::Borrowed(&request.operation_id),
            replaced_operation_id: replaced.map(|text| pseudonyms.of_free_text(text)),
            owner_user_id: owner.clone(),
            friend_user_ids: Some(pseudonyms.of_all(&request.friends)),
            friend_count: None,
            gateway: Cow::Borrowed(&self.instance),
            omitted: Vec::new(),
        };
        let about = (EventType::Imported, owner.into_owned(), SystemTime::now());
        let event = self.envelope(&context, about, &pseudonyms, data);
        finish(context, Subject::Imported, request, &event)
    }

    fn envelope<D>(
        &self,
        context: &EventContext,
        (kind, subject, time): (EventType, UserId, SystemTime),
        pseudonyms: &Pseudonyms,
        data: D,
    ) -> CloudEvent<D> {
        CloudEvent {
            specversion: SpecVersion::V1,
            id: context.id.to_string(),
            kind,
            source: self.source.clone(),
            time: OffsetDateTime::from(time),
            subject,
            pseudonymised: pseudonyms.are_on(),
            datacontenttype: Cow::Borrowed("application/json"),
            traceparent: context.headers.traceparent.clone(),
            tracestate: context.headers.tracestate.clone(),
            data,
        }
    }
}

/// Initial capacity of a payload: an event of the shipped policy has about 900 bytes plus those of its friends.
const ENVELOPE_BYTES: usize = 1024;
const FRIEND_BYTES: usize = 24;

fn finish(
    context: EventContext,
    subject: Subject,
    request: &ImportRequest,
    event: &impl Serialize,
) -> Event {
    let mut payload = Vec::with_capacity(ENVELOPE_BYTES + FRIEND_BYTES * request.friends.len());
    if serde_json::to_writer(&mut payload, event).is_err() {
        // Never: serialising strings, numbers and a current date to memory cannot fail.
        payload.clear();
    }
    Event {
        id: context.id,
        subject,
        operation_id: request.operation_id.clone(),
        trace: context.headers,
        payload: fit(Bytes::from(payload), context.max_payload),
    }
}

/// Microseconds, saturating.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use importguard_core::{
        Cause, Evaluation, FiredRule, ListHit, ListRevision, Match, MatchedPart, Mode, Outcome,
        PolicyRevision, Removal,
    };

    use serde_json::Value;

    use super::*;
    use crate::events::{DecisionEvent, size::HEADER_BYTES};

    fn request(friends: usize) -> ImportRequest {
        ImportRequest {
            operation_id: OperationId::parse("1646445464564").unwrap(),
            owner: UserId::parse("user123").unwrap(),
            friends: (0..friends)
                .map(|n| UserId::parse(format!("user_{n:010}")).unwrap())
                .collect(),
        }
    }

    fn allowed() -> Decision {
        Decision::Policy {
            evaluation: Evaluation {
                verdict: Verdict::Allow,
                rules: vec![FiredRule {
                    id: "bots".to_owned(),
                    mode: Mode::Enforce,
                    outcome: Outcome::Remove,
                    reason: None,
                    matched: vec![
                        Match {
                            part: MatchedPart::Prefix("user_".to_owned()),
                            friends: vec![0],
                            count: 1,
                        },
                        Match {
                            part: MatchedPart::List(ListHit {
                                list: "blocked".to_owned(),
                                entry: Some("user_2".to_owned()),
                                reason: Some("as user_3".to_owned()),
                                until: Some(UNIX_EPOCH + Duration::from_secs(1_764_374_400)),
                            }),
                            friends: vec![1],
                            count: 1,
                        },
                    ],
                    unlisted: 0,
                }],
                removed: vec![Removal {
                    rule: "bots".to_owned(),
                    friends: vec![0, 1],
                }],
                policy: PolicyRevision {
                    name: "default".to_owned(),
                    digest: "sha256:00".to_owned(),
                },
                lists: vec![ListRevision {
                    name: "blocked".to_owned(),
                    digest: "sha256:00".to_owned(),
                    size: 1,
                    revision: None,
                }],
                at: UNIX_EPOCH + Duration::from_secs(1_764_374_400),
            },
            decider: "d".to_owned(),
        }
    }

    fn event(request: &ImportRequest, decision: &Decision, max_payload: usize) -> Event {
        event_with(Pseudonyms::Off, request, decision, max_payload)
    }

    fn context(max_payload: usize) -> EventContext {
        EventContext {
            id: EventId::new(),
            headers: MessageHeaders::default(),
            max_payload,
            replaced_operation_id: Some("of user123".to_owned()),
        }
    }

    fn event_with(
        pseudonyms: Pseudonyms,
        request: &ImportRequest,
        decision: &Decision,
        max_payload: usize,
    ) -> Event {
        Origin::new("g1".to_owned(), LastGood::new(pseudonyms)).decision(
            context(max_payload),
            request,
            Dialect::Server,
            decision,
            Timings {
                decide: Duration::from_micros(412),
                total: Duration::from_micros(903),
            },
        )
    }

    #[test]
    fn a_decision_event_matches_the_contract() {
        let recorded = event(&request(2), &allowed(), 1 << 20);
        let event: Value = serde_json::from_slice(&recorded.payload).unwrap();
        let expected = serde_json::json!({
            "specversion": "1.0", "id": recorded.id.to_string(), "type": "importguard.decision.v1",
            "source": "importguard/gateway/g1", "time": "2025-11-29T00:00:00Z", "subject": "user123",
            "datacontenttype": "application/json",
            "data": {
                "operationID": "1646445464564", "replacedOperationID": "of user123",
                "ownerUserID": "user123",
                "friendUserIDs": ["user_0000000000", "user_0000000001"],
                "verdict": "allow", "decidedBy": "policy",
                "removed": [{"rule": "bots", "friends": [0, 1]}],
                "rules": [{"id": "bots", "mode": "enforce", "outcome": "remove", "matched": [
                    {"prefix": "user_", "friends": [0], "count": 1},
                    {
                        "list": "blocked", "entry": "user_2", "reason": "as user_3", "until": "2025-11-29T00:00:00Z",
                        "friends": [1], "count": 1,
                    },
                ]}],
                "policy": {"name": "default", "digest": "sha256:00"},
                "lists": [{"name": "blocked", "digest": "sha256:00", "size": 1}],
                "dialect": "server", "gateway": "g1", "decider": "d",
                "micros": {"decide": 412, "total": 903},
            },
        });
        assert_eq!(event, expected);
        assert_eq!(recorded.subject, Subject::Allow);
    }

    #[test]
    fn a_fallback_event_has_its_cause_and_no_policy() {
        let decision = Decision::Fallback {
            verdict: Verdict::Allow,
            cause: Cause::DeciderTimeout,
        };
        let recorded = event(&request(1), &decision, 1 << 20);
        let event: DecisionEvent<'_> = serde_json::from_slice(&recorded.payload).unwrap();
        assert_eq!(event.data.cause, Some(Cause::DeciderTimeout));
        assert_eq!(event.data.policy, None);
        assert_eq!(event.data.decider, None);
        let text = String::from_utf8(recorded.payload.to_vec()).unwrap();
        assert!(!text.contains("pseudonymised"), "{text}");
    }

    #[test]
    fn with_pseudonyms_an_event_contains_no_user_id() {
        let key = "0123456789abcdef".parse().unwrap();
        for pseudonyms in [Pseudonyms::keyed(&key), Pseudonyms::Redacted] {
            let recorded = event_with(pseudonyms.clone(), &request(2), &allowed(), 1 << 20);
            let event: DecisionEvent<'_> = serde_json::from_slice(&recorded.payload).unwrap();
            let owner = pseudonyms.of(&request(0).owner).into_owned();
            assert_eq!(event.subject, owner);
            assert!(event.pseudonymised);
            assert_eq!(*event.data.owner_user_id, owner);
            let friends = event.data.friend_user_ids.unwrap();
            assert_eq!(friends, pseudonyms.of_all(&request(2).friends));
            let text = String::from_utf8(recorded.payload.to_vec()).unwrap();
            assert!(!text.contains("user"), "{text}");
            let replaced = event.data.replaced_operation_id;
            assert_eq!(replaced.as_deref(), Some("redacted"));
            let origin = Origin::new("g1".to_owned(), LastGood::new(pseudonyms));
            let imported = origin.imported(context(1 << 20), &request(2));
            let text = String::from_utf8(imported.payload.to_vec()).unwrap();
            assert!(!text.contains("user"), "{text}");
            assert_ne!(event.data.lists[0].digest, "sha256:00");
        }
    }

    #[test]
    fn an_event_too_large_for_nats_has_counts_and_lists_what_it_omits() {
        let max_payload = 64 * 1024;
        let recorded = event(&request(10_000), &allowed(), max_payload);
        assert!(recorded.payload.len() + HEADER_BYTES <= max_payload);
        let event: DecisionEvent<'_> = serde_json::from_slice(&recorded.payload).unwrap();
        assert_eq!(event.data.friend_user_ids, None);
        assert_eq!(event.data.friend_count, Some(10_000));
        assert_eq!(event.data.removed[0].count, Some(2));
        assert_eq!(event.data.removed[0].friends, None);
        assert_eq!(
            event.data.omitted,
            ["friendUserIDs", "removed.friends", "rules.matched.friends"]
        );
        let [prefix, hit] = &event.data.rules[0].matched[..] else {
            panic!("{:?}", event.data.rules);
        };
        assert_eq!(
            (prefix.prefix.as_deref(), prefix.count, &prefix.friends[..]),
            (Some("user_"), 1, &[][..])
        );
        assert_eq!(hit.reason.as_deref(), Some("as user_3"));
    }

    #[test]
    fn an_event_whose_matches_are_too_large_leaves_them_out() {
        let mut decision = allowed();
        if let Decision::Policy { evaluation, .. } = &mut decision {
            let rule = evaluation.rules[0].clone();
            evaluation.rules = vec![rule; 1000];
            evaluation.rules[7].unlisted = 3;
        }
        let max_payload = 64 * 1024 + HEADER_BYTES;
        let recorded = event(&request(10_000), &decision, max_payload);
        assert!(recorded.payload.len() + HEADER_BYTES <= max_payload);
        let event: DecisionEvent<'_> = serde_json::from_slice(&recorded.payload).unwrap();
        let omitted = event.data.omitted.join(" ");
        let all = "friendUserIDs removed.friends rules.matched rules.unlisted";
        assert_eq!(omitted, all);
        assert!(event.data.rules.iter().all(|rule| rule.matched.is_empty()));
        assert_eq!(event.data.rules.len(), 1000);
    }

    #[test]
    fn with_pseudonyms_an_event_says_which_list_but_no_text_that_may_name_users() {
        let key = "0123456789abcdef".parse().unwrap();
        let pseudonyms = Pseudonyms::keyed(&key);
        let recorded = event_with(pseudonyms.clone(), &request(2), &allowed(), 1 << 20);
        let event: Value = serde_json::from_slice(&recorded.payload).unwrap();
        let entry = pseudonyms.of_text("user_2");
        assert_eq!(
            event["data"]["rules"][0]["matched"],
            serde_json::json!([
                {"prefix": "redacted", "friends": [0], "count": 1},
                {"list": "blocked", "entry": entry, "until": "2025-11-29T00:00:00Z", "friends": [1], "count": 1},
            ])
        );
    }
}
