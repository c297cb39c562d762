use std::time::{Duration, SystemTime};

use super::*;
use crate::lists::{Fold, IdSet, Ids, live::LiveLists};

mod failures;
mod functions;

fn lists() -> ListValues {
    let mut lists = ListValues::default();
    let trusted = Arc::new(IdSet::from_ids(["svc", "user1"].into_iter()));
    lists.insert("trusted", Ids::new(trusted, Fold::default()));
    let folded = Arc::new(IdSet::from_ids(["SVC", "user 2"].into_iter()));
    let fold = Fold {
        case: true,
        space: true,
    };
    lists.insert("folded", Ids::new(folded, fold));
    lists
}

fn inputs(lists: &ListValues) -> Inputs<'_> {
    Inputs {
        owner: "user1",
        operation_id: "op-7",
        friend_count: 3,
        requested_count: 5,
        // 2026-11-23T17:30:00Z, a Monday
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_455_000),
        lists,
        live: LiveLists::none(),
    }
}

#[track_caller]
fn is(source: &str, expected: bool) {
    let lists = lists();
    let expression = Expression::compile(source, Scope::Friend, &lists)
        .unwrap_or_else(|errors| panic!("{source}: {errors:#?}"));
    assert_eq!(
        expression.evaluate(&inputs(&lists), Some("tmp_user1")),
        Ok(expected),
        "{source}"
    );
}

#[track_caller]
fn refused(source: &str, place: &str, message: &str, remedy: &str) {
    let errors = Expression::compile(source, Scope::Request, &lists()).expect_err(source);
    let found = errors
        .iter()
        .find(|error| error.message.contains(message) && error.remedy.contains(remedy));
    let found = found.unwrap_or_else(|| panic!("{source}: {errors:#?}"));
    if let Some((start, count)) = found.place {
        assert_eq!(
            source.chars().skip(start).take(count).collect::<String>(),
            place,
            "{source}"
        );
    } else {
        assert_eq!("", place, "{source}");
    }
}

#[test]
fn knows_the_request_the_friend_and_the_lists() {
    is(
        "ownerUserID == 'user1' && operationID == \"op-7\" && friendCount == 3 && requestedCount == 5",
        true,
    );
    is("ownerUserID in trusted && !(friend in trusted)", true);
    is(
        "'Svc' in folded && ' USER\\t2' in folded && !('user1' in folded) && !('Svc' in trusted)",
        true,
    );
    is(
        "'USER1' in (friendCount > 1 ? folded : trusted) || 'SVC ' in (friendCount > 1 ? folded : trusted)",
        true,
    );
    is(
        "friend.endsWith(ownerUserID) && friend.startsWith('tmp_') && friend.contains('_')",
        true,
    );
    is("friend.size() > 64 || size(friend) == 0", false);
    is("friendCount * 2 - 1 >= requestedCount % 3 + 10 / 3", true);
    is("double(friendCount) / double(requestedCount) < 0.5", false);
    is(
        "now > timestamp('2026-11-23T17:00:00Z') && now - timestamp('2026-11-23T17:00:00Z') < duration('1h')",
        true,
    );
    is(
        "now.getHours() == 17 && now.getHours('Europe/Berlin') == 18 && now.getDayOfWeek() == 1",
        true,
    );
    is(
        "friend in ['a', 'tmp_user1'] && friendCount in [1, 2, 3]",
        true,
    );
    is(
        "friendCount > 50 ? ownerUserID in trusted : friend != ownerUserID",
        true,
    );
    is(
        "int('3') == friendCount && string(friendCount) == '3' && -friendCount < 0",
        true,
    );
}

#[test]
fn walks_through_lists_in_brackets() {
    is(
        "['tmp_', 'bot_'].exists(prefix, friend.startsWith(prefix))",
        true,
    );
    is(
        "['tmp_', 'bot_'].all(prefix, friend.startsWith(prefix))",
        false,
    );
    is(
        "['tmp_', 'bot_'].exists_one(prefix, friend.startsWith(prefix))",
        true,
    );
    is(
        "['a', 'bb', 'ccc'].filter(x, x.size() > 1).size() == 2",
        true,
    );
    is("friend in ['user1', 'x'].map(x, 'tmp_' + x)", true);
    is("[[1, 2], [3]][0][1] == 2", true);
}

#[test]
fn knows_a_constant_from_what_depends_on_the_request() {
    let constant = |source| {
        Expression::compile(source, Scope::Request, &lists())
            .unwrap()
            .constant
    };
    assert_eq!(constant("true"), Some(true));
    assert_eq!(constant("1 > 2 || [1].exists(x, x > 1)"), Some(false));
    assert_eq!(constant("friendCount >= 0"), None);
    assert_eq!(constant("true || ownerUserID in trusted"), None);
}

