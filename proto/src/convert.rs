//! Conversions between messages and domain types. Messages from another process are validated here, once.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use importguard_core::{
    Evaluation, EventId, FiredRule, IdError, ImportRequest, Kept, KeptError, ListRevision, Mode,
    OperationId, Outcome, PolicyRevision, Refusal, Removal, UserId, Verdict,
};

use crate::{
    decider::{
        self as wire, DecideRequest, DecideResponse, decide_response::Verdict as WireVerdict,
    },
    matched::into_match,
};

/// The range that OpenIM reserves for the codes of refusals.
const CODES: RangeInclusive<i32> = 5000..=9999;

/// Why a message is not a valid request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecideRequestError {
    /// The owner's ID is invalid.
    #[error("owner_user_id: {0}")]
    Owner(IdError),
    /// A friend's ID is invalid.
    #[error("friend_user_ids[{index}]: {error}")]
    Friend {
        /// Its index, from 0.
        index: usize,
        /// The error.
        error: IdError,
    },
}

/// Why a message is not a valid response to the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecideResponseError {
    /// It has no verdict, or one that this version does not know.
    #[error("it has no verdict")]
    NoVerdict,
    /// It does not name the policy.
    #[error("it names no policy")]
    NoPolicy,
    /// Its code is outside the range that OpenIM treats as a refusal.
    #[error("its code {0} is outside 5000–9999, the range that OpenIM reserves for refusals")]
    Code(i32),
    /// The modified list is not a subset of the request's.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// It removes or matches friends that the request does not have.
    #[error("it removes or matches friends that the request does not have")]
    Friends,
}

impl DecideRequest {
    /// The message that requests the decision with this ID. The operation ID is sent as metadata.
    pub fn of(id: EventId, request: &ImportRequest) -> Self {
        let friends = request.friends.iter();
        Self {
            decision_id: id.to_string(),
            owner_user_id: request.owner.as_str().to_owned(),
            friend_user_ids: friends.map(|friend| friend.as_str().to_owned()).collect(),
        }
    }

    /// The request, with the operation ID from the metadata.
    pub fn into_request(
        self,
        operation_id: OperationId,
    ) -> Result<ImportRequest, DecideRequestError> {
        let friend = |(index, id)| {
            UserId::parse_in_callback(id)
                .map_err(|error| DecideRequestError::Friend { index, error })
        };
        let friends = self.friend_user_ids.into_iter().enumerate();
        Ok(ImportRequest {
            operation_id,
            owner: UserId::parse_in_callback(self.owner_user_id)
                .map_err(DecideRequestError::Owner)?,
            friends: friends.map(friend).collect::<Result<_, _>>()?,
        })
    }
}

impl DecideResponse {
    /// The message with the evaluation of the decider that has this instance name.
    pub fn of(evaluation: Evaluation, decider: String) -> Self {
        Self {
            verdict: Some(evaluation.verdict.into()),
            rules: evaluation.rules.into_iter().map(Into::into).collect(),
            removed: evaluation.removed.into_iter().map(Into::into).collect(),
            policy: Some(wire::Policy {
                name: evaluation.policy.name,
                digest: evaluation.policy.digest,
            }),
            lists: evaluation.lists.into_iter().map(Into::into).collect(),
            decider,
            evaluated_at_micros: micros(evaluation.at),
        }
    }

