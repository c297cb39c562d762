//! Lists: their names, files and values.

use importguard_yaml::file::FileError;

use super::super::{compile, with_head};
use super::{rule, said, says};
use crate::{
    lists::{self, LineError, LineErrors, ListError},
    policy::{BriefDiagnostics, Draft, ListFiles},
};

#[test]
fn refuses_lists_that_are_not_defined() {
    let lists = "lists: { blocked: { file: blocked.txt } }\n";
    says(
        &format!("{lists}{}", rule("{ id: a, dropFriends: { in: blockd } }")),
        "5:31 [blockd] unknown list \"blockd\"",
        "did you mean \"blocked\"?",
    );
    says(
        &format!(
            "{lists}{}",
            rule("{ id: a, dropFriends: { notIn: staff } }")
        ),
        "5:34 [staff] unknown list \"staff\"",
        "define it under \"lists\": staff: { file: lists/staff.txt }",
    );
}

#[test]
fn a_list_has_a_file_or_values() {
    says(
        "lists: { a: {} }\nrules: []",
        "3:10 [a] the list \"a\" has none of \"file\", \"values\" and \"live\"",
        "{ values: [\"user1\"] } or { live: some }",
    );
    says(
        "lists: { a: { file: blocked.txt, values: [x] } }\nrules: []",
        "3:34 [values] a list has either \"file\" or \"values\", not both",
        "or define two lists",
    );
    for name in ["a-b", "1a", "\"\"", "ä"] {
        let said = said(&format!(
            "lists: {{ {name}: {{ values: [x] }} }}\nrules: []"
        ));
        assert!(
            said.len() == 1
                && said[0]
                    .contains("is not a valid list name = use up to 64 letters, digits and _"),
            "{said:?}"
        );
    }
}

#[test]
fn a_list_in_the_policy_has_ids_that_somebody_may_have() {
    says(
        "lists: { a: { values: [] } }\nrules: []",
        "3:23 [[] this list is empty, so it matches nothing",
        "a list that may be empty has a file and allowEmpty: true",
    );
    let long = "x".repeat(257);
    says(
        &format!("lists: {{ a: {{ values: [a, {long}] }} }}\nrules: []"),
        "3:27 [xxx",
        "no user has an ID this long",
    );
}

#[test]
fn an_invalid_name_is_not_suggested() {
    let rules = "rules:\n- { id: a, dropFriends: { in: blocked } }\n- { id: b, dropFriendIf: friend in blocked, onError: skip }";
    let said = said(&format!(
        "lists: {{ block-ed: {{ values: [x] }} }}\n{rules}"
    ));
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(
        !said[1..].iter().any(|said| said.contains("block-ed")),
        "{said:#?}"
    );
}

#[test]
fn a_broken_list_is_not_called_missing() {
    says(
        "lists: { a: 7 }\nrules: [{ id: a, dropFriends: { in: a } }]",
        "3:13 [7] expected a list definition",
        "}",
    );
}

#[test]
fn points_into_the_policy_for_a_missing_list_file_and_into_the_list_for_a_bad_line() {
    let source = with_head(
        "lists: { a: { file: a.txt }, b: { file: b.txt }, c: { file: c.txt } }\nrules: []",
    );
    let mut files = ListFiles::new();
    let unreadable = ListError::Unreadable(FileError {
        reason: "is gone".to_owned(),
        remedy: "create it",
    });
    files.insert("a.txt".to_owned(), Err(unreadable));
    let bad = LineError {
        line: 7,
        column: 3,
        text: "ab# c".to_owned(),
        message: "bad".into(),
        remedy: "mend",
    };
    files.insert(
        "b.txt".to_owned(),
        Err(ListError::Invalid {
            path: "dir/b.txt".to_owned(),
            lines: LineErrors {
                first: vec![bad],
                more: 7,
            },
        }),
    );
    let error = Draft::read("policy.yaml", &source)
        .compile(&files)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("policy.yaml:3:21: the list \"a.txt\" is gone\n"),
        "{error}"
    );
    assert!(
        error.contains("policy.yaml:3:61: the list \"c.txt\" was not loaded\n"),
        "{error}"
    );
    assert!(
        error.contains("dir/b.txt:7:3: bad\n    7 | ab# c\n      |   ^\n      = mend"),
        "{error}"
    );
    assert!(error.ends_with("and 7 more"), "{error}");
}

#[test]
fn a_lists_name_means_nothing_else_in_expressions() {
    for name in ["friend", "now", "ownerUserID", "in", "true", "int"] {
        let said = said(&format!(
            "lists: {{ {name}: {{ values: [x] }} }}\nrules: []"
        ));
        assert!(
            said.len() == 1 && said[0].contains("is reserved in expressions = choose another name")
                || name == "true",
            "{said:?}"
        );
    }
}

