//! Explains an evaluation rule by rule. It observes the evaluation itself, so that the two cannot disagree.

mod reason;

pub use reason::Reason;

use std::{collections::BTreeMap, convert::Infallible, fmt};

use importguard_core::{Evaluation, Mode};

use super::{
    Policy, Request,
    cost::SHADOW_BUDGET,
    diagnostic::quoted,
    evaluate::{self, Effect, Observer, State},
    matcher::Part,
    read::{DUPLICATE, SELF},
    rule::{Action, Applies, Rule, bucket},
    trail::{Fate, Position},
    units::OverBudgetError,
};
use crate::lists::{IdHash, View, live::LiveLists};

/// An evaluation and the effect of each rule.
#[derive(Clone, Debug)]
pub struct Explanation<'p> {
    /// The result, the same as that of [`Policy::evaluate`].
    pub evaluation: Evaluation,
    /// Every rule of the policy in order, the built-in ones first. `nobodyLeft` appears only in the evaluation.
    pub steps: Vec<Step<'p>>,
}

/// The effect of one rule.
#[derive(Clone, Debug)]
pub struct Step<'p> {
    /// The rule's ID.
    pub rule: &'p str,
    /// Its kind: the key in the file, or `built-in`.
    pub kind: &'static str,
    /// Its description in the file.
    pub description: Option<&'p str>,
    /// Its mode for this owner; `None` if it is off.
    pub mode: Option<Mode>,
    /// Its rollout, if the owner is outside it.
    pub outside: Option<Outside>,
    /// Its effect.
    pub happened: Happened<'p>,
    /// What it would also do if lists in shadow mode took effect.
    pub lists_in_shadow: Option<Happened<'p>>,
}

/// A rollout that does not include the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// The owner's bucket, 0 to 99.
    pub bucket: u8,
    /// The percentage: buckets below this are included.
    pub per_cent: u8,
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, per_cent } = self;
        write!(
            f,
            "owner outside the rollout: bucket {bucket}, rollout {per_cent}"
        )
    }
}

/// The effect of a rule; in shadow mode, the effect that it would have had.
#[derive(Clone, Debug)]
pub enum Happened<'p> {
    /// An earlier rule refused the import.
    NotReached,
    /// It is off.
    Off,
    /// The owner is outside its rollout, and it does nothing for the others.
    OutsideRollout,
    /// Its condition is false.
    NotWhen {
        /// The condition.
        when: &'p str,
    },
    /// It was evaluated and did not match.
    Nothing,
    /// The number of remaining friends is within its limit.
    WithinLimit {
        /// How many are left.
        friends: usize,
        /// The limit.
        max: usize,
    },
    /// It refused the import.
    Refused(Reason<'p>),
    /// It removed friends.
    Removed {
        /// Indexes into the request's friends, and the reason.
        friends: Vec<(u32, Reason<'p>)>,
        /// The error of its expression for other friends, which were therefore kept.
        failure: Option<String>,
    },
    /// Its expression failed, and it was skipped.
    Skipped {
        /// The error.
        failure: String,
    },
    /// It is in shadow mode and was not evaluated: the remaining budget of shadow rules is too small.
    OverBudget {
        /// Its cost, in units.
        cost: u64,
        /// The rest of [`SHADOW_BUDGET`], in units.
        left: u64,
    },
}

impl Step<'_> {
    /// Describes for people what the rule did, or would have done. `friends` are those of the request; only the first removed ones are
    /// named.
    pub fn describe<S: AsRef<str>>(&self, friends: &[S]) -> String {
        let happened = self.happened.describe(self.mode, friends);
        let happened = match &self.outside {
            Some(outside) if happened.is_empty() => outside.to_string(),
            Some(outside) => format!("{outside}: {happened}"),
            None => happened,
        };
        match &self.lists_in_shadow {
            Some(more) => {
                let more = more.describe(Some(Mode::Shadow), friends);
                format!("{happened}; by lists in shadow, {more}")
            }
            None => happened,
        }
    }
}

