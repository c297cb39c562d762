use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::*;

const START: i64 = 1_800_000_000;

fn engine(rules: &str) -> Engine {
    with_made(rules, Made::default())
}

fn with_made(rules: &str, made: Made) -> Engine {
    let source = format!("apiVersion: importguard/v1\nrules: [{rules}]\n");
    let rules = Rules::parse("detector.yaml", &source).unwrap();
    Engine::new(Arc::new(rules), 1 << 20, made)
}

const THREE: &str = "{ id: three, refusals: 3, within: 1m, list: suspects, for: 10m }";
const PROLONGED: &str =
    "{ id: three, refusals: 3, within: 1m, list: suspects, for: 10m, prolong: true }";

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(START + seconds).unwrap()
}

/// Returns the event about the decision with this number, at this second.
fn event(number: u32, seconds: i64) -> Value {
    json!({
        "id": format!("019ad3f4-0000-7000-8000-{number:012x}"),
        "time": at(seconds).format(&Rfc3339).unwrap(),
        "data": {
            "ownerUserID": "user1",
            "friendUserIDs": ["a", "b"],
            "verdict": "refuse",
            "decidedBy": "policy",
            "refusal": { "rule": "too-many", "code": 5003 },
            "removed": [],
            "rules": [
                { "id": "too-many", "mode": "enforce", "outcome": "refuse" },
                { "id": "watched", "mode": "shadow", "outcome": "refuse" },
            ],
        },
    })
}

fn read(event: &Value) -> RecordedDecision {
    RecordedDecision::read(event.to_string().as_bytes()).unwrap()
}

/// Observes a decision that was stored without delay, and puts the owners on the lists.
fn observe(engine: &mut Engine, number: u32, seconds: i64) -> Vec<Detection> {
    observe_event(engine, &event(number, seconds))
}

fn observe_event(engine: &mut Engine, event: &Value) -> Vec<Detection> {
    let mut found = detect(engine, event);
    found.retain(|detection| {
        let is_new = !engine.is_listed(detection);
        if is_new {
            engine.list(detection, detection.until);
        }
        is_new
    });
    found
}

/// Observes a decision that was stored without delay, and puts nobody on a list.
fn detect(engine: &mut Engine, event: &Value) -> Vec<Detection> {
    let decision = read(event);
    engine.observe(&decision, decision.time).detections
}

#[test]
fn the_decision_that_is_one_too_many_leads_to_one_detection() {
    let mut engine = engine(THREE);
    assert_eq!(observe(&mut engine, 1, 0), []);
    assert_eq!(observe(&mut engine, 2, 1), []);
    let found = observe(&mut engine, 3, 59);
    let cause = read(&event(3, 59)).id;
    assert_eq!(
        found,
        [Detection {
            rule: 0,
            owner: UserId::parse("user1").unwrap(),
            event: EventId::derived("detector suspects three", cause),
            at: at(59),
            until: at(659),
        }]
    );
    // Redelivered decisions lead to no further detection.
    for (number, seconds) in [(3, 59), (1, 0), (2, 1), (3, 59)] {
        assert_eq!(observe(&mut engine, number, seconds), []);
    }
}

#[test]
fn decisions_as_far_apart_as_the_window_is_long_do_not_count_together() {
    let mut engine = engine(THREE);
    for (number, seconds) in [(1, 0), (2, 30), (3, 60)] {
        assert_eq!(observe(&mut engine, number, seconds), []);
    }
    assert_eq!(observe(&mut engine, 4, 89).len(), 1);
}

#[test]
fn decisions_count_again_when_the_entry_has_ended() {
    let mut engine = engine(THREE);
    for number in 1..=3 {
        observe(&mut engine, number, 0);
    }
    for number in 4..=20 {
        assert_eq!(observe(&mut engine, number, 600), []);
    }
    assert_eq!(observe(&mut engine, 21, 601), []);
    assert_eq!(observe(&mut engine, 22, 601), []);
    assert_eq!(observe(&mut engine, 23, 602).len(), 1);
}

