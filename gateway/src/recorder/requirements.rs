//! Checks whether a stream that an operator created or changed supports importguard's guarantees.

use std::time::Duration;

use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType,
};
use parking_lot::Mutex;

use strum::IntoEnumIterator;

use super::settings::STREAM;
use crate::events::Subject;

/// Minimum duplicate window, which is also NATS's default. A shorter one leaves hardly any time between a lost ack and the second
/// attempt.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2 * 60);

/// The remedy for a setting that NATS never changes.
const ANEW: &str = "`nats stream rm IMPORTGUARD` deletes it with its events, and a gateway that runs creates it again with the same limits \
    and replicas";

/// A setting with which the stream stores no events or does not acknowledge those that it has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error(
        "the stream {STREAM} is sealed and takes no events for ever: copy it if you need it, then {ANEW}"
    )]
    Sealed,
    #[error(
        "the stream {STREAM} is a mirror and takes no events of its own: mirror under another name, then {ANEW}"
    )]
    Mirror,
    #[error(
        "the stream {STREAM} has no_ack set, so NATS never says that it has an event: `nats stream edit {STREAM} --ack`"
    )]
    NoAck,
    #[error(
        "the stream {STREAM} has `persist_mode: async`, so NATS acknowledges events before it has written them, and loses them if it is killed: {ANEW}"
    )]
    PersistedLater,
    #[error("the stream {STREAM} is a counter (allow_msg_counter) and takes no events: {ANEW}")]
    Counter,
}

/// Returns why no event can be recorded in this stream, or `None` if events can.
pub(super) fn unfit(config: &Config) -> Option<Unfit> {
    [
        (config.sealed, Unfit::Sealed),
        (config.mirror.is_some(), Unfit::Mirror),
        (config.no_ack, Unfit::NoAck),
        (
            config.persist_mode == Some(PersistenceMode::Async),
            Unfit::PersistedLater,
        ),
        (config.allow_message_counter, Unfit::Counter),
    ]
    .into_iter()
    .find_map(|(is, unfit)| is.then_some(unfit))
}

/// Returns whether a stream with these `patterns` has `subject`.
pub(super) fn takes(patterns: &[String], subject: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, subject))
}

fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(expected), Some(token)) if expected == token => {}
            _ => return false,
        }
    }
}

/// Returns the settings that weaken the guarantees although the stream accepts events, with their remedies.
pub(super) fn deviations(config: &Config) -> Vec<String> {
    let edit = |flag: &str| format!("nats stream edit {STREAM} {flag}");
    let again = format!("nats stream rm {STREAM}");
    let mut all = Vec::new();
    let mut add = |what: &str, remedy: &str| all.push(format!("{what} (remedy: `{remedy}`)"));
    let missing: Vec<_> = Subject::iter()
        .map(Subject::into_str)
        .filter(|subject| !takes(&config.subjects, subject))
        .collect();
    if !missing.is_empty() {
        add(
            &format!(
                "it lacks the subjects {}: their events stay in the spool",
                missing.join(", ")
            ),
            &edit("--subjects 'importguard.v1.>'"),
        );
    }
    if config.retention != RetentionPolicy::Limits {
        add(
            "its retention is not `limits`: events that nobody waits for, or that one reader has taken, are gone",
            &format!(
                "{again}, which a gateway creates again with `limits`: NATS cannot change that everywhere"
            ),
        );
    }
    if config.duplicate_window < DUPLICATE_WINDOW {
        add(
            &format!(
                "its duplicate window is {}, less than {}: events may be stored twice after an outage",
                humantime::format_duration(config.duplicate_window),
                humantime::format_duration(DUPLICATE_WINDOW)
            ),
            &edit("--dupe-window 10m"),
        );
    }
    if config.discard != DiscardPolicy::Old && has_a_limit(config) {
        add(
            "its discard policy is `new`: when it is full it refuses events, and spools fill up",
            &edit("--discard old"),
        );
    }
    if config.max_messages_per_subject > 0 {
        add(
            &format!(
                "it keeps only {} events per subject",
                config.max_messages_per_subject
            ),
            &edit("--max-msgs-per-subject=-1"),
        );
    }
    if config.storage == StorageType::Memory {
        add(
            "its storage is memory: a restart of nats-server loses all events",
            &format!("{again}, which a gateway creates again on disk: NATS cannot change that"),
        );
    }
    all
}