#[test]
fn refuses_keys_of_files_for_values_and_minimums_that_are_none() {
    for key in ["allowEmpty: true", "allowShrink: true", "atLeast: 2"] {
        let name = key.split(':').next().unwrap();
        says(
            &format!("lists: {{ a: {{ values: [x], {key} }} }}\nrules: []"),
            &format!("3:28 [{name}] \"{name}\" applies only to a list with \"file\""),
            "remove it: the IDs in the policy are what you wrote",
        );
    }
    says(
        "lists: { a: { file: blocked.txt, atLeast: 2, allowEmpty: true } }\nrules: []",
        "3:46 [allowEmpty] a list that may be empty has no minimum number of IDs",
        "remove allowEmpty or atLeast",
    );
    for least in ["0", "-1"] {
        says(
            &format!("lists: {{ a: {{ file: blocked.txt, atLeast: {least} }} }}\nrules: []"),
            &format!("3:43 [{least}] atLeast is {least}; it must be at least 1"),
            "or allowEmpty: true if there may be none",
        );
    }
    says(
        "lists: { a: { file: blocked.txt, allowEmpty: \"true\" } }\nrules: []",
        "3:46 [\"true\"] expected true or false, found the string \"true\"",
        "write true or false",
    );
}

#[test]
fn refuses_differences_that_no_list_ignores() {
    for (fold, begins, ends) in [
        (
            "[]",
            "3:36 [[] this list is empty, so it changes nothing",
            "write [case], [space] or [case, space], or remove the key",
        ),
        (
            "[cases]",
            "3:37 [cases] fold cannot be \"cases\"",
            "did you mean \"case\"?",
        ),
        (
            "[case, case]",
            "3:43 [case] this is there twice",
            "remove one of them",
        ),
        (
            "case",
            "3:36 [case] expected a list of case and space, found the string \"case\"",
            "write [case]",
        ),
    ] {
        says(
            &format!("lists: {{ a: {{ values: [abc], fold: {fold} }} }}\nrules: []"),
            begins,
            ends,
        );
    }
}

#[test]
fn no_id_is_in_a_message() {
    let lists = "lists: { a: { values: [10001, 4711.5, true, [secret], \" \"] } }\nrules: []";
    let error = compile(lists).unwrap_err();
    let brief = BriefDiagnostics(error).to_string();
    assert_eq!(brief.lines().count(), 5, "{brief}");
    for id in ["4711", "true,", "secret"] {
        assert!(!brief.contains(id), "{brief}");
    }
    let file = lists::parse(b"mallory # left in May\nmal,lory\n").unwrap_err();
    let files = ListFiles::from([(
        "a.txt".to_owned(),
        Err(ListError::Invalid {
            path: "a.txt".to_owned(),
            lines: file,
        }),
    )]);
    let source = with_head("lists: { a: { file: a.txt } }\nrules: []");
    let errors = Draft::read("policy.yaml", &source).compile(&files);
    let errors = errors.unwrap_err();
    assert!(errors.to_string().contains("mallory # left in May"));
    let brief = BriefDiagnostics(errors).to_string();
    assert!(
        brief.starts_with("a.txt:1:9: a comment after an ID"),
        "{brief}"
    );
    assert!(!brief.contains("mal"), "{brief}");
}

#[test]
fn a_live_list_has_a_name_in_the_bucket_and_no_fold() {
    says(
        "lists: { a: { live: \"b.c\" } }\nrules: []",
        "3:21 [\"b.c\"] \"b.c\" is not a valid name of a live list",
        "starting with a letter or digit",
    );
    says(
        "lists: { a: { live: b, fold: [case] } }\nrules: []",
        "3:24 [fold] a live list compares IDs byte by byte, so it cannot have fold",
        "exactly as OpenIM has them",
    );
    says(
        "lists: { a: { values: [x], live: b, fold: [case] } }\nrules: []",
        "3:37 [fold] a live list compares IDs byte by byte, so it cannot have fold",
        "one with fold and one with live, and a rule for each",
    );
    says(
        "lists: { a: { live: b, allowEmpty: true } }\nrules: []",
        "3:24 [allowEmpty] \"allowEmpty\" applies only to a list with \"file\"",
        "only a file can lose IDs by accident",
    );
}

#[test]
fn an_exception_is_another_list_that_counts() {
    for (lists, message, remedy) in [
        (
            "a: { live: a, unless: a }",
            "a list cannot be its own exception",
            "another list",
        ),
        (
            "a: { live: a, unless: b }",
            "unknown list \"b\"",
            "define it",
        ),
        (
            "a: { live: a, unless: b }, b: { live: b, unless: c }, c: { live: c }",
            "the list \"b\" has exceptions of its own",
            "without \"unless\"",
        ),
        (
            "a: { live: a, unless: b }, b: { live: b, mode: shadow }",
            "the list \"b\" is in shadow, so it makes no exceptions",
            "remove its mode",
        ),
    ] {
        let said = said(&format!("lists: {{ {lists} }}\nrules: []"));
        assert!(
            said.len() == 1 && said[0].contains(message) && said[0].contains(remedy),
            "{said:?}"
        );
    }
}

#[test]
fn an_expression_cannot_use_a_list_in_shadow() {
    let rules = rule("{ id: r, dropFriendIf: \"friend in a\" }");
    let said = said(&format!(
        "lists: {{ a: {{ live: a, mode: shadow }} }}\n{rules}"
    ));
    assert!(
        said.len() == 1 && said[0].contains("is in shadow"),
        "{said:?}"
    );
}