#[test]
fn a_rule_that_prolongs_counts_on_and_begins_anew() {
    let mut engine = engine(PROLONGED);
    let mut found = Vec::new();
    for number in 1..=9 {
        found.extend(observe(&mut engine, number, i64::from(number)));
    }
    let until: Vec<_> = found.iter().map(|detection| detection.until).collect();
    assert_eq!(until, [at(603), at(606), at(609)]);
}

#[test]
fn owners_count_for_themselves() {
    let mut engine = engine(THREE);
    for number in 1..=6 {
        let mut event = event(number, 0);
        event["data"]["ownerUserID"] = format!("user{}", number % 3).into();
        assert_eq!(observe_event(&mut engine, &event), []);
    }
}

#[test]
fn a_fallback_counts_only_where_its_cause_is_named() {
    let named = "{ id: three, refusals: 3, within: 1m, only: { causes: [deciderTimeout] }, list: suspects, for: 10m }";
    for (rules, cause, detections) in [
        (THREE, "deciderTimeout", 0),
        (named, "deciderTimeout", 1),
        (named, "overloaded", 0),
    ] {
        let mut engine = engine(rules);
        let mut found = 0;
        for number in 1..=3 {
            let mut event = event(number, 0);
            event["data"]["decidedBy"] = "fallback".into();
            event["data"]["cause"] = cause.into();
            found += observe_event(&mut engine, &event).len();
        }
        assert_eq!(found, detections, "{rules} {cause}");
    }
}

#[test]
fn only_what_fits_the_filters_counts() {
    let rule = |filter: &str| {
        format!("{{ id: three, refusals: 3, within: 1m, {filter}, list: suspects, for: 10m }}")
    };
    for (filter, counts) in [
        ("only: { rules: [too-many] }", true),
        ("only: { rules: [other] }", false),
        ("only: { rules: [watched] }", false),
        ("only: { codes: [5003, 1] }", true),
        ("only: { codes: [5001] }", false),
        ("except: { rules: [too-many] }", false),
        ("except: { rules: [watched] }", true),
        ("except: { codes: [5003] }", false),
        ("only: { rules: [too-many], codes: [5001] }", false),
    ] {
        let mut engine = engine(&rule(filter));
        let found: usize = (1..=3)
            .map(|number| observe(&mut engine, number, 0).len())
            .sum();
        assert_eq!(found, usize::from(counts), "{filter}");
    }
}

#[test]
fn different_friends_count_over_all_imports() {
    let mut engine =
        engine("{ id: wide, differentFriends: 5, within: 1m, list: suspects, for: 10m }");
    let import = |number, friends: Value| {
        let mut event = event(number, i64::from(number));
        event["data"]["verdict"] = "allow".into();
        event["data"]["refusal"] = Value::Null;
        event["data"]["friendUserIDs"] = friends;
        event
    };
    for (number, friends) in [
        (1, json!(["a", "b"])),
        (2, json!(["a", "b"])),
        (3, json!(["c", "d"])),
    ] {
        assert_eq!(observe_event(&mut engine, &import(number, friends)), []);
    }
    assert_eq!(
        observe_event(&mut engine, &import(4, json!(["d", "e"]))).len(),
        1
    );
    let mut large = import(5, Value::Null);
    large["data"]["friendCount"] = 70_000.into();
    let decision = read(&large);
    assert!(engine.observe(&decision, decision.time).unnamed);
}

#[test]
fn what_comes_late_counts_by_its_own_time_and_what_comes_too_late_does_not() {
    let mut engine = engine(THREE);
    let mut late = |number, seconds, stored| {
        let decision = read(&event(number, seconds));
        engine.observe(&decision, at(stored))
    };
    assert!(!late(1, 100, 100).late);
    // Stored after an outage.
    assert!(!late(2, 75, 130).late);
    assert!(late(3, 71, 131).late);
    let found = late(4, 80, 139);
    assert!(!found.late);
    assert_eq!(found.detections.len(), 1);
}