/// Logs a warning if a stream in a cluster is on one of its servers only.
pub(super) fn warn_of_one_replica(info: &Info) {
    let name = info.cluster.as_ref().and_then(|it| it.name.as_deref());
    if let (Some(cluster), 1) = (name, info.config.num_replicas) {
        tracing::warn!(
            "the stream {STREAM} has one replica in the cluster {cluster}: while its server is away events stay in spools, and if its disk is lost, so are all events: \
             `nats stream edit {STREAM} --replicas 3`"
        );
    }
}

fn has_a_limit(config: &Config) -> bool {
    config.max_bytes > 0 || config.max_messages > 0 || config.discard_new_per_subject
}

/// The deviations of the stream as last seen.
#[derive(Debug, Default)]
pub(super) struct Deviations(Mutex<Vec<String>>);

impl Deviations {
    /// Stores the deviations and logs the new ones.
    pub(super) fn set(&self, found: Vec<String>) {
        let mut known = self.0.lock();
        for deviation in found.iter().filter(|deviation| !known.contains(deviation)) {
            tracing::warn!("the stream {STREAM} weakens what is promised: {deviation}");
        }
        *known = found;
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::Source;

    use super::*;

    fn sound() -> Config {
        Config {
            name: STREAM.to_owned(),
            subjects: vec!["importguard.v1.>".to_owned()],
            duplicate_window: DUPLICATE_WINDOW,
            ..Config::default()
        }
    }

    #[test]
    fn what_a_gateway_creates_has_no_deviation_and_neither_has_the_list_of_subjects() {
        assert_eq!(deviations(&sound()), Vec::<String>::new());
        let listed = Config {
            subjects: vec![
                "importguard.v1.decision.*".to_owned(),
                "importguard.v1.imported".to_owned(),
            ],
            ..sound()
        };
        assert_eq!(deviations(&listed), Vec::<String>::new());
    }

    #[test]
    fn each_setting_that_weakens_a_promise_is_named_with_its_remedy() {
        type Case = (&'static str, &'static str, fn(&mut Config));
        let cases: [Case; 6] = [
            ("importguard.v1.imported", "--subjects", |config| {
                config.subjects = vec!["importguard.v1.decision.>".to_owned()];
            }),
            ("retention", "stream rm", |config| {
                config.retention = RetentionPolicy::Interest;
            }),
            ("duplicate window is 5s", "--dupe-window", |config| {
                config.duplicate_window = Duration::from_secs(5);
            }),
            ("discard policy", "--discard old", |config| {
                config.discard = DiscardPolicy::New;
                config.max_bytes = 1 << 20;
            }),
            (
                "only 7 events per subject",
                "--max-msgs-per-subject",
                |config| {
                    config.max_messages_per_subject = 7;
                },
            ),
            ("memory", "stream rm", |config| {
                config.storage = StorageType::Memory;
            }),
        ];
        for (what, remedy, change) in cases {
            let mut config = sound();
            change(&mut config);
            let texts = deviations(&config);
            let [text] = &texts[..] else {
                panic!("{what}: {texts:?}");
            };
            assert!(text.contains(what) && text.contains(remedy), "{text}");
        }
    }

    #[test]
    fn a_stream_that_takes_nothing_or_tells_nothing_is_unfit() {
        assert_eq!(unfit(&sound()), None);
        let sealed = Config {
            sealed: true,
            ..sound()
        };
        assert_eq!(unfit(&sealed), Some(Unfit::Sealed));
        let mirror = Config {
            mirror: Some(Source::default()),
            ..sound()
        };
        assert_eq!(unfit(&mirror), Some(Unfit::Mirror));
        let no_ack = Config {
            no_ack: true,
            ..sound()
        };
        assert_eq!(unfit(&no_ack), Some(Unfit::NoAck));
        let early = Config {
            persist_mode: Some(PersistenceMode::Async),
            ..sound()
        };
        assert_eq!(unfit(&early), Some(Unfit::PersistedLater));
        let counter = Config {
            allow_message_counter: true,
            ..sound()
        };
        assert_eq!(unfit(&counter), Some(Unfit::Counter));
    }

    #[test]
    fn wildcards_match_as_on_nats() {
        let subject = "importguard.v1.decision.allow";
        for pattern in [subject, "importguard.>", "importguard.*.decision.*", ">"] {
            assert!(matches(pattern, subject), "{pattern}");
        }
        for pattern in [
            "importguard.v1.*",
            "importguard.v1.decision.allow.>",
            "import.>",
            "",
        ] {
            assert!(!matches(pattern, subject), "{pattern}");
        }
    }
}
