//! What is recorded: a callback and what became of it, as the event that subscribers read.

mod payload;

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use importguard_proto::{
    UserId,
    event::{
        CloudEvent, Decision as DecisionData, Dialect, EventType, Imported, Micros, SpecVersion,
        Subject,
    },
};
use importguard_telemetry::propagation::MessageHeaders;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use self::payload::{FriendsApart, encode, set_apart};
use super::{EventId, Pseudonyms, Record};
use crate::{
    decide::{Decision, Verdict},
    openim::ImportRequest,
};

/// What NATS counts into `max_payload` beside the payload: our headers. An operationID of 256 bytes takes that, three
/// times that as baggage, and the other headers' names and values about 300 bytes.
const HEADERS: usize = 2048;

/// Who tells: the `source` of every event of this gateway.
#[derive(Clone, Debug)]
pub struct Origin {
    instance: String,
    source: String,
    pseudonyms: Pseudonyms,
}

impl Origin {
    /// The gateway called `instance`, which tells of users by `pseudonyms`.
    pub fn new(instance: String, pseudonyms: Pseudonyms) -> Self {
        Self {
            source: format!("importguard/gateway/{instance}"),
            instance,
            pseudonyms,
        }
    }

    /// The record of a decision on `request`, taken `total` after the request's arrival. `max_payload` is NATS's, in bytes.
    #[allow(clippy::too_many_arguments)] // Each is a fact of the event, and there is one caller.
    pub fn decision(
        &self,
        id: EventId,
        request: &ImportRequest,
        dialect: Dialect,
        decision: &Decision,
        total: Duration,
        headers: MessageHeaders,
        max_payload: usize,
    ) -> Record {
        let evidence = decision.source.evidence();
        let owner = self.pseudonyms.of(&request.owner);
        let (friends, apart) = set_apart(self.pseudonyms.of_all(&request.friends));
        let data = DecisionData {
            operation_id: Cow::Borrowed(&request.operation_id),
            owner_user_id: owner.clone(),
            friend_user_ids: Some(friends),
            friend_count: None,
            verdict: decision.verdict.kind(),
            decided_by: decision.source.kind(),
            cause: decision.source.cause(),
            refusal: match &decision.verdict {
                Verdict::Refuse(refusal) => Some(refusal.clone()),
                Verdict::Allow | Verdict::Modify(_) => None,
            },
            removed: Cow::Borrowed(evidence.map_or(&[], |evidence| &evidence.removed)),
            rules: Cow::Borrowed(evidence.map_or(&[], |evidence| &evidence.rules)),
            policy: evidence.map(|evidence| Cow::Borrowed(&evidence.policy)),
            lists: Cow::Borrowed(evidence.map_or(&[], |evidence| &evidence.lists)),
            dialect,
            gateway: Cow::Borrowed(&self.instance),
            decider: evidence.map(|evidence| Cow::Borrowed(&*evidence.decider)),
            micros: Micros {
                decide: micros(decision.took),
                total: micros(total),
            },
            omitted: Vec::new(),
        };
        let subject = decision.verdict.subject();
        self.record(
            id,
            subject,
            EventType::Decision,
            request,
            owner.into_owned(),
            data,
            apart,
            headers,
            max_payload,
        )
    }

    /// The record of an import that OpenIM reports as done.
    pub fn imported(
        &self,
        id: EventId,
        request: &ImportRequest,
        headers: MessageHeaders,
        max_payload: usize,
    ) -> Record {
        let owner = self.pseudonyms.of(&request.owner);
        let (friends, apart) = set_apart(self.pseudonyms.of_all(&request.friends));
        let data = Imported {
            operation_id: Cow::Borrowed(&request.operation_id),
            owner_user_id: owner.clone(),
            friend_user_ids: Some(friends),
            friend_count: None,
            gateway: Cow::Borrowed(&self.instance),
            omitted: Vec::new(),
        };
        self.record(
            id,
            Subject::Imported,
            EventType::Imported,
            request,
            owner.into_owned(),
            data,
            apart,
            headers,
            max_payload,
        )
    }

    #[allow(clippy::too_many_arguments)] // As above.
    fn record(
        &self,
        id: EventId,
        subject: Subject,
        kind: EventType,
        request: &ImportRequest,
        owner: UserId,
        data: impl Serialize,
        apart: Option<FriendsApart>,
        headers: MessageHeaders,
        max_payload: usize,
    ) -> Record {
        let event = CloudEvent {
            specversion: SpecVersion::V1,
            id: id.to_string(),
            kind,
            source: self.source.clone(),
            time: OffsetDateTime::now_utc(),
            subject: owner,
            datacontenttype: Cow::Borrowed("application/json"),
            traceparent: headers.traceparent.clone(),
            data,
        };
        let payload = encode(&event, apart);
        Record {
            id,
            subject,
            operation_id: request.operation_id.clone(),
            traceparent: headers.traceparent,
            baggage: headers.baggage,
            payload: fit(Bytes::from(payload), max_payload),
        }
    }
}

/// Makes an event small enough for a server with this `max_payload`: the friends, by id and by index, make way for their
/// counts, and `omitted` says so. An event that is small enough comes back as it is.
pub(super) fn fit(payload: Bytes, max_payload: usize) -> Bytes {
    if payload.len() + HEADERS <= max_payload {
        return payload;
    }
    match counts_only(&payload) {
        Some(smaller) => Bytes::from(smaller),
        None => payload,
    }
}

