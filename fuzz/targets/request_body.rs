//! A callback's body: what is read of it, and what is answered.
#![no_main]

use importguard_core::{Dialect, ImportRequest, Kept, OperationId, UserId};
use importguard_fuzz::{refuses, spoken};
use importguard_gateway::openim::{Answer, Command, Refusals, Rejection, parse};
use importguard_tests::Reading;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const MAX_FRIENDS: usize = 20;

const COMMANDS: [Command; 3] = [
    Command::BeforeImport(Dialect::Documented),
    Command::BeforeImport(Dialect::Server),
    Command::AfterImport,
];

fuzz_target!(|body: &[u8]| {
    for command in COMMANDS {
        let id = OperationId::parse("1646445464564").unwrap();
        match parse(command, id, body, MAX_FRIENDS) {
            Ok(request) => {
                is_what_was_sent(command, &request, body);
                answers(command.dialect(), &request);
            }
            Err(reason) => {
                assert!(matches!(
                    reason,
                    Rejection::Malformed(_)
                        | Rejection::CommandMismatch { .. }
                        | Rejection::TooLarge { .. }
                ));
                refuses(command.dialect(), &reason);
            }
        }
    }
});

/// Another parser finds the same in it.
fn is_what_was_sent(command: Command, request: &ImportRequest, body: &[u8]) {
    // An unknown number may be larger than any that this parser has.
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    assert_eq!(body["callbackCommand"], command.name());
    assert_eq!(body["ownerUserID"], request.owner.as_str());
    let friends: Vec<_> = request.friends.iter().map(|id| id.as_str()).collect();
    let sent = body["friendUserIDs"].as_array();
    let sent = sent.into_iter().flatten();
    let sent: Vec<_> = sent.map(|id| id.as_str().unwrap()).collect();
    assert_eq!(sent, friends);
    assert!(friends.len() <= MAX_FRIENDS);
    assert!(
        friends
            .iter()
            .all(|id| !id.is_empty() && id.len() <= UserId::MAX_BYTES)
    );
}

/// Every verdict on it is read as it is meant.
fn answers(dialect: Dialect, request: &ImportRequest) {
    let read = |answer: Answer<'_>| spoken(dialect, &answer.encode(dialect, Refusals::Readable));
    assert_eq!(read(Answer::Allow), Reading::Imports { instead: None });
    let refusal = Answer::Refuse {
        code: 5001,
        message: "no",
        detail: request.owner.as_str(),
        request: Some(request),
    };
    let expected = Reading::Refuses {
        code: 5001,
        message: "no".to_owned(),
        detail: request.owner.to_string(),
    };
    assert_eq!(read(refusal), expected);
    let kept: Vec<u32> = (0..)
        .step_by(2)
        .take(request.friends.len().div_ceil(2))
        .collect();
    if !kept.is_empty() {
        let friends = request.friends.iter().step_by(2);
        let expected = Reading::Imports {
            instead: Some(friends.map(ToString::to_string).collect()),
        };
        let kept = &Kept::trusted(kept);
        assert_eq!(read(Answer::Modify { request, kept }), expected);
    }
}
