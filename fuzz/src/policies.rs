use std::{collections::HashSet, time::Duration};

use importguard_core::Verdict;
use importguard_decider::{
    lists,
    policy::{Diagnostics, Draft, ListFiles, Policy, Request},
};

/// Who asks, and for whom.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The owner.
    pub owner: &'a str,
    /// The friends.
    pub friends: &'a [&'a str],
}

impl Asked<'_> {
    /// Nobody, somebody ordinary, and what only an attacker or a tester would send.
    const SAMPLES: [Asked<'static>; 3] = [
        Asked {
            owner: "user123",
            friends: &["user456", "blocked_1", "bot_7", "user456", "user123", "12"],
        },
        Asked {
            owner: "blocked_owner",
            friends: &[],
        },
        Asked {
            owner: "\u{0}\u{202e}🦀",
            friends: &["", " ", "9223372036854775807", "-1", "é", "e\u{301}", "[(*"],
        },
    ];
}

/// Compiles a policy and has it decide on samples; what it decides is held to what is promised of every decision.
pub fn decide(source: &str) -> Result<(), Diagnostics> {
    let mut files = ListFiles::new();
    files.insert(
        "lists/blocked.txt".to_owned(),
        Ok(lists::parse(b"blocked_owner\nblocked_1\n").unwrap()),
    );
    let policy = Draft::read("policy.yaml", source).compile(&files)?;
    for asked in Asked::SAMPLES {
        check(&policy, asked);
    }
    Ok(())
}

fn check(policy: &Policy, asked: Asked<'_>) {
    let request = Request {
        operation_id: "1646445464564",
        owner: asked.owner,
        friends: asked.friends,
        // 2026-11-24.
        now: std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_478_400),
    };
    let decision = policy.evaluate(&request);
    assert_eq!(decision, policy.evaluate(&request));
    assert_eq!(decision, policy.explain(&request).evaluation);
    match &decision.verdict {
        Verdict::Allow => {}
        Verdict::Refuse(refusal) => {
            let code = refusal.code;
            assert!((5000..=9999).contains(&code), "{code}");
            assert!(!refusal.message.is_empty());
        }
        Verdict::Modify(kept) => {
            let kept = kept.indexes();
            assert!(!kept.is_empty() && kept.len() < asked.friends.len());
            assert!(kept.is_sorted_by(|a, b| a < b), "{kept:?}");
            let mut seen = HashSet::from([asked.owner]);
            for &index in kept {
                let friend = asked.friends[index as usize];
                assert!(
                    seen.insert(friend),
                    "{friend:?} is kept twice, or owns the list"
                );
            }
        }
    }
}