#[test]
fn a_clock_that_is_ahead_hides_nothing() {
    let mut engine = engine(THREE);
    for (number, detections) in [(1, 0), (2, 0), (3, 1)] {
        let decision = read(&event(number, 100_000));
        let found = engine.observe(&decision, at(i64::from(number)));
        assert_eq!(found.detections.len(), detections);
    }
}

#[test]
fn who_observes_again_draws_the_same_conclusions() {
    for (rules, prolong) in [(THREE, false), (PROLONGED, true)] {
        let mut first = engine(rules);
        let mut found = Vec::new();
        for number in 1..=10 {
            found.extend(observe(&mut first, number, i64::from(number)));
        }
        // As after a restart: the same decisions only count, and the earlier entries are known.
        let entries = found.iter().map(|detection| {
            let list = ListName::parse("suspects").unwrap();
            (list, detection.owner.clone(), detection.until)
        });
        let mut again = with_made(
            rules,
            Made {
                events: found.iter().map(|detection| detection.event).collect(),
                entries: entries.collect(),
            },
        );
        for number in 1..=10 {
            let decision = read(&event(number, i64::from(number)));
            again.replay(&decision, decision.time);
        }
        again.forget_made();
        assert_eq!(again.made.capacity(), 0);
        for number in 11..=40 {
            let found = observe(&mut again, number, i64::from(number));
            assert_eq!(
                found,
                observe(&mut first, number, i64::from(number)),
                "{number}"
            );
            assert!(prolong || found.is_empty());
        }
    }
}

#[test]
fn what_only_counts_leads_to_a_detection_with_the_next_decision() {
    let mut engine = engine(THREE);
    for number in 1..=5 {
        let decision = read(&event(number, 0));
        engine.replay(&decision, decision.time);
    }
    assert_eq!(observe(&mut engine, 6, 1).len(), 1);
}

#[test]
fn a_list_is_shared_by_its_rules() {
    let mut engine = engine(&format!(
        "{THREE}, {{ id: five, refusals: 5, within: 1m, list: suspects, for: 10m }}, \
         {{ id: other, refusals: 5, within: 1m, list: others, for: 10m }}"
    ));
    let mut found = Vec::new();
    for number in 1..=8 {
        found.extend(observe(&mut engine, number, 0));
    }
    let rules: Vec<_> = found.iter().map(|detection| detection.rule).collect();
    assert_eq!(rules, [0, 2]);
}

#[test]
fn rules_of_the_same_name_for_two_lists_make_two_changes() {
    let other = THREE.replace("suspects", "others");
    let (mut engine, mut other) = (engine(THREE), engine(&other));
    let mut events = HashSet::new();
    for number in 1..=3 {
        for engine in [&mut engine, &mut other] {
            let found = observe(engine, number, 0);
            events.extend(found.into_iter().map(|detection| detection.event));
        }
    }
    assert_eq!(events.len(), 2);
}

#[test]
fn who_was_not_put_on_the_list_counts_again() {
    let mut engine = engine(THREE);
    let count = |engine: &mut Engine, numbers: std::ops::RangeInclusive<u32>, seconds| {
        let found = numbers.map(|number| detect(engine, &event(number, seconds)));
        found.flatten().collect::<Vec<_>>()
    };
    assert_eq!(count(&mut engine, 1..=3, 0).len(), 1);
    let found = count(&mut engine, 4..=6, 5);
    assert_eq!(found.len(), 1);
    // Decisions count again once the existing entry has expired.
    engine.list(&found[0], at(20));
    assert_eq!(count(&mut engine, 7..=9, 20), []);
    assert_eq!(count(&mut engine, 10..=12, 21).len(), 1);
}

#[test]
fn a_detection_without_an_entry_does_not_keep_other_rules_from_counting() {
    let mut engine = engine(&format!(
        "{THREE}, {{ id: five, refusals: 5, within: 1m, list: suspects, for: 10m }}"
    ));
    let found = (1..=5).flat_map(|number| detect(&mut engine, &event(number, 0)));
    let rules: Vec<_> = found.map(|detection| detection.rule).collect();
    assert_eq!(rules, [0, 1]);
}