fn counts_only(payload: &[u8]) -> Option<Vec<u8>> {
    let mut event: Value = serde_json::from_slice(payload).ok()?;
    let data = event.get_mut("data")?.as_object_mut()?;
    let mut omitted = Vec::new();
    if let Some(Value::Array(friends)) = data.remove("friendUserIDs") {
        data.insert("friendCount".to_owned(), friends.len().into());
        omitted.push(Value::from("friendUserIDs"));
    }
    if let Some(Value::Array(removals)) = data.get_mut("removed") {
        for removal in removals.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(Value::Array(friends)) = removal.remove("friends") {
                removal.insert("count".to_owned(), friends.len().into());
            }
        }
        omitted.push(Value::from("removed.friends"));
    }
    data.insert("omitted".to_owned(), Value::Array(omitted));
    serde_json::to_vec(&event).ok()
}

/// Whole microseconds; a duration too long to count is as long as can be said.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use importguard_proto::{
        OperationId,
        event::{Cause, DecisionEvent, FiredRule, Mode, Outcome, PolicyRevision, Removal},
    };

    use super::*;
    use crate::decide::{Evidence, Source};

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
        Decision {
            verdict: Verdict::Allow,
            source: Source::Policy(Evidence {
                rules: vec![FiredRule {
                    id: "bots".to_owned(),
                    mode: Mode::Enforce,
                    outcome: Outcome::Remove,
                }],
                removed: vec![Removal {
                    rule: "bots".to_owned(),
                    friends: Some(vec![0, 1]),
                    count: None,
                }],
                policy: PolicyRevision {
                    name: "default".to_owned(),
                    digest: "sha256:00".to_owned(),
                },
                lists: Vec::new(),
                decider: "d".to_owned(),
            }),
            took: Duration::from_micros(412),
        }
    }

    fn record(request: &ImportRequest, decision: &Decision, max_payload: usize) -> Record {
        record_with(Pseudonyms::Off, request, decision, max_payload)
    }

    fn record_with(
        pseudonyms: Pseudonyms,
        request: &ImportRequest,
        decision: &Decision,
        max_payload: usize,
    ) -> Record {
        Origin::new("g1".to_owned(), pseudonyms).decision(
            EventId::new(),
            request,
            Dialect::Server,
            decision,
            Duration::from_micros(903),
            MessageHeaders::default(),
            max_payload,
        )
    }

    #[test]
    fn a_decision_is_told_as_the_contract_has_it() {
        let record = record(&request(2), &allowed(), 1 << 20);
        let event: Value = serde_json::from_slice(&record.payload).unwrap();
        let expected = serde_json::json!({
            "specversion": "1.0", "id": record.id.to_string(), "type": "importguard.decision.v1",
            "source": "importguard/gateway/g1", "time": event["time"], "subject": "user123",
            "datacontenttype": "application/json",
            "data": {
                "operationID": "1646445464564", "ownerUserID": "user123",
                "friendUserIDs": ["user_0000000000", "user_0000000001"],
                "verdict": "allow", "decidedBy": "policy",
                "removed": [{"rule": "bots", "friends": [0, 1]}],
                "rules": [{"id": "bots", "mode": "enforce", "outcome": "remove"}],
                "policy": {"name": "default", "digest": "sha256:00"},
                "dialect": "server", "gateway": "g1", "decider": "d",
                "micros": {"decide": 412, "total": 903},
            },
        });
        assert_eq!(event, expected);
        assert_eq!(record.subject, Subject::Allow);
    }

    #[test]
    fn a_fallback_tells_its_cause_and_no_policy() {
        let decision = Decision {
            source: Source::Fallback(Cause::DeciderTimeout),
            ..allowed()
        };
        let record = record(&request(1), &decision, 1 << 20);
        let event: DecisionEvent<'_> = serde_json::from_slice(&record.payload).unwrap();
        assert_eq!(event.data.cause, Some(Cause::DeciderTimeout));
        assert_eq!(event.data.policy, None);
        assert_eq!(event.data.decider, None);
    }

    #[test]
    fn no_user_is_named_where_pseudonyms_are_asked_for() {
        let key = "0123456789abcdef".parse().unwrap();
        for pseudonyms in [Pseudonyms::keyed(&key), Pseudonyms::Redacted] {
            let record = record_with(pseudonyms.clone(), &request(2), &allowed(), 1 << 20);
            let event: DecisionEvent<'_> = serde_json::from_slice(&record.payload).unwrap();
            let owner = pseudonyms.of(&request(0).owner).into_owned();
            assert_eq!(event.subject, owner);
            assert_eq!(*event.data.owner_user_id, owner);
            let friends = event.data.friend_user_ids.unwrap();
            assert_eq!(friends, pseudonyms.of_all(&request(2).friends));
            let text = String::from_utf8(record.payload.to_vec()).unwrap();
            assert!(!text.contains("user"), "{text}");
        }
    }

    #[test]
    fn an_event_too_large_for_nats_keeps_counts_and_says_what_it_left_out() {
        let max_payload = 64 * 1024;
        let record = record(&request(10_000), &allowed(), max_payload);
        assert!(record.payload.len() + HEADERS <= max_payload);
        let event: DecisionEvent<'_> = serde_json::from_slice(&record.payload).unwrap();
        assert_eq!(event.data.friend_user_ids, None);
        assert_eq!(event.data.friend_count, Some(10_000));
        assert_eq!(event.data.removed[0].count, Some(2));
        assert_eq!(event.data.removed[0].friends, None);
        assert_eq!(event.data.omitted, ["friendUserIDs", "removed.friends"]);
    }
}
