use super::*;

fn policy(source: &str, blocked: &str) -> Policy {
    let draft = Draft::read("policy.yaml", source);
    let blocked = crate::lists::parse(blocked.as_bytes()).unwrap();
    let mut files = ListFiles::new();
    files.insert("blocked.txt".to_owned(), Ok(blocked));
    draft
        .compile(&files)
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

const HEAD: &str =
    "apiVersion: importguard/v1\nname: chatco\nlists: { blocked: { file: blocked.txt } }\n";

fn with_rules(rules: &str) -> String {
    format!("{HEAD}rules:\n{rules}")
}

const OWNER: &str =
    "  - { id: owner, refuseOwner: { in: blocked }, refusal: { code: 5001, message: no } }\n";
const BOTS: &str = "  - { id: bots, dropFriends: { prefixes: [bot_] } }\n";

fn ids(count: usize) -> String {
    (0..count).map(|number| format!("user{number}\n")).collect()
}

/// The changes from one pair of policy and list to another.
fn changes(old: (&str, usize), new: (&str, usize)) -> String {
    let (old, new) = (policy(old.0, &ids(old.1)), policy(new.0, &ids(new.1)));
    new.changes_since(&old).to_string()
}

#[test]
fn a_list_that_grew_is_named_with_both_sizes() {
    let source = with_rules(OWNER);
    assert_eq!(
        changes((&source, 1_204), (&source, 1_207)),
        "list blocked 1,204 → 1,207 IDs"
    );
}

#[test]
fn a_list_of_the_same_size_with_other_ids_changed() {
    let source = with_rules(OWNER);
    let (old, new) = (policy(&source, "a\nb\n"), policy(&source, "a\nc\n"));
    let changes = new.changes_since(&old).to_string();
    assert_eq!(changes, "list blocked changed (2 IDs)");
}

#[test]
fn lists_that_come_and_go_are_named() {
    let source = with_rules(OWNER);
    let two = source.replace("blocked.txt }", "blocked.txt }, vip: { values: [a, b] }");
    assert_eq!(changes((&source, 1), (&two, 1)), "list vip added (2 IDs)");
    assert_eq!(changes((&two, 1), (&source, 1)), "list vip removed");
}

#[test]
fn rules_that_are_added_removed_changed_or_moved_are_named() {
    let both = with_rules(&format!("{OWNER}{BOTS}"));
    let one = with_rules(OWNER);
    assert_eq!(changes((&one, 1), (&both, 1)), "rule added: bots");
    assert_eq!(changes((&both, 1), (&one, 1)), "rule removed: bots");
    let shadow = both.replace("id: bots,", "id: bots, mode: shadow,");
    assert_eq!(changes((&both, 1), (&shadow, 1)), "rule changed: bots");
    let moved = with_rules(&format!("{BOTS}{OWNER}"));
    assert_eq!(changes((&both, 1), (&moved, 1)), "rules reordered");
    let other = shadow.replace("5001", "5017");
    assert_eq!(
        changes((&both, 1), (&other, 20)),
        "rules changed: owner, bots; list blocked 1 → 20 IDs"
    );
}

#[test]
fn the_name_and_the_answer_to_a_list_without_friends_are_part_of_a_policy() {
    let source = with_rules(OWNER);
    let renamed = source.replace("chatco", "other");
    assert_eq!(
        changes((&source, 1), (&renamed, 1)),
        "renamed from chatco to other"
    );
    let refusing = format!("{source}nobodyLeft: {{ code: 5017, message: none }}\n");
    assert_eq!(changes((&source, 1), (&refusing, 1)), "nobodyLeft changed");
}

#[test]
fn comments_layout_and_the_order_of_keys_are_no_changes() {
    let source = with_rules(BOTS);
    let other = with_rules(
        "  # a comment\n  - dropFriends:\n      prefixes:\n        - bot_\n    id: bots\n",
    );
    assert_eq!(
        changes((&source, 1), (&other, 1)),
        "no rule and no list changed"
    );
}

/// The changes when the definition of the list `blocked` changes from `old` to `new`.
fn definition_changes(old: &str, new: &str) -> String {
    let source = |definition: &str| {
        let lists = format!("blocked.txt{definition} }}, vip: {{ values: [a] }} }}");
        with_rules(OWNER).replace("blocked.txt } }", &lists)
    };
    changes((&source(old), 20), (&source(new), 20))
}

#[test]
fn a_list_that_means_something_else_with_the_same_ids_is_named_with_what_changed() {
    for (old, new, expected) in [
        ("", ", mode: shadow", "mode of list blocked changed"),
        (", unless: vip", "", "unless of list blocked changed"),
        ("", ", live: bad", "live of list blocked changed"),
        (
            ", live: bad",
            ", live: worse",
            "live of list blocked changed",
        ),
        (
            ", fold: [case]",
            ", fold: [case, space]",
            "fold of list blocked changed",
        ),
        ("", ", atLeast: 5", "atLeast of list blocked changed"),
        (
            ", atLeast: 5, mode: shadow",
            ", unless: vip",
            "atLeast and mode and unless of list blocked changed",
        ),
        (
            ", atLeast: 5, mode: shadow",
            ", mode: shadow, atLeast: 5",
            "no rule and no list changed",
        ),
    ] {
        assert_eq!(definition_changes(old, new), expected, "{old} → {new}");
    }
}

#[test]
fn ids_in_the_policy_are_compared_as_ids_and_not_as_text() {
    let with = |values: &str| {
        let list = format!("blocked.txt }}, vip: {{ values: {values} }} }}");
        with_rules(OWNER).replace("blocked.txt } }", &list)
    };
    let changed = |old: &str, new: &str| changes((&with(old), 1), (&with(new), 1));
    assert_eq!(
        changed("[a, b]", "['a', \"b\"]"),
        "no rule and no list changed"
    );
    assert_eq!(changed("[a, b]", "[a]"), "list vip 2 → 1 ID");
}

#[test]
fn other_ids_and_another_definition_are_both_named() {
    let source = with_rules(OWNER);
    let shadow = source.replace("blocked.txt }", "blocked.txt, mode: shadow }");
    assert_eq!(
        changes((&source, 1), (&shadow, 20)),
        "list blocked 1 → 20 IDs, mode of list blocked changed"
    );
}