    /// The decider's evaluation of `request`, and the decider's instance name. OpenIM stores a modified list unchecked, so it is
    /// validated here.
    pub fn into_evaluation(
        self,
        request: &ImportRequest,
    ) -> Result<(Evaluation, String), DecideResponseError> {
        let inside = |index: &u32| (*index as usize) < request.friends.len();
        let removed = self.removed.iter().flat_map(|it| &it.friends);
        let matches = self.rules.iter().flat_map(|rule| &rule.matched);
        let matched = matches.flat_map(|it| &it.friends);
        if !removed.chain(matched).all(inside) {
            return Err(DecideResponseError::Friends);
        }
        let verdict = self.verdict.ok_or(DecideResponseError::NoVerdict)?;
        let policy = self.policy.ok_or(DecideResponseError::NoPolicy)?;
        let evaluation = Evaluation {
            verdict: into_verdict(verdict, request)?,
            rules: self.rules.into_iter().map(Into::into).collect(),
            removed: self.removed.into_iter().map(Into::into).collect(),
            policy: PolicyRevision {
                name: policy.name,
                digest: policy.digest,
            },
            lists: self.lists.into_iter().map(Into::into).collect(),
            at: time(self.evaluated_at_micros),
        };
        Ok((evaluation, self.decider))
    }
}

fn micros(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Now if there is none, as from a decider of an earlier version, or if it is beyond the year 9999, which no event can have.
fn time(micros: u64) -> SystemTime {
    const LAST: u64 = 253_402_300_799_999_999;
    match micros {
        1..=LAST => UNIX_EPOCH + Duration::from_micros(micros),
        _ => SystemTime::now(),
    }
}

impl From<Verdict> for WireVerdict {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Allow => Self::Allow(wire::Allow {}),
            Verdict::Refuse(refusal) => Self::Refuse(wire::Refuse {
                rule: refusal.rule.unwrap_or_default(),
                code: refusal.code,
                message: refusal.message,
                detail: refusal.detail,
            }),
            Verdict::Modify(kept) => Self::Modify(wire::Modify {
                friends: kept.into_indexes(),
            }),
        }
    }
}

fn into_verdict(
    verdict: WireVerdict,
    request: &ImportRequest,
) -> Result<Verdict, DecideResponseError> {
    Ok(match verdict {
        WireVerdict::Allow(wire::Allow {}) => Verdict::Allow,
        WireVerdict::Refuse(refuse) if CODES.contains(&refuse.code) => Verdict::Refuse(Refusal {
            rule: Some(refuse.rule),
            code: refuse.code,
            message: refuse.message,
            detail: refuse.detail,
        }),
        WireVerdict::Refuse(refuse) => return Err(DecideResponseError::Code(refuse.code)),
        WireVerdict::Modify(modify) => Verdict::Modify(Kept::of(modify.friends, request)?),
    })
}

impl From<FiredRule> for wire::FiredRule {
    fn from(rule: FiredRule) -> Self {
        let mode = match rule.mode {
            Mode::Enforce => wire::Mode::Enforce,
            Mode::Shadow => wire::Mode::Shadow,
        };
        let outcome = match rule.outcome {
            Outcome::Refuse => wire::Outcome::Refuse,
            Outcome::Remove => wire::Outcome::Remove,
            Outcome::Error => wire::Outcome::Error,
            Outcome::Skipped => wire::Outcome::Skipped,
        };
        Self {
            id: rule.id,
            mode: mode.into(),
            outcome: outcome.into(),
            reason: rule.reason.unwrap_or_default(),
            matched: rule.matched.into_iter().map(Into::into).collect(),
            unlisted: rule.unlisted,
        }
    }
}

impl From<wire::FiredRule> for FiredRule {
    fn from(rule: wire::FiredRule) -> Self {
        let mode = match rule.mode() {
            wire::Mode::Shadow => Mode::Shadow,
            wire::Mode::Enforce | wire::Mode::Unspecified => Mode::Enforce,
        };
        let outcome = match rule.outcome() {
            wire::Outcome::Refuse => Outcome::Refuse,
            wire::Outcome::Remove => Outcome::Remove,
            wire::Outcome::Skipped => Outcome::Skipped,
            wire::Outcome::Error | wire::Outcome::Unspecified => Outcome::Error,
        };
        Self {
            reason: Some(rule.reason).filter(|reason| !reason.is_empty()),
            matched: rule.matched.into_iter().filter_map(into_match).collect(),
            unlisted: rule.unlisted,
            id: rule.id,
            mode,
            outcome,
        }
    }
}

