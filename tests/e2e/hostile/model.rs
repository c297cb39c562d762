use std::collections::HashSet;

use importguard_core::Dialect;
use importguard_tests::{Reading, Response, ServerVersion, read_as_documented, read_as_server};

/// What an answer must be.
#[derive(Clone, Debug)]
pub(super) enum Due {
    /// This verdict, in this dialect.
    Verdict(Dialect, Reading),
    /// A refusal to decide, in this dialect.
    Refusal(Dialect),
    /// Either: HTTP leaves it open whether it is a request.
    Either(Dialect, Reading),
    /// A report with something wrong: it is let pass all the same, and recorded nowhere.
    Passed,
    /// A refusal to decide in either dialect, or a status without a body, or nothing at all: what was asked was not in HTTP, or more than
    /// anybody reads.
    Nothing,
    /// The same, or what a report gets: one may be found in it.
    NothingOrPassed,
}

impl Due {
    pub(super) fn is_verdict(&self) -> bool {
        matches!(self, Self::Verdict(..))
    }

    pub(super) fn may_be_missing(&self) -> bool {
        matches!(self, Self::Nothing | Self::NothingOrPassed)
    }

    pub(super) fn check(&self, answer: &Response) -> Result<(), String> {
        let in_json = answer.media_type() == Some("application/json");
        let right = match self {
            Self::Verdict(dialect, verdict) => is_verdict(*dialect, verdict, answer),
            Self::Refusal(dialect) => is_refusal(*dialect, answer),
            Self::Either(dialect, verdict) => {
                is_verdict(*dialect, verdict, answer) || is_refusal(*dialect, answer)
            }
            Self::Passed => is_passed(answer),
            Self::Nothing => says_nothing(answer),
            Self::NothingOrPassed => says_nothing(answer) || is_passed(answer),
        };
        if right && (in_json || answer.body.is_empty()) {
            Ok(())
        } else {
            Err(format!("due is {self:?}, and there comes {answer:?}"))
        }
    }
}

/// No version of OpenIM takes it for consent.
fn says_nothing(answer: &Response) -> bool {
    let bodyless = answer.status.is_client_error() && answer.body.is_empty();
    bodyless || is_refusal(Dialect::Server, answer) || is_refusal(Dialect::Documented, answer)
}

fn is_passed(answer: &Response) -> bool {
    is_verdict(Dialect::Server, &Reading::Imports { instead: None }, answer)
}

fn is_verdict(dialect: Dialect, verdict: &Reading, answer: &Response) -> bool {
    let mut read = readings(dialect, answer).into_iter();
    answer.status == 200 && read.all(|reading| reading == *verdict)
}

/// Every reader takes it for a refusal, with a code of importguard's own for what is wrong with a request.
fn is_refusal(dialect: Dialect, answer: &Response) -> bool {
    let mut read = readings(dialect, answer).into_iter();
    answer.status.is_client_error()
        && read.all(|reading| {
            matches!(
                reading,
                Reading::Refuses {
                    code: 5900..=5904,
                    ..
                }
            )
        })
}

fn readings(dialect: Dialect, answer: &Response) -> Vec<Reading> {
    match dialect {
        Dialect::Documented => vec![read_as_documented(&answer.body)],
        Dialect::Server => {
            let versions = ServerVersion::ALL.into_iter();
            versions
                .map(|version| read_as_server(version, &answer.body))
                .collect()
        }
    }
}

/// What the usual policy says of an import, worked out as a reader of its file would.
pub(super) fn verdict(owner: &str, friends: &[String]) -> Reading {
    let refuses = |code, message: &str, detail: &str| Reading::Refuses {
        code,
        message: message.to_owned(),
        detail: detail.to_owned(),
    };
    const BLOCKED: [&str; 3] = ["blocked_owner", "blocked_1", "blocked_2"];
    if BLOCKED.contains(&owner) {
        return refuses(
            5001,
            "User not allowed to import friends",
            "The user does not meet the criteria for importing friends",
        );
    }
    let mut seen = HashSet::from([owner]);
    let wanted = friends.iter().filter(|friend| {
        seen.insert(friend) && !BLOCKED.contains(&friend.as_str()) && !friend.starts_with("bot_")
    });
    let kept: Vec<String> = wanted.cloned().collect();
    if kept.len() == friends.len() {
        Reading::Imports { instead: None }
    } else if kept.is_empty() {
        refuses(
            5002,
            "No importable friends",
            "Every friend was removed by a rule",
        )
    } else {
        Reading::Imports {
            instead: Some(kept),
        }
    }
}
