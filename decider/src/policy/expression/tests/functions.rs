//! Functions on strings.

use super::*;

#[test]
fn matches_regular_expressions_that_are_compiled_at_load() {
    is("friend.matches('^tmp_') && !friend.matches('^user')", true);
    is(r"friend.matches(r'\d$') && 'a.b'.matches('^a\\.b$')", true);
    is("['x', 'tmp_2'].exists(x, x.matches('[0-9]'))", true);
}

#[test]
fn has_the_string_functions_of_kubernetes() {
    is(
        "'User_1'.lowerAscii() == 'user_1' && friend.upperAscii() == 'TMP_USER1'",
        true,
    );
    is(
        "' a '.trim() == 'a' && friend.replace('tmp_', '') == ownerUserID",
        true,
    );
    is(
        "friend.split('_', 2)[1] == ownerUserID && friend.split('_', 16).size() == 2",
        true,
    );
    is("friend.split('_', 2).exists(x, x == 'tmp')", true);
    is(
        "friend.substring(4) == 'user1' && friend.substring(0, 3) == 'tmp'",
        true,
    );
}

#[test]
fn refuses_arguments_whose_cost_is_not_known_at_load() {
    refused(
        "ownerUserID.matches('(')",
        "'('",
        "invalid regular expression: unclosed group",
        "regex crate",
    );
    refused(
        "ownerUserID.matches(operationID)",
        "operationID",
        "must be a string in quotes",
        "loaded",
    );
    refused(
        "ownerUserID.matches(r'\\w{60}')",
        r"r'\w{60}'",
        "bytes compiled",
        "",
    );
    refused(
        "ownerUserID.replace(operationID, 'a') == 'a'",
        "operationID",
        "replace needs strings in quotes",
        "",
    );
    refused(
        "ownerUserID.replace('', 'a') == 'a'",
        "''",
        "of 1 to 64 bytes here",
        "",
    );
    refused(
        "ownerUserID.split('')[0] == 'a'",
        "(",
        "split needs a separator and a limit",
        "",
    );
    refused("ownerUserID.split('', 2)[0] == 'a'", "''", "not empty", "");
    refused("ownerUserID.split(',', 17)[0] == 'a'", "17", "1 to 16", "");
    refused(
        "ownerUserID.split(',', friendCount)[0] == 'a'",
        "friendCount",
        "1 to 16",
        "",
    );
}

#[test]
fn what_cannot_fail_does_not_fail_for_odd_requests() {
    let lists = lists();
    let odd = ["", "a", "-1", "é\u{301}", "Europe/Berlin", "1e999", "\u{0}"];
    let times = [0, 1, 253_402_300_799, 253_402_300_800, 8_000_000_000_000];
    for source in [
        "friend == ownerUserID || friend < ownerUserID || friend + operationID >= ownerUserID",
        "friend in trusted || friend in [ownerUserID, ''] || friendCount in [1, 2]",
        "friend.startsWith(ownerUserID) || friend.endsWith(operationID) || friend.contains(ownerUserID)",
        "friend.lowerAscii().upperAscii().trim().replace('a', '') == ownerUserID",
        "friend.split('_', 3).exists(x, x == ownerUserID) || friend.matches(r'\\d$')",
        "['a', ownerUserID].exists_one(x, friend.startsWith(x)) && [1].all(x, x < friendCount)",
        "['a', friend].map(x, x + ownerUserID) == ['a', friend].filter(x, x.size() > 1)",
        "now.getHours('Asia/Tokyo') + 0 == 1 || now.getFullYear() < 3 || now.getDayOfYear('+01:00') == 1",
        "string(now) == friend || string(friendCount) == friend || int(now) > 5",
        "double(friendCount) == 1.5 || (friendCount > 1 ? friend : ownerUserID) == 'a'",
        "now > timestamp('2026-01-01T00:00:00Z') && friendCount != -1",
    ] {
        let compiled = Expression::compile(source, Scope::Friend, &lists);
        let compiled = compiled.unwrap_or_else(|errors| panic!("{source}: {errors:#?}"));
        // The one with arithmetic can fail, as far as the checker knows.
        assert_eq!(compiled.can_fail, source.contains("+ 0"), "{source}");
        for (text, seconds) in odd.iter().flat_map(|text| times.map(|time| (*text, time))) {
            let inputs = Inputs {
                owner: text,
                friend_count: usize::MAX,
                now: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
                ..inputs(&lists)
            };
            let result = compiled.evaluate(&inputs, Some(text));
            assert!(
                result.is_ok(),
                "{source} of {text:?} at {seconds}: {result:?}"
            );
        }
    }
}

/// Nothing else would notice that the library lacks a function that the checker knows.
#[test]
fn the_library_has_every_function_and_operator_that_the_checker_knows() {
    let lists = lists();
    let sample = |of: &Type| match of {
        Type::Bool => "(friendCount == 1)",
        Type::Int => "friendCount",
        Type::Double => "double(friendCount)",
        Type::String => "friend",
        Type::Timestamp => "now",
        Type::Duration => "(now - now)",
        other => panic!("{other}"),
    };
    let calls = types::FUNCTIONS.iter().map(|(name, member, arguments, _)| {
        let mut samples: Vec<_> = arguments.iter().map(sample).collect();
        if ["matches", "replace"].contains(name) {
            samples[1..].fill("'1'");
        }
        match member {
            true => format!("{}.{name}({})", samples[0], samples[1..].join(", ")),
            false => format!("{name}({})", samples.join(", ")),
        }
    });
    let operators = types::OPERATORS.iter().map(|(name, left, right, _)| {
        format!(
            "{} {} {}",
            sample(left),
            name.trim_matches('_'),
            sample(right)
        )
    });
    for call in calls.chain(operators) {
        let source = format!("[{call}] != [{call}]");
        let expression = Expression::compile(&source, Scope::Friend, &lists)
            .unwrap_or_else(|errors| panic!("{source}: {errors:#?}"));
        let texts = ["1", "1h", "2026-01-01T00:00:00Z", "Europe/Berlin"];
        let works = texts.iter().any(|text| {
            let result = expression.evaluate(&inputs(&lists), Some(text));
            result == Ok(false)
        });
        assert!(works, "{source}");
    }
}

#[test]
fn parts_of_times_have_the_ranges_of_the_documentation() {
    let last = |part: &str, expected: u32| {
        let time = "timestamp('2024-12-31T23:59:59Z')";
        is(&format!("{time}.{part}() == {expected}"), true);
    };
    for (part, expected) in [
        ("getFullYear", 2024),
        ("getMonth", 11),
        ("getDate", 31),
        ("getDayOfMonth", 30),
        ("getDayOfWeek", 2),
        ("getDayOfYear", 365),
        ("getHours", 23),
        ("getMinutes", 59),
        ("getSeconds", 59),
    ] {
        last(part, expected);
    }
    let first = "timestamp('2023-01-01T00:00:00Z')";
    is(
        &format!(
            "{first}.getMonth() + {first}.getDayOfMonth() + {first}.getDayOfYear() + {first}.getDayOfWeek() == 0"
        ),
        true,
    );
    is("duration('90m').getMinutes() == 90", true);
}