#[test]
fn refuses_unknown_names() {
    refused(
        "frendCount > 1",
        "frendCount",
        "unknown variable or list \"frendCount\"",
        "did you mean friendCount?",
    );
    refused(
        "ownerUserID in trustd",
        "trustd",
        "unknown variable or list",
        "did you mean trusted?",
    );
    refused(
        "banana > 1",
        "banana",
        "unknown variable or list",
        "use one of ownerUserID, friendCount, requestedCount, operationID, now, folded, trusted",
    );
    refused(
        "friend.startsWith('a')",
        "friend",
        "\"friend\" is available only in dropFriendIf",
        "friendCount",
    );
    refused(
        "ownerUserID.startWith('a')",
        "(",
        "unknown function \"startWith\"",
        "did you mean startsWith?",
    );
    refused(
        "frobnicate(ownerUserID)",
        "(",
        "unknown function",
        "use one of startsWith",
    );
    refused(
        "ownerUserID.id == 'a'",
        ".",
        "unknown field \"id\": no variable has fields",
        "ownerUserID",
    );
    refused(
        "[1].exists(x, y > 1)",
        "y",
        "unknown variable or list \"y\"",
        "",
    );
    refused(
        "[1].exists(x, x > 1) && x > 1",
        "x",
        "unknown variable or list \"x\"",
        "",
    );
    refused(
        "optional.of(1).hasValue()",
        "optional",
        "unknown variable or list",
        "",
    );
    refused(
        "type(ownerUserID) == string",
        "string",
        "unknown variable or list",
        "",
    );
}

#[test]
fn refuses_wrong_types() {
    refused(
        "friendCount",
        "",
        "is of type int, but a rule needs bool",
        "friendCount > 50",
    );
    refused("ownerUserID", "", "is of type string", "");
    refused("trusted", "", "is of type list of IDs", "");
    refused("now", "", "is of type timestamp", "");
    refused(
        "friendCount > '50'",
        ">",
        "cannot compare int (friendCount) with string ('50')",
        "write 50 without quotes",
    );
    refused(
        "now > '2026-01-01'",
        ">",
        "cannot compare timestamp (now) with string",
        "write a time as timestamp('2026-01-01T00:00:00Z')",
    );
    refused(
        "friendCount % 2",
        "",
        "is of type int, but a rule needs bool",
        "friendCount % 2 == 0",
    );
    refused(
        "friendCount > 1.5",
        ">",
        "cannot compare int (friendCount) with double (1.5)",
        "double(friendCount)",
    );
    refused(
        "ownerUserID == 5",
        "==",
        "cannot compare string (ownerUserID) with int (5)",
        "",
    );
    refused(
        "trusted == trusted",
        "==",
        "cannot compare list of IDs (trusted) with list of IDs (trusted)",
        "with: in trusted",
    );
    refused(
        "friendCount in trusted",
        "in",
        "cannot look up int in list of IDs",
        "",
    );
    refused(
        "ownerUserID in 'abc'",
        "in",
        "cannot look up string in string",
        "",
    );
    refused(
        "!friendCount",
        "friendCount",
        "expected bool here, found int",
        "",
    );
    refused(
        "friendCount && true",
        "&&",
        "cannot apply && to int (friendCount) and bool (true)",
        "",
    );
    refused("-ownerUserID == 'a'", "-", "cannot negate string", "");
    refused(
        "(friendCount > 1 ? 'a' : 1) == 1",
        "?",
        "the branches have different types: string and int",
        "",
    );
    refused(
        "ownerUserID.startsWith(1)",
        "(",
        "startsWith cannot be called with string and int like this",
        "<string>.startsWith(<string>)",
    );
    refused(
        "startsWith(ownerUserID, 'a')",
        "(",
        "startsWith cannot be called with",
        "",
    );
    refused(
        "size(trusted) > 1",
        "(",
        "size cannot be called with list of IDs",
        "",
    );
    refused(
        "trusted.exists(x, x == 'a')",
        "trusted",
        "list of IDs cannot be iterated over",
        "[\"a\", \"b\"]",
    );
    refused(
        "[1, 'a'].exists(x, true)",
        "'a'",
        "this list mixes int and string",
        "",
    );
    refused("[1].exists(x, x)", "x", "expected bool here, found int", "");
    refused(
        "[1].filter(x, x).size() == 1",
        "x",
        "expected bool here, found int",
        "",
    );
}

