//! What always fails, and what may.

use super::*;

#[test]
fn accepts_what_works_for_ids_of_another_form() {
    for (source, friend, expected) in [
        ("friend.split('_', 2)[1] == 'eu'", "u_eu", true),
        ("friend.substring(8) == 'x'", "12345678x", true),
        ("ownerUserID.substring(0, 5) == 'user1'", "", true),
        ("int(friend.substring(3, 9)) > 5", "abc000006", true),
        ("friend.endsWith(friend.split('@', 2)[1])", "a@b", true),
        (
            "timestamp(friend) < now && duration(operationID.substring(3) + 'h') > duration('1m')",
            "2026-01-01T00:00:00Z",
            true,
        ),
    ] {
        let lists = lists();
        let expression = Expression::compile(source, Scope::Friend, &lists)
            .unwrap_or_else(|errors| panic!("{source}: {errors:#?}"));
        assert!(expression.can_fail, "{source}");
        assert_eq!(
            expression.evaluate(&inputs(&lists), Some(friend)),
            Ok(expected),
            "{source}"
        );
    }
}

#[test]
fn refuses_literals_that_always_fail_where_they_are() {
    let zone = "write a name such as 'Europe/Berlin', or an offset such as '+01:00'";
    for (source, place, message, remedy) in [
        (
            "now > timestamp('2026-11-23')",
            "'2026-11-23'",
            "timestamp cannot convert '2026-11-23'",
            "write date, time and zone, as in timestamp('2026-11-23T18:00:00Z')",
        ),
        (
            "timestamp('yesterday') < now",
            "'yesterday'",
            "timestamp cannot convert 'yesterday'",
            "",
        ),
        (
            "now - timestamp(0) > duration('1d')",
            "'1d'",
            "duration cannot convert '1d'",
            "write hours, minutes or seconds, as in duration('24h')",
        ),
        (
            "int('5 ') == friendCount",
            "'5 '",
            "int cannot convert '5 '",
            "write an integer, as in int('5')",
        ),
        ("int(1e300) == friendCount", "1e300", "int cannot", ""),
        (
            "double('1,5') < double(friendCount)",
            "'1,5'",
            "double cannot convert '1,5'",
            "write a number, as in double('1.5')",
        ),
        (
            "now.getHours('Europe/Berln') < 6",
            "'Europe/Berln'",
            "unknown time zone 'Europe/Berln'",
            zone,
        ),
        (
            "(now + duration('1h')).getDayOfWeek('MEZ') == 0",
            "'MEZ'",
            "unknown time zone",
            zone,
        ),
        (
            "friendCount / 0 > 1",
            "0",
            "division by zero",
            "divide by another number",
        ),
        ("friendCount % 0 == 1", "0", "division by zero", ""),
        (
            "ownerUserID.split('_', 2)[2] == 'a'",
            "2",
            "this list has no element 2: there are at most 2, numbered from 0",
            "write 0 to 1",
        ),
        (
            "[1, 2, 3][-1] == friendCount",
            "1",
            "this list has no element -1",
            "write 0 to 2",
        ),
        (
            "[][0] == friendCount",
            "0",
            "this list has no element 0: it is empty",
            "",
        ),
        (
            "ownerUserID.substring(-1) == 'a'",
            "1",
            "substring cannot start at -1",
            "the first character is at 0",
        ),
        (
            "ownerUserID.substring(5, 2) == 'a'",
            "2",
            "substring cannot end at 2, before its start",
            "write the positions where it starts and ends, as in substring(2, 5)",
        ),
        (
            "ownerUserID.substring(friendCount, -1) == 'a'",
            "1",
            "substring cannot end at -1",
            "",
        ),
    ] {
        refused(source, place, message, remedy);
        for short_circuited in [
            format!("ownerUserID.startsWith('u_') && {source}"),
            format!("friendCount < 5 ? true : {source}"),
            format!("['a', 'b'].exists(x, x == ownerUserID && {source})"),
        ] {
            refused(&short_circuited, place, message, remedy);
        }
    }
}