#[test]
fn many_old_entries_do_not_make_an_earlier_one_forgotten() {
    // A year that is over by any clock.
    const THEN: i64 = -200_000_000;
    let entry = |owner: String| {
        let list = ListName::parse("suspects").unwrap();
        (list, UserId::parse(owner).unwrap(), at(THEN + 10))
    };
    let entries = (0..=SWEEP_EVERY).map(|number| entry(format!("other{number}")));
    let mut engine = with_made(
        THREE,
        Made {
            events: HashSet::new(),
            entries: [entry("user1".to_owned())]
                .into_iter()
                .chain(entries)
                .collect(),
        },
    );
    for (number, seconds) in [(1, 0), (2, 9)] {
        let decision = read(&event(number, THEN + seconds));
        engine.replay(&decision, decision.time);
    }
    // Another owner's detection sweeps.
    for number in 3..=5 {
        let mut event = event(number, THEN + 12);
        event["data"]["ownerUserID"] = "user2".into();
        observe_event(&mut engine, &event);
    }
    assert_eq!(observe(&mut engine, 6, THEN + 12), []);
    assert_eq!(engine.listed.len(), SWEEP_EVERY + 3);
    // Once no window reaches back to them, they are forgotten.
    engine.sweep(at(THEN + 1000));
    assert_eq!(engine.listed.len(), 0);
}

#[test]
fn each_rule_has_room_for_its_largest_windows_and_as_much_as_every_other() {
    let least = |rules: &[(&str, u32)]| {
        let rule = |(number, (kind, least)): (usize, &(&str, u32))| {
            format!("{{ id: a{number}, {kind}: {least}, within: 1h, list: suspects, for: 1h }}")
        };
        let rules: Vec<_> = rules.iter().enumerate().map(rule).collect();
        let source = format!(
            "apiVersion: importguard/v1\nrules: [{}]\n",
            rules.join(", ")
        );
        least_memory(&Rules::parse("detector.yaml", &source).unwrap())
    };
    let large = least(&[("differentFriends", 100_000)]);
    // Four windows of up to 200,000 friends.
    assert!((18 << 20..20 << 20).contains(&large), "{large}");
    let both = least(&[("refusals", 10), ("differentFriends", 100_000)]);
    assert_eq!(both, 2 * large);
    let sample = least(&[("refusals", 20), ("differentFriends", 2000)]);
    assert!(sample < 2 << 20, "{sample}");
}

#[test]
fn a_fraction_of_a_second_makes_an_entry_longer() {
    let mut engine = engine("{ id: one, refusals: 1, within: 1m, list: suspects, for: 10m }");
    let mut event = event(1, 0);
    let time = at(0) + Duration::milliseconds(1);
    event["time"] = time.format(&Rfc3339).unwrap().into();
    assert_eq!(observe_event(&mut engine, &event)[0].until, at(601));
}

#[test]
fn who_has_an_id_like_a_pseudonym_counts_too() {
    let mut engine = engine(THREE);
    let mut found = 0;
    for number in 1..=3 {
        let mut event = event(number, 0);
        event["data"]["ownerUserID"] = "pn_0123456789abcdef0123456789abcdef".into();
        found += observe_event(&mut engine, &event).len();
    }
    assert_eq!(found, 1);
}

#[test]
fn pseudonyms_and_foreign_messages_are_not_usable() {
    let mut pseudonymised = event(1, 0);
    pseudonymised["pseudonymised"] = true.into();
    for (payload, unusable) in [
        (
            pseudonymised.to_string(),
            crate::decision::Unusable::Pseudonymised,
        ),
        ("{}".to_owned(), crate::decision::Unusable::Unreadable),
        ("spam".to_owned(), crate::decision::Unusable::Unreadable),
    ] {
        assert_eq!(
            RecordedDecision::read(payload.as_bytes()).unwrap_err(),
            unusable
        );
    }
}