#[test]
fn refuses_what_this_language_leaves_out() {
    refused(
        "{'a': 1} == {'a': 1}",
        "{",
        "maps and messages are not supported",
        "",
    );
    refused("null == null", "null", "no value is ever null", "");
    refused("1u == 1u", "1u", "unsigned integers are not supported", "");
    refused("b'a' == b'a'", "b'a'", "byte strings are not supported", "");
    refused("has(now.year)", "(", "unknown field", "");
    refused(
        "[1].exists(x, [2].exists(y, x == y))",
        "(",
        "nested loops are not allowed",
        "",
    );
    refused(
        "[1].map(x, x).exists(y, y == 1)",
        "(",
        "nested loops are not allowed",
        "",
    );
}

#[test]
fn refuses_what_cannot_be_parsed() {
    refused("", "", "invalid expression", "check the operators");
    refused(
        "friendCount >",
        "",
        "invalid expression: mismatched input 'the end'",
        "",
    );
    refused("friendCount > 50 &", "&", "invalid expression", "");
    refused(
        "ownerUserID == “user42”",
        "“",
        "invalid expression",
        "write straight quotes",
    );
    refused("for", "f", "reserved identifier", "");
    refused("'ä' == \"ö\" || ü", "ü", "invalid expression", "");
    refused("now.?hours", ".", "unsupported syntax", "");
}

#[test]
fn says_why_an_evaluation_failed_without_the_values() {
    let lists = lists();
    let expression =
        Expression::compile("10 / (friendCount - 3) > 1", Scope::Request, &lists).unwrap();
    assert_eq!(
        expression.evaluate(&inputs(&lists), None),
        Err("division by zero".to_owned())
    );
    let expression = Expression::compile("int(ownerUserID) > 1", Scope::Request, &lists).unwrap();
    let long = "x".repeat(100_000);
    let inputs = Inputs {
        owner: &long,
        ..inputs(&lists)
    };
    let why = expression.evaluate(&inputs, None).unwrap_err();
    assert!(why.len() < 200, "{} bytes", why.len());
}

#[test]
fn survives_the_deepest_and_oddest_expressions() {
    let cases = [
        "(".repeat(500) + "1" + &")".repeat(500),
        "!(".repeat(330) + "true" + &")".repeat(330),
        "-".repeat(1000) + "1",
        "1+".repeat(511) + "1",
        "[".repeat(500) + &"]".repeat(500),
        "a?b:".repeat(255) + "c",
        "a".to_owned() + &".b".repeat(500),
        "a".to_owned() + &"[0]".repeat(300),
        "a&&".repeat(340) + "a",
        "f(".repeat(300) + "1" + &")".repeat(300),
        "(a?".repeat(200) + "1" + &":2)".repeat(200),
        "{1:".repeat(250) + "1" + &"}".repeat(250),
        "(".repeat(1024),
        "\"'`".repeat(340),
        "+*/%".repeat(255),
        "[1].all(x,".repeat(90) + "true" + &")".repeat(90),
        "\\".repeat(1000),
        "'\\u".repeat(300),
        "9".repeat(1000),
        "🦀".repeat(250),
        "x".repeat(1025),
        "x".repeat(1_000_000),
    ];
    for source in cases {
        let errors = Expression::compile(&source, Scope::Friend, &lists()).expect_err(&source);
        assert!(
            errors
                .iter()
                .map(|error| error.message.len() + error.remedy.len())
                .sum::<usize>()
                < 5_000
        );
    }
}

/// A worker thread of the server has a stack of 2 MiB; in a debug build, three quarters of it must suffice.
#[test]
fn evaluates_the_deepest_allowed_expression_on_a_small_stack() {
    let depth = MAX_DEPTH - 2;
    let sources = [
        "friendCount".to_owned() + &"+1".repeat(depth) + " > 0",
        "!(".repeat(depth) + "friendCount > 1" + &")".repeat(depth),
        "(true ? ".repeat(depth) + "friendCount > 1" + &" : false)".repeat(depth),
        "string(".repeat(depth) + "friend" + &")".repeat(depth) + " != ''",
    ];
    for source in sources {
        let evaluated = thread::Builder::new()
            .stack_size(1536 << 10)
            .spawn(move || {
                let lists = lists();
                let expression = Expression::compile(&source, Scope::Friend, &lists)
                    .unwrap_or_else(|errors| panic!("{source}: {errors:#?}"));
                expression.evaluate(&inputs(&lists), Some("a")).map(|_| ())
            });
        assert_eq!(evaluated.unwrap().join().unwrap(), Ok(()));
    }
}
