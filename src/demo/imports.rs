//! Imports as administrators of a messenger make them: most are ordinary, and each rule of the sample policy applies to some.

use std::fmt;

/// First names from which the IDs of owners and friends are made.
const NAMES: [&str; 16] = [
    "amelie", "bao", "chidi", "dunja", "elif", "farid", "grace", "hana", "ivan", "jomo", "kemal",
    "lucia", "mei", "noor", "oskar", "priya",
];

/// The order of the kinds: a dozen that repeats.
const ORDER: [Kind; 12] = [
    Kind::Ordinary,
    Kind::Machines,
    Kind::Ordinary,
    Kind::Large,
    Kind::Ordinary,
    Kind::BannedFriends,
    Kind::Ordinary,
    Kind::BannedOwner,
    Kind::Ordinary,
    Kind::Repeated,
    Kind::Ordinary,
    Kind::Huge,
];

/// What is special about an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Ordinary,
    Machines,
    BannedFriends,
    Repeated,
    Large,
    BannedOwner,
    Huge,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ordinary => "ordinary",
            Self::Machines => "with a bot",
            Self::BannedFriends => "with a banned account",
            Self::Repeated => "with a friend twice",
            Self::Large => "of more than 50 friends",
            Self::BannedOwner => "by a banned account",
            Self::Huge => "of more than 1000 friends",
        })
    }
}

/// An import for which a callback is sent.
pub(super) struct Import {
    pub(super) kind: Kind,
    pub(super) operation_id: String,
    pub(super) owner: String,
    pub(super) friends: Vec<String>,
}

impl Import {
    /// The import number `number`, counted from 0.
    pub(super) fn new(number: usize) -> Self {
        let kind = ORDER[number % ORDER.len()];
        let few = 2 + number * 7 % 19;
        let count = match kind {
            Kind::Large => 60 + number % 90,
            Kind::Huge => 1_001 + number % 200,
            _ => few,
        };
        // Spread over the names; no owner is among these friends.
        let mut friends: Vec<String> = (0..count)
            .map(|friend| user(number * 5 + friend, 2_000 + friend))
            .collect();
        match kind {
            Kind::Machines => friends.insert(1, format!("bot_weather_{}", number % 7)),
            Kind::BannedFriends => friends.insert(1, "spammer_1001".to_owned()),
            Kind::Repeated => friends.push(friends[0].clone()),
            Kind::Ordinary | Kind::Large | Kind::BannedOwner | Kind::Huge => {}
        }
        Self {
            kind,
            operation_id: format!("demo-{:04}", number + 1),
            owner: match kind {
                Kind::BannedOwner => "blocked_user".to_owned(),
                _ => user(number, 1_000 + number % 800),
            },
            friends,
        }
    }
}

fn user(name: usize, number: usize) -> String {
    format!("{}_{number}", NAMES[name % NAMES.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_with_a_friend_twice_have_repeated_friends() {
        for number in 0..500 {
            let Import {
                kind,
                owner,
                mut friends,
                ..
            } = Import::new(number);
            assert!(!friends.contains(&owner), "{number}");
            let asked = friends.len();
            friends.sort();
            friends.dedup();
            assert_eq!(friends.len() < asked, kind == Kind::Repeated, "{number}");
        }
    }
}
