//! What a decider answers, checked before it is believed: OpenIM writes the list that it gets into its database as it is.

use std::{collections::HashSet, ops::RangeInclusive};

use importguard_proto::{
    decider::{self as wire, DecideResponse, decide_response::Verdict as WireVerdict},
    event::{FiredRule, ListRevision, Mode, Outcome, PolicyRevision, Refusal, Removal},
};

use super::{Evidence, Kept, Verdict};
use crate::openim::ImportRequest;

/// OpenIM's range for custom codes.
const CODES: RangeInclusive<i32> = 5000..=9999;

/// Takes a decider's answer to `request` apart. The error is a sentence that says what is wrong with it.
pub(super) fn verify(
    response: DecideResponse,
    request: &ImportRequest,
) -> Result<(Verdict, Evidence), String> {
    let verdict = match response.verdict.ok_or("it holds no verdict")? {
        WireVerdict::Allow(wire::Allow {}) => Verdict::Allow,
        WireVerdict::Refuse(refuse) if CODES.contains(&refuse.code) => Verdict::Refuse(Refusal {
            rule: Some(refuse.rule),
            code: refuse.code,
            message: refuse.message,
            detail: refuse.detail,
        }),
        WireVerdict::Refuse(refuse) => {
            return Err(format!(
                "its code {} lies outside 5000–9999, which OpenIM reserves for refusals",
                refuse.code
            ));
        }
        WireVerdict::Modify(modify) => Verdict::Modify(kept(&modify.friend_user_ids, request)?),
    };
    let policy = response.policy.ok_or("it names no policy")?;
    let evidence = Evidence {
        rules: response.rules.into_iter().map(fired).collect(),
        removed: response
            .removed
            .into_iter()
            .map(|removal| removed(removal, request))
            .collect::<Result<_, _>>()?,
        policy: PolicyRevision {
            name: policy.name,
            digest: policy.digest,
        },
        lists: response.lists.into_iter().map(list).collect(),
        decider: response.decider,
    };
    Ok((verdict, evidence))
}

/// The ids' indexes, if they are a subset of the request's friends in its order, without repetitions or the owner, with at
/// least one left and at least one gone.
fn kept(ids: &[String], request: &ImportRequest) -> Result<Kept, &'static str> {
    if ids.is_empty() {
        return Err("its modified list is empty, which OpenIM reads as importing everybody");
    }
    if ids.len() >= request.friends.len() {
        return Err("its modified list is not shorter than the request's");
    }
    let mut seen = HashSet::with_capacity(ids.len());
    let mut rest = (0_u32..).zip(request.friends.iter());
    let mut indexes = Vec::with_capacity(ids.len());
    for id in ids {
        if id == request.owner.as_str() || !seen.insert(id.as_str()) {
            return Err("its modified list holds the owner or a repetition");
        }
        let (index, _) = rest
            .find(|(_, friend)| friend == id)
            .ok_or("its modified list is not a subset of the request's in its order")?;
        indexes.push(index);
    }
    Ok(Kept::verified(indexes))
}

fn removed(removal: wire::Removal, request: &ImportRequest) -> Result<Removal, &'static str> {
    let inside = |index: &u32| (*index as usize) < request.friends.len();
    if removal.friends.iter().all(inside) {
        Ok(Removal {
            rule: removal.rule,
            friends: Some(removal.friends),
            count: None,
        })
    } else {
        Err("it removes friends that the request does not have")
    }
}

fn fired(rule: wire::FiredRule) -> FiredRule {
    let mode = match rule.mode() {
        wire::Mode::Shadow => Mode::Shadow,
        wire::Mode::Enforce | wire::Mode::Unspecified => Mode::Enforce,
    };
    let outcome = match rule.outcome() {
        wire::Outcome::Refuse => Outcome::Refuse,
        wire::Outcome::Remove => Outcome::Remove,
        wire::Outcome::Error | wire::Outcome::Unspecified => Outcome::Error,
    };
    FiredRule {
        id: rule.id,
        mode,
        outcome,
    }
}

fn list(revision: wire::ListRevision) -> ListRevision {
    ListRevision {
        name: revision.name,
        digest: revision.digest,
        size: revision.size,
    }
}

#[cfg(test)]
mod tests {
    use importguard_proto::{OperationId, UserId};

    use super::*;

    fn request(friends: &[&str]) -> ImportRequest {
        ImportRequest {
            operation_id: OperationId::parse("1").unwrap(),
            owner: UserId::parse("owner").unwrap(),
            friends: friends
                .iter()
                .map(|id| UserId::parse(*id).unwrap())
                .collect(),
        }
    }

    fn answer(verdict: Option<WireVerdict>) -> DecideResponse {
        DecideResponse {
            verdict,
            policy: Some(wire::Policy::default()),
            ..DecideResponse::default()
        }
    }

    fn modify(ids: &[&str]) -> DecideResponse {
        let friend_user_ids = ids.iter().map(|id| (*id).to_owned()).collect();
        answer(Some(WireVerdict::Modify(wire::Modify { friend_user_ids })))
    }

    #[test]
    fn believes_a_subset_in_order() {
        let request = request(&["a", "b", "a", "c"]);
        let (verdict, _) = verify(modify(&["b", "c"]), &request).unwrap();
        assert_eq!(verdict, Verdict::Modify(Kept::verified(vec![1, 3])));
    }

    #[test]
    fn disbelieves_any_other_list() {
        let request = request(&["a", "b", "a", "owner", "c"]);
        for ids in [
            &[][..],
            &["x"],
            &["b", "a", "c", "a"],
            &["c", "b"],
            &["a", "a"],
            &["owner"],
            &["a", "b", "a", "owner", "c"],
        ] {
            assert!(verify(modify(ids), &request).is_err(), "{ids:?}");
        }
    }

    #[test]
    fn disbelieves_an_answer_without_verdict_policy_or_a_fitting_code() {
        let request = request(&["a"]);
        assert!(verify(answer(None), &request).is_err());
        let allow = WireVerdict::Allow(wire::Allow {});
        let nameless = DecideResponse {
            policy: None,
            ..answer(Some(allow))
        };
        assert!(verify(nameless, &request).is_err());
        for code in [0, 4999, 10_000, -1] {
            let refuse = WireVerdict::Refuse(wire::Refuse {
                code,
                ..wire::Refuse::default()
            });
            assert!(verify(answer(Some(refuse)), &request).is_err(), "{code}");
        }
    }

    #[test]
    fn disbelieves_indexes_that_point_nowhere() {
        let request = request(&["a"]);
        let response = DecideResponse {
            removed: vec![wire::Removal {
                rule: "bots".to_owned(),
                friends: vec![1],
            }],
            ..answer(Some(WireVerdict::Allow(wire::Allow {})))
        };
        assert!(verify(response, &request).is_err());
    }
}
