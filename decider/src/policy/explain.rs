//! Rule by rule what happened to a request and why. Watches the very evaluation that decides, so that it cannot tell
//! another story.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;

use super::cost::SHADOW_BUDGET;
use super::evaluate::{self, Effect, Observer, OverBudget, State};
use super::matcher::Part;
use super::read::{DUPLICATE, SELF};
use super::rule::{Action, Rule, bucket};
use super::trail::Place;
use super::{Policy, Request};
use importguard_core::{Evaluation, Mode};

/// An evaluation and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'p> {
    /// What it came to, the same as [`Policy::evaluate`] gives.
    pub evaluation: Evaluation,
    /// Every rule of the policy in order, the built-in ones first. `nobodyLeft` is not among them: the evaluation tells.
    pub steps: Vec<Step<'p>>,
}

/// What became of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'p> {
    /// The rule's id.
    pub rule: &'p str,
    /// What kind of rule it is: the key that it has in the file, or `built-in`.
    pub kind: &'static str,
    /// The description it has in the file.
    pub description: Option<&'p str>,
    /// Whether it acts; absent if it is off.
    pub mode: Option<Mode>,
    /// What happened.
    pub happened: Happened<'p>,
}

/// What a rule did; in shadow, what it would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened<'p> {
    /// A rule before it refused the import.
    NotReached,
    /// It is off.
    Off,
    /// The owner is not among those for whom it is looked at.
    OutsideRollout {
        /// The owner's bucket, 0 to 99.
        bucket: u8,
        /// The buckets below this are in.
        per_cent: u8,
    },
    /// Its condition is false.
    NotWhen {
        /// The condition.
        when: &'p str,
    },
    /// It was evaluated and no match.
    Nothing,
    /// It refused the import.
    Refused(Reason<'p>),
    /// It removed friends.
    Removed {
        /// Indexes into the request's friends, and why.
        friends: Vec<(u32, Reason<'p>)>,
        /// Why its expression failed for others, who therefore stayed.
        failure: Option<String>,
    },
    /// Its expression failed, and it was skipped.
    Skipped {
        /// Why it failed.
        failure: String,
    },
    /// It is in shadow and was not evaluated: it would have cost more than was left of what rules in shadow may cost.
    OverBudget {
        /// What it would have cost, in units.
        cost: u64,
        /// What was left of [`SHADOW_BUDGET`].
        left: u64,
    },
}

/// Why a rule refused an import or removed a friend. Its `Display` is the end of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason<'p> {
    /// The id is the owner's own.
    IsOwner,
    /// The id stands earlier in the list.
    Repeated,
    /// The id is on this list.
    In(&'p str),
    /// The id is not on this list.
    NotIn(&'p str),
    /// The id starts with this.
    Prefix(&'p str),
    /// The id ends with this.
    Suffix(&'p str),
    /// The id matches this regular expression.
    Pattern(&'p str),
    /// More friends are left than this.
    Over(usize),
    /// This expression is true.
    Expression(&'p str),
    /// The rule's expression failed, and it refuses then.
    Failed(String),
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsOwner => f.write_str("is the owner"),
            Self::Repeated => f.write_str("is a duplicate"),
            Self::In(list) => write!(f, "is in {list}"),
            Self::NotIn(list) => write!(f, "is not in {list}"),
            Self::Prefix(prefix) => write!(f, "starts with \"{prefix}\""),
            Self::Suffix(suffix) => write!(f, "ends with \"{suffix}\""),
            Self::Pattern(pattern) => write!(f, "matches {pattern}"),
            Self::Over(max) => write!(f, "limit {max} exceeded"),
            Self::Expression(source) => write!(f, "{source} is true"),
            Self::Failed(why) => write!(f, "the expression failed: {why}"),
        }
    }
}

impl Happened<'_> {
    /// The same in words, for people. `friends` are the request's; of many that were removed the first few are named.
    pub fn describe<S: AsRef<str>>(&self, friends: &[S]) -> String {
        match self {
            Self::NotReached => "not reached: an earlier rule refused the import".to_owned(),
            Self::Off => "off".to_owned(),
            Self::OutsideRollout { bucket, per_cent } => {
                format!(
                    "owner outside the rollout: bucket {bucket}, rollout {per_cent}"
                )
            }
            Self::NotWhen { when } => format!("not evaluated: {when} is false"),
            Self::Nothing => "no match".to_owned(),
            Self::Refused(reason) => format!("refused: {reason}"),
            Self::Skipped { failure } => format!("skipped: the expression failed: {failure}"),
            Self::OverBudget { cost, left } => format!(
                "skipped: it costs {cost} units; {left} of the {SHADOW_BUDGET} for rules in shadow are left"
            ),
            Self::Removed {
                friends: removed,
                failure,
            } => {
                let name = |index: u32| friends.get(index as usize).map_or("?", AsRef::as_ref);
                if let [(_, reason @ Reason::Over(_)), ..] = removed.as_slice() {
                    let more = if removed.len() > MAX_NAMED { ", …" } else { "" };
                    let named = removed.iter().take(MAX_NAMED);
                    let named: Vec<_> = named.map(|(index, _)| name(*index)).collect();
                    let named = named.join(", ");
                    return format!("{reason}: removed {} ({named}{more})", removed.len());
                }
                let named = removed.iter().take(MAX_NAMED);
                let mut parts: Vec<String> = named
                    .map(|(index, reason)| format!("{} {reason}", name(*index)))
                    .collect();
                if let Some(more) = removed
                    .len()
                    .checked_sub(MAX_NAMED)
                    .filter(|&more| more > 0)
                {
                    parts.push(format!("and {more} more"));
                }
                if let Some(why) = failure {
                    parts.push(format!("the expression failed for others: {why}"));
                }
                format!("removed {}: {}", removed.len(), parts.join("; "))
            }
        }
    }
}

/// How many removed friends are named: enough to see what a rule is about.
const MAX_NAMED: usize = 10;

pub(super) fn explain<'p, S: AsRef<str>>(
    policy: &'p Policy,
    request: &Request<'_, S>,
) -> Explanation<'p> {
    let mut writer = Writer {
        built_in: Vec::new(),
        steps: BTreeMap::new(),
    };
    let mut never = || Ok(());
    let Ok::<_, Infallible>(evaluation) =
        evaluate::evaluate(policy, request, &mut writer, &mut never);
    let Writer {
        built_in: mut steps,
        steps: mut told,
    } = writer;
    for (place, rule) in policy.places() {
        let not_come_to = || match rule.mode {
            None => step(rule, Happened::Off),
            Some(_) => step(rule, Happened::NotReached),
        };
        steps.push(told.remove(&place).unwrap_or_else(not_come_to));
    }
    Explanation { evaluation, steps }
}

struct Writer<'p> {
    built_in: Vec<Step<'p>>,
    /// Rules in shadow are told after the others.
    steps: BTreeMap<Place, Step<'p>>,
}