#[test]
fn reports_a_literal_that_fails_once_and_beside_other_errors() {
    let found = |source: &str| {
        let errors = Expression::compile(source, Scope::Request, &lists()).unwrap_err();
        let messages = errors.into_iter().map(|error| error.message);
        messages.collect::<Vec<_>>()
    };
    let expected = [
        "timestamp cannot convert 'x'",
        "unknown time zone 'y'",
        "unknown variable or list \"frend\"",
    ];
    assert_eq!(
        found("timestamp('x') < now && now.getHours('y') == 1 && frend == 'a'"),
        expected
    );
    // Its type is wrong, so its value does not matter.
    assert_eq!(found("int(true) == 1").len(), 1);
    assert_eq!(found("now.getHours(7) == 1").len(), 1);
    assert_eq!(found("ownerUserID.substring(-1, 'a') == ''").len(), 1);
    assert_eq!(found("ownerUserID / 0 == 1").len(), 1);
}

#[test]
fn accepts_literals_of_every_form() {
    for source in [
        "int(-9223372036854775808) < friendCount && int(r'-5') < friendCount",
        "int('''3''') == friendCount && int((((\"7\")))) > 5",
        "timestamp(-1) < now && timestamp(0) < now && now - timestamp(1) > duration('-1h30m')",
        "double(-1.5) < double('1e3') && now.getHours('+01:00') >= 0 && now.getHours('UTC') >= 0",
        "ownerUserID.split('_', 1)[0] == 'user1' && [1, 2][1] == 2",
        "ownerUserID.substring(0, 0) == '' && ownerUserID.substring(5, 5) == ''",
        "friendCount / 1 == 3 && friendCount % -2 == 1",
    ] {
        is(source, true);
    }
}

#[test]
fn refuses_what_fails_whatever_the_request_is() {
    refused(
        "[0].exists(x, 1 / x == 1)",
        "",
        "this expression always fails: division by zero",
        "correct it",
    );
    refused(
        "'abc'.substring(7) == ''",
        "",
        "this expression always fails: substring",
        "",
    );
}

#[test]
fn refuses_parts_without_variables_that_always_fail_where_they_are() {
    for (source, place, why) in [
        (
            "-(-9223372036854775808) == friendCount",
            "-",
            "a number or time is too large",
        ),
        (
            "9223372036854775807 + 1 > friendCount",
            "+",
            "a number or time is too large",
        ),
        ("ownerUserID == 'abc'.substring(3 + 4)", "(", "substring: "),
        ("timestamp('2026' + '-01') < now", "(", "timestamp: "),
        ("[1, 2][1 + 1] == friendCount", "[", "no such element"),
        (
            "friendCount in [1, 2].map(x, 2 / (x - 1))",
            "(",
            "division by zero",
        ),
        (
            "ownerUserID == '' && double('NaN') < 1.0",
            "<",
            "a value to compare is not a number",
        ),
    ] {
        let message = format!("this always fails: {why}");
        refused(source, place, &message, "use a variable of the request");
        let short_circuited = format!("friendCount < 5 ? true : {source}");
        refused(&short_circuited, place, &message, "");
    }
    // These depend on what a loop makes of the request.
    for source in [
        "ownerUserID.split('_', 2).exists(x, 1 / x.size() == 1)",
        "'a1'.matches('[0-9]') && friendCount > 1",
        "[1, 0].exists(x, x == 0 || 1 / x == 1) && friendCount > 0",
    ] {
        let compiled = Expression::compile(source, Scope::Request, &lists());
        assert!(compiled.is_ok(), "{source}: {compiled:?}");
    }
}

#[test]
fn says_that_a_value_is_not_a_number() {
    let lists = lists();
    let source = "double(ownerUserID) < 1.0";
    let expression = Expression::compile(source, Scope::Request, &lists).unwrap();
    let inputs = Inputs {
        owner: "NaN",
        ..inputs(&lists)
    };
    let why = expression.evaluate(&inputs, None).unwrap_err();
    assert_eq!(why, "a value to compare is not a number (NaN)");
}