impl From<Removal> for wire::Removal {
    fn from(Removal { rule, friends }: Removal) -> Self {
        Self { rule, friends }
    }
}

impl From<wire::Removal> for Removal {
    fn from(wire::Removal { rule, friends }: wire::Removal) -> Self {
        Self { rule, friends }
    }
}

impl From<ListRevision> for wire::ListRevision {
    fn from(list: ListRevision) -> Self {
        Self {
            name: list.name,
            digest: list.digest,
            size: list.size,
            revision: list.revision,
        }
    }
}

impl From<wire::ListRevision> for ListRevision {
    fn from(list: wire::ListRevision) -> Self {
        Self {
            name: list.name,
            digest: list.digest,
            size: list.size,
            revision: list.revision,
        }
    }
}

#[cfg(test)]
mod tests {
    use importguard_core::{Alternatives, ListHit, Match, MatchedPart};

    use super::*;

    fn request(friends: &[&str]) -> ImportRequest {
        let id = |id: &&str| UserId::parse(*id).unwrap();
        ImportRequest {
            operation_id: OperationId::parse("1").unwrap(),
            owner: id(&"owner"),
            friends: friends.iter().map(id).collect(),
        }
    }

    #[test]
    fn a_time_that_no_event_can_have_is_replaced_by_the_current_one() {
        const LAST: u64 = 253_402_300_799_999_999;
        for micros in [0, LAST + 1, u64::MAX] {
            let age = time(micros).elapsed().unwrap();
            assert!(age < Duration::from_secs(60), "{micros}: {age:?}");
        }
        for micros in [1, LAST] {
            assert_eq!(time(micros), UNIX_EPOCH + Duration::from_micros(micros));
        }
    }

    /// Every kind of match.
    fn parts() -> Vec<MatchedPart> {
        let text = || "bot_".to_owned();
        let alternatives = [
            Alternatives::Prefixes,
            Alternatives::Suffixes,
            Alternatives::Patterns,
        ];
        let hit = ListHit {
            list: text(),
            ..ListHit::default()
        };
        let reasoned = ListHit {
            entry: Some("BOT_1".to_owned()),
            reason: Some("#4711".to_owned()),
            until: Some(UNIX_EPOCH + Duration::from_secs(1_764_374_400)),
            ..hit.clone()
        };
        let mut parts = vec![
            MatchedPart::List(hit),
            MatchedPart::List(reasoned),
            MatchedPart::NotInList(text()),
            MatchedPart::Prefix(text()),
            MatchedPart::Suffix(text()),
            MatchedPart::Pattern(text()),
            MatchedPart::Limit(500),
            MatchedPart::Expression(text()),
        ];
        parts.extend(alternatives.map(MatchedPart::NoneOf));
        parts
    }

    fn evaluation(verdict: Verdict) -> Evaluation {
        Evaluation {
            verdict,
            rules: [
                (Mode::Enforce, Outcome::Remove),
                (Mode::Shadow, Outcome::Error),
            ]
            .map(|(mode, outcome)| FiredRule {
                id: "bots".to_owned(),
                mode,
                outcome,
                reason: (outcome == Outcome::Error).then(|| "division by zero".to_owned()),
                matched: parts()
                    .into_iter()
                    .map(|part| Match {
                        part,
                        friends: vec![1],
                        count: 1,
                    })
                    .collect(),
                unlisted: 2,
            })
            .to_vec(),
            removed: vec![Removal {
                rule: "bots".to_owned(),
                friends: vec![1],
            }],
            policy: PolicyRevision {
                name: "default".to_owned(),
                digest: "sha256:00".to_owned(),
            },
            lists: vec![ListRevision {
                name: "blocked".to_owned(),
                digest: "sha256:01".to_owned(),
                size: 7,
                revision: Some(42),
            }],
            at: UNIX_EPOCH + Duration::from_micros(1_764_374_400_000_001),
        }
    }

    fn response(verdict: Option<WireVerdict>) -> DecideResponse {
        let decider = "d".to_owned();
        DecideResponse {
            verdict,
            ..DecideResponse::of(evaluation(Verdict::Allow), decider)
        }
    }