impl<'p, S: AsRef<str>> Observer<'p, S> for Writer<'p> {
    fn before_rules(&mut self, owners: &[u32], repeated: &[u32]) {
        for (rule, friends, reason) in [
            (SELF, owners, Reason::IsOwner),
            (DUPLICATE, repeated, Reason::Repeated),
        ] {
            let friends: Vec<_> = friends
                .iter()
                .map(|&index| (index, reason.clone()))
                .collect();
            self.built_in.push(Step {
                rule,
                kind: "built-in",
                description: None,
                mode: Some(Mode::Enforce),
                happened: if friends.is_empty() {
                    Happened::Nothing
                } else {
                    Happened::Removed {
                        friends,
                        failure: None,
                    }
                },
            });
        }
    }

    fn rule(
        &mut self,
        place: Place,
        rule: &'p Rule,
        effect: &Effect<'p>,
        state: &State<'p, '_, S>,
    ) {
        let happened = match effect {
            Effect::Off => Happened::Off,
            Effect::OutsideRollout => Happened::OutsideRollout {
                bucket: bucket(&rule.id, state.request.owner),
                per_cent: rule.rollout.map_or(100, |rollout| rollout.per_cent()),
            },
            Effect::NotWhen => Happened::NotWhen {
                when: rule.when.as_ref().map_or("", |when| when.source()),
            },
            Effect::Nothing => Happened::Nothing,
            Effect::Refuse {
                failure: Some(why), ..
            } => Happened::Refused(Reason::Failed(why.clone())),
            Effect::Refuse { .. } => {
                Happened::Refused(rule.reason(|| (state.request.owner, state.owner_hash)))
            }
            Effect::Remove { friends, failure } => Happened::Removed {
                friends: friends
                    .iter()
                    .map(|&index| {
                        let friend = || (state.friends.id(index), state.friends.hash(index));
                        (index, rule.reason(friend))
                    })
                    .collect(),
                failure: failure.clone(),
            },
            Effect::Skip(why) => Happened::Skipped {
                failure: why.clone(),
            },
            Effect::OverBudget(OverBudget { cost, left }) => Happened::OverBudget {
                cost: *cost,
                left: *left,
            },
        };
        self.steps.insert(place, step(rule, happened));
    }
}

fn step<'p>(rule: &'p Rule, happened: Happened<'p>) -> Step<'p> {
    Step {
        rule: &rule.id,
        kind: rule.kind(),
        description: rule.description.as_deref(),
        mode: rule.mode,
        happened,
    }
}

impl Rule {
    fn kind(&self) -> &'static str {
        match self.action {
            Action::RefuseOwner(..) => "refuseOwner",
            Action::DropFriends(..) => "dropFriends",
            Action::KeepFirst(..) | Action::RefuseOver(..) => "limitFriends",
            Action::RefuseIf(..) => "refuseIf",
            Action::DropFriendIf(..) => "dropFriendIf",
        }
    }

    /// Why the rule took effect on an id.
    fn reason<'i>(&self, id: impl FnOnce() -> (&'i str, crate::lists::IdHash)) -> Reason<'_> {
        match &self.action {
            Action::RefuseOwner(matcher, _) | Action::DropFriends(matcher) => {
                let (id, hash) = id();
                match matcher.matching(id, hash) {
                    Some(Part::In(list)) => Reason::In(list),
                    Some(Part::NotIn(list)) => Reason::NotIn(list),
                    Some(Part::Prefix(text)) => Reason::Prefix(text),
                    Some(Part::Suffix(text)) => Reason::Suffix(text),
                    Some(Part::Pattern(text)) => Reason::Pattern(text),
                    None => Reason::Failed("it does not match".to_owned()),
                }
            }
            Action::KeepFirst(max) | Action::RefuseOver(max, _) => Reason::Over(*max),
            Action::RefuseIf(expression, _) | Action::DropFriendIf(expression) => {
                Reason::Expression(expression.source())
            }
        }
    }
}
