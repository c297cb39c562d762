//! Lists: their names, files and values.

use super::super::with_head;
use super::{rule, said, says};
use crate::{
    lists::{LineError, ListError},
    policy::{Draft, ListFiles},
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
        "3:10 [a] the list \"a\" has neither \"file\" nor \"values\"",
        "{ values: [\"user1\"] }",
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
fn a_broken_list_is_not_called_missing() {
    says(
        "lists: { a: 7 }\nrules: [{ id: a, dropFriends: { in: a } }]",
        "3:13 [7] expected a list",
        "}",
    );
}

#[test]
fn points_into_the_policy_for_a_missing_list_file_and_into_the_list_for_a_bad_line() {
    let source = with_head(
        "lists: { a: { file: a.txt }, b: { file: b.txt }, c: { file: c.txt } }\nrules: []",
    );
    let mut files = ListFiles::new();
    let unreadable = ListError::Unreadable {
        reason: "is gone".to_owned(),
        remedy: "create it".to_owned(),
    };
    files.insert("a.txt".to_owned(), Err(unreadable));
    let bad = LineError {
        line: 7,
        column: 3,
        text: "ab# c".to_owned(),
        message: "bad",
        remedy: "mend",
    };
    files.insert(
        "b.txt".to_owned(),
        Err(ListError::Invalid {
            path: "dir/b.txt".to_owned(),
            lines: vec![bad],
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