fn describe_removal<S: AsRef<str>>(
    verb: &str,
    friends: &[S],
    removed: &[(u32, Reason<'_>)],
    failure: Option<&str>,
) -> String {
    let name = |index: u32| {
        friends
            .get(index as usize)
            .map_or_else(|| "?".to_owned(), |id| quoted(id.as_ref()))
    };
    if let [
        (
            _,
            reason @ Reason::Matched {
                part: Part::Limit { .. },
                ..
            },
        ),
        ..,
    ] = removed
    {
        let more = if removed.len() > MAX_NAMED {
            ", …"
        } else {
            ""
        };
        let named = removed.iter().take(MAX_NAMED);
        let named: Vec<_> = named.map(|(index, _)| name(*index)).collect();
        let named = named.join(", ");
        return format!("{reason}: {verb} {} ({named}{more})", removed.len());
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
    format!("{verb} {}: {}", removed.len(), parts.join("; "))
}

impl Happened<'_> {
    fn describe<S: AsRef<str>>(&self, mode: Option<Mode>, friends: &[S]) -> String {
        let (refused, removed) = match mode {
            Some(Mode::Shadow) => ("would refuse", "would remove"),
            Some(Mode::Enforce) | None => ("refused", "removed"),
        };
        match self {
            Self::Refused(reason) if reason.is_of_an_id() => {
                format!("{refused}: the owner {reason}")
            }
            Self::Refused(reason) => format!("{refused}: {reason}"),
            Self::Removed {
                friends: indexes,
                failure,
            } => describe_removal(removed, friends, indexes, failure.as_deref()),
            Self::NotReached => "not reached: an earlier rule refused the import".to_owned(),
            Self::Off => "off".to_owned(),
            // `Step::describe` adds the rollout.
            Self::OutsideRollout => String::new(),
            Self::NotWhen { when } => format!("not evaluated: {when} is false"),
            Self::Nothing => "no match".to_owned(),
            Self::WithinLimit { friends, max } => {
                format!("no match: {friends} of at most {max} friends")
            }
            Self::Skipped { failure } => format!("skipped: the expression failed: {failure}"),
            Self::OverBudget { cost, left } => format!(
                "skipped: it costs {cost} units; {left} of the {SHADOW_BUDGET} for shadow rules are left"
            ),
        }
    }
}

/// Maximum number of removed friends that are named.
const MAX_NAMED: usize = 10;

pub(super) fn explain<'p, S: AsRef<str>>(
    state: (&'p Policy, &'p LiveLists),
    request: &Request<'_, S>,
    per_cent: Option<u8>,
) -> Explanation<'p> {
    let mut recorder = Recorder {
        built_in: Vec::new(),
        steps: BTreeMap::new(),
    };
    let mut never = || Ok(());
    let Ok::<_, Infallible>(evaluation) =
        evaluate::evaluate(state, request, per_cent, &mut recorder, &mut never);
    let Recorder {
        built_in: mut steps,
        steps: mut by_position,
    } = recorder;
    let (policy, _) = state;
    for (position, rule) in policy.positions() {
        let not_reached = || match rule.mode {
            None => step(rule, None, Happened::Off),
            Some(_) => step(rule, rule.mode, Happened::NotReached),
        };
        steps.push(by_position.remove(&position).unwrap_or_else(not_reached));
    }
    Explanation { evaluation, steps }
}

struct Recorder<'p> {
    built_in: Vec<Step<'p>>,
    /// Shadow rules are observed after the others.
    steps: BTreeMap<Position, Step<'p>>,
}

