use async_nats::jetstream::{
    self,
    stream::{ConsumerLimits, Source, SubjectTransform},
};
use importguard_tests::NatsServer;

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

fn transform() -> SubjectTransform {
    SubjectTransform {
        source: "importguard.v1.>".to_owned(),
        destination: "elsewhere.>".to_owned(),
    }
}

#[test]
fn each_setting_that_weakens_a_promise_is_named_with_its_remedy() {
    type Case = (&'static str, &'static str, fn(&mut Config));
    let cases: [Case; 10] = [
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
        ("other subjects", "--no-transform", |config| {
            config.subject_transform = Some(transform());
        }),
        ("only 1 consumers", "--max-consumers", |config| {
            config.max_consumers = 1;
        }),
        ("from for 1m", "consumer_limits", |config| {
            config.consumer_limits = Some(ConsumerLimits {
                inactive_threshold: Duration::from_secs(60),
                ..ConsumerLimits::default()
            });
        }),
        ("markers", "--subject-del-markers-ttl", |config| {
            config.subject_delete_marker_ttl = Some(Duration::from_secs(60));
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
        assert!(overlaps(pattern, subject), "{pattern}");
    }
    for pattern in [
        "importguard.v1.*",
        "importguard.v1.decision.allow.>",
        "import.>",
        "",
    ] {
        assert!(!overlaps(pattern, subject), "{pattern}");
    }
}

type Change = fn(&mut Config);

/// Settings that deviate, and others that NATS permits only with them or limits them by. In each group one holds at most.
fn changes() -> [Vec<Change>; 4] {
    [
        vec![
            |config| config.subjects = vec!["importguard.v1.decision.>".to_owned()],
            |config| {
                config.subjects = vec!["importguard.*.imported".to_owned(), "other.>".to_owned()];
                config.subject_transform = Some(transform());
            },
        ],
        vec![
            |config| config.max_messages_per_subject = 7,
            |config| {
                config.max_messages_per_subject = 7;
                config.discard_new_per_subject = true;
                config.discard = DiscardPolicy::New;
            },
            |config| {
                config.max_messages = 1000;
                config.discard = DiscardPolicy::New;
            },
        ],
        vec![
            |config| config.duplicate_window = Duration::from_secs(5),
            |config| {
                config.duplicate_window = Duration::from_secs(5);
                config.max_age = Duration::from_secs(60);
            },
            |config| {
                config.duplicate_window = Duration::from_secs(5);
                config.max_age = Duration::from_secs(300);
            },
        ],
        vec![
            |config| config.retention = RetentionPolicy::Interest,
            |config| {
                config.storage = StorageType::Memory;
                config.max_consumers = 1;
            },
        ],
    ]
}

/// The sound stream with at most one change of each group, in every combination.
fn combinations() -> Vec<Config> {
    let mut all = vec![sound()];
    for group in changes() {
        for config in all.clone() {
            all.extend(group.iter().map(|change| {
                let mut config = config.clone();
                change(&mut config);
                config
            }));
        }
    }
    all
}

/// What `nats stream edit IMPORTGUARD` makes of `config` with these flags.
fn edited(config: &Config, flags: &str) -> Config {
    let mut config = config.clone();
    let mut flags = flags.split([' ', '=']);
    while let Some(flag) = flags.next() {
        let mut value = || flags.next().unwrap();
        let duration = |text: &str| humantime::parse_duration(text).unwrap();
        match flag {
            "--subjects" => {
                let subjects = value().trim_matches('\'').split(',');
                config.subjects = subjects.map(str::to_owned).collect();
            }
            "--no-transform" => config.subject_transform = None,
            "--dupe-window" => config.duplicate_window = duration(value()),
            "--max-age" => config.max_age = duration(value()),
            "--discard" => {
                assert_eq!(value(), "old");
                config.discard = DiscardPolicy::Old;
            }
            "--no-discard-per-subject" => config.discard_new_per_subject = false,
            "--max-msgs-per-subject" => {
                config.max_messages_per_subject = value().parse().unwrap();
            }
            "--max-consumers" => config.max_consumers = value().parse().unwrap(),
            other => panic!("{other}"),
        }
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_accepts_every_remedy_whatever_else_deviates_and_it_helps() {
    for mut nats in NatsServer::of_each_version() {
        nats.restart().await;
        let jetstream = jetstream::new(nats.client().await);
        for config in combinations() {
            let mut stream = jetstream.create_stream(&config).await.unwrap();
            // An older server leaves out what it does not know.
            let config = stream.info().await.unwrap().config.clone();
            for text in deviations(&config) {
                let (what, remedy) = text.split_once(" (remedy: `nats stream ").unwrap();
                let Some((flags, _)) = remedy
                    .strip_prefix("edit IMPORTGUARD ")
                    .and_then(|rest| rest.split_once('`'))
                else {
                    assert!(remedy.starts_with("rm IMPORTGUARD`"), "{text}");
                    continue;
                };
                let edited = edited(&config, flags);
                let is_there = |all: Vec<String>| all.iter().any(|text| text.starts_with(what));
                match jetstream.update_stream(&edited).await {
                    Ok(info) => assert!(!is_there(deviations(&info.config)), "{text}: {config:?}"),
                    Err(error) => assert!(
                        text.contains("where NATS refuses that"),
                        "{error}: {text}: {config:?}"
                    ),
                }
                jetstream.delete_stream(STREAM).await.unwrap();
                jetstream.create_stream(&config).await.unwrap();
            }
            jetstream.delete_stream(STREAM).await.unwrap();
        }
    }
}