    #[test]
    fn a_request_comes_back_as_it_was_sent() {
        for friends in [&[][..], &["a"], &["ü", "owner", "ü"]] {
            let request = request(friends);
            let message = DecideRequest::of(EventId::new(), &request);
            let id = request.operation_id.clone();
            assert_eq!(message.into_request(id), Ok(request));
        }
    }

    #[test]
    fn a_request_with_an_empty_or_long_id_is_invalid() {
        let id = EventId::new();
        let mut message = DecideRequest::of(id, &request(&["a", "b"]));
        let read = |message: &DecideRequest| {
            let id = OperationId::parse("1").unwrap();
            message.clone().into_request(id).unwrap_err().to_string()
        };
        message.friend_user_ids[1].clear();
        assert_eq!(read(&message), "friend_user_ids[1]: it is empty");
        message.friend_user_ids[1] = "x".repeat(257);
        let long = "friend_user_ids[1]: it has 257 bytes; the maximum is 256";
        assert_eq!(read(&message), long);
        message.owner_user_id.clear();
        assert_eq!(read(&message), "owner_user_id: it is empty");
    }

    #[test]
    fn an_evaluation_comes_back_as_it_was_sent() {
        let request = request(&["a", "bot", "b"]);
        let refusal = Refusal {
            rule: Some("bots".to_owned()),
            code: 5001,
            message: "no".to_owned(),
            detail: String::new(),
        };
        let kept = Kept::of(vec![0, 2], &request).unwrap();
        for verdict in [
            Verdict::Allow,
            Verdict::Refuse(refusal),
            Verdict::Modify(kept),
        ] {
            let sent = evaluation(verdict);
            let message = DecideResponse::of(sent.clone(), "d".to_owned());
            let received = message.into_evaluation(&request);
            assert_eq!(received, Ok((sent, "d".to_owned())));
        }
    }

    #[test]
    fn a_response_without_verdict_policy_or_a_valid_code_is_invalid() {
        let request = request(&["a", "b"]);
        let read = |response: DecideResponse| response.into_evaluation(&request).unwrap_err();
        assert_eq!(read(response(None)), DecideResponseError::NoVerdict);
        let allow = || Some(WireVerdict::Allow(wire::Allow {}));
        let nameless = DecideResponse {
            policy: None,
            ..response(allow())
        };
        assert_eq!(read(nameless), DecideResponseError::NoPolicy);
        for code in [0, 4999, 10_000, -1] {
            let refuse = wire::Refuse {
                code,
                ..wire::Refuse::default()
            };
            let refuse = Some(WireVerdict::Refuse(refuse));
            assert_eq!(read(response(refuse)), DecideResponseError::Code(code));
        }
    }

    #[test]
    fn a_response_about_friends_that_were_not_in_the_request_is_invalid() {
        let read = |verdict: WireVerdict, friends: &[&str]| {
            response(Some(verdict)).into_evaluation(&request(friends))
        };
        let allow = WireVerdict::Allow(wire::Allow {});
        assert!(read(allow.clone(), &["a", "b"]).is_ok());
        assert_eq!(
            read(allow.clone(), &["a"]),
            Err(DecideResponseError::Friends)
        );
        let matching = wire::FiredRule {
            matched: vec![wire::Match {
                friends: vec![2],
                ..wire::Match::default()
            }],
            ..wire::FiredRule::default()
        };
        let foreign = DecideResponse {
            rules: vec![matching],
            ..response(Some(allow))
        };
        let read_foreign = foreign.into_evaluation(&request(&["a", "b"]));
        assert_eq!(read_foreign, Err(DecideResponseError::Friends));
        let friends = vec![2];
        let outside = WireVerdict::Modify(wire::Modify { friends });
        let wrong = DecideResponseError::Kept(KeptError::NoSubset);
        assert_eq!(read(outside, &["a", "b"]), Err(wrong));
    }
}