impl<'p, S: AsRef<str>> Observer<'p, S> for Recorder<'p> {
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
                outside: None,
                happened: if friends.is_empty() {
                    Happened::Nothing
                } else {
                    Happened::Removed {
                        friends,
                        failure: None,
                    }
                },
                lists_in_shadow: None,
            });
        }
    }

    fn rule(
        &mut self,
        position: Position,
        rule: &'p Rule,
        effect: &Effect<'p>,
        state: &State<'p, '_, S>,
    ) {
        let left = state.friends.count();
        let shadow = state.applies(rule) == Applies::As(Mode::Shadow);
        let happened = match effect {
            Effect::Off => Happened::Off,
            Effect::OutsideRollout => Happened::OutsideRollout,
            Effect::NotWhen => Happened::NotWhen {
                when: rule.when.as_ref().map_or("", |when| when.source()),
            },
            Effect::Nothing => match rule.action {
                Action::KeepFirst(max) | Action::RefuseOver(max, _) => {
                    Happened::WithinLimit { friends: left, max }
                }
                _ => Happened::Nothing,
            },
            Effect::Refuse {
                fate: Fate::Error(why),
                ..
            } => Happened::Refused(Reason::Failed(why.clone())),
            Effect::Refuse { .. } => {
                let owner = (state.request.owner, state.owner_hash);
                Happened::Refused(rule.reason(left, (state.view, shadow), owner))
            }
            Effect::Remove {
                friends, failure, ..
            } => Happened::Removed {
                friends: friends
                    .iter()
                    .map(|&index| {
                        let friend = (state.friends.id(index), state.friends.hash(index));
                        (index, rule.reason(left, (state.view, shadow), friend))
                    })
                    .collect(),
                failure: failure.clone(),
            },
            Effect::Skip(why) => Happened::Skipped {
                failure: why.clone(),
            },
            Effect::OverBudget(OverBudgetError { cost, left }) => Happened::OverBudget {
                cost: *cost,
                left: *left,
            },
        };
        let (mode, is_outside) = match state.applies(rule) {
            // The rule may be in shadow mode for the owners that its rollout does not include.
            Applies::As(mode) => (Some(mode), Some(mode) != rule.mode),
            Applies::Outside => (rule.mode, true),
            Applies::Off => (None, false),
        };
        let rollout = rule.rollout(state.per_cent).filter(|_| is_outside);
        let step = Step {
            outside: rollout.map(|rollout| Outside {
                bucket: bucket(&rule.id, state.request.owner),
                per_cent: rollout.per_cent,
            }),
            ..step(rule, mode, happened)
        };
        self.steps.insert(position, step);
    }

    fn lists_in_shadow(&mut self, position: Position, rule: &'p Rule, state: &State<'p, '_, S>) {
        let view = state.view;
        let happened = match &rule.action {
            Action::RefuseOwner(matcher, _) => {
                let owner = state.request.owner;
                let part = matcher.only_in_shadow(owner, state.owner_hash, view);
                part.map(|part| Happened::Refused(Reason::of(part, owner, view)))
            }
            Action::DropFriends(matcher) => {
                let mut friends = Vec::new();
                let Ok::<_, Infallible>(_) = state.friends.select(|index| {
                    let id = state.friends.id(index);
                    let part = matcher.only_in_shadow(id, state.friends.hash(index), view);
                    friends.extend(part.map(|part| (index, Reason::of(part, id, view))));
                    Ok(false)
                });
                Some(Happened::Removed {
                    friends,
                    failure: None,
                })
            }
            _ => None,
        };
        if let Some(step) = self.steps.get_mut(&position) {
            step.lists_in_shadow = happened;
        }
    }
}

fn step<'p>(rule: &'p Rule, mode: Option<Mode>, happened: Happened<'p>) -> Step<'p> {
    Step {
        rule: &rule.id,
        kind: rule.kind(),
        description: rule.description.as_deref(),
        mode,
        outside: None,
        happened,
        lists_in_shadow: None,
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

    /// Why the rule matched an ID.
    fn reason(
        &self,
        left: usize,
        (view, shadow): (View<'_>, bool),
        (id, hash): (&str, IdHash),
    ) -> Reason<'_> {
        let part = match &self.action {
            Action::RefuseOwner(matcher, _) | Action::DropFriends(matcher) => {
                matcher.matching_as(shadow, id, hash, view)
            }
            &Action::KeepFirst(max) | &Action::RefuseOver(max, _) => {
                Some(Part::Limit { max, left })
            }
            Action::RefuseIf(expression, _) | Action::DropFriendIf(expression) => {
                Some(Part::Expression(expression.source()))
            }
        };
        match part {
            Some(part) => Reason::of(part, id, view),
            None => Reason::Failed("it does not match".to_owned()),
        }
    }
}
