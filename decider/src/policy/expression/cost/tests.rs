use std::sync::Arc;

use super::super::{Expression, ListValues, Scope};
use super::*;
use crate::lists::{Fold, Ids};

fn cost_of(source: &str) -> Cost {
    let compiled = Expression::compile(source, Scope::Friend, &ListValues::default());
    compiled
        .unwrap_or_else(|errors| panic!("{source}: {errors:#?}"))
        .cost()
}

#[test]
fn every_part_counts_whether_it_is_evaluated_or_not() {
    let one = cost_of("friend == 'a'").fixed - EVALUATION;
    assert_eq!(
        cost_of("friend == 'a' || friend == 'a'").fixed,
        EVALUATION + 2 * one + LOGICAL
    );
    let chosen = cost_of("friendCount > 1 ? friend == 'a' : friend == 'b'").fixed;
    assert!(chosen > EVALUATION + 2 * one, "{chosen}");
}

#[test]
fn a_loop_counts_for_each_element_of_its_list() {
    let list = |count: usize| format!("[{}]", vec!["'a'"; count].join(", "));
    let exists = |count| cost_of(&format!("{}.exists(x, friend.startsWith(x))", list(count)));
    let each = exists(2).fixed - exists(1).fixed;
    assert_eq!(exists(100).fixed, exists(1).fixed + 99 * each);
    assert_eq!(exists(100).texts, 100);
    let within = |count| cost_of(&format!("friend in {}", list(count)));
    let element = within(2).fixed - within(1).fixed;
    assert!(within(100).fixed == within(1).fixed + 99 * element && element * 5 < each);
}

#[test]
fn a_list_in_a_loop_counts_once_per_iteration() {
    let inner = "friend in ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']";
    let alone = cost_of(inner);
    let looped = cost_of(&format!("[1, 2, 3, 4].exists(n, {inner})"));
    assert!(looped.fixed > 4 * (alone.fixed - EVALUATION), "{looped:?}");
    assert_eq!(looped.texts, 4 * alone.texts);
}

#[test]
fn a_variable_of_a_loop_hides_the_list_of_its_name() {
    let ids = |fold| {
        Ids::new(
            Arc::default(),
            Fold {
                case: fold,
                space: fold,
            },
        )
    };
    let mut lists = ListValues::default();
    lists.insert("plain", ids(false));
    lists.insert("folded", ids(true));
    let cost = |variable: &str| {
        let source = format!("[folded].exists({variable}, friend in {variable})");
        let compiled = Expression::compile(&source, Scope::Friend, &lists);
        compiled.unwrap().cost()
    };
    assert_eq!(cost("plain"), cost("x"));
    assert_eq!(cost("folded"), cost("x"));
}

#[test]
fn strings_that_grow_cost_as_often_as_they_are_copied() {
    assert_eq!(cost_of("'a' == 'b' && friendCount > 1").texts, 0);
    assert_eq!(cost_of("friend == 'a'").texts, 1);
    // Copied, and then compared with another one.
    assert_eq!(cost_of("friend + ownerUserID == operationID").texts, 2 + 3);
    let mapped = cost_of("friend in ['a', 'b'].map(x, x + ownerUserID)");
    assert!(mapped.texts >= 6, "{mapped:?}");
    assert_eq!(cost_of("string(friend) == 'a'").texts, 2);
}

#[test]
fn strings_that_functions_make_count() {
    assert_eq!(cost_of("friend.matches('a')").texts, REGEX);
    let replaced = cost_of("friend.replace('a', 'bbbb') == 'x'").texts;
    let shortened = cost_of("friend.replace('aaaa', 'b') == 'x'").texts;
    assert_eq!(replaced - shortened, 2 * 3);
    let parts = |limit: u64| cost_of(&format!("friend.split(',', {limit}).exists(x, x == 'a')"));
    assert!(parts(16).fixed > parts(1).fixed + 15 * ITERATION);
}

#[test]
fn strings_that_are_made_of_literals_count() {
    let long = "b".repeat(64);
    let grown = |first: &str, steps: usize| {
        let step = format!(".replace('a', '{long}').replace('b', 'a')");
        Expression::compile(
            &format!("{first}{} == 'x'", step.repeat(steps)),
            Scope::Friend,
            &ListValues::default(),
        )
    };
    for first in ["'a'", "string(friendCount)", "string(1.5)"] {
        assert!(grown(first, 1).is_ok(), "{first}");
        assert!(grown(first, 4).is_err(), "{first}");
    }
}

#[test]
fn elements_of_every_iterable_list_count() {
    let iterations = |list: &str| {
        let walked = cost_of(&format!("{list}.exists(x, friendCount > 1)")).fixed;
        (walked - cost_of("[1].exists(x, friendCount > 1)").fixed) / ITERATION
    };
    for list in [
        "[1, 2, 3]",
        "([1] + [2, 3])",
        "(friendCount > 1 ? [1] : [1, 2, 3])",
        "[[], [], []]",
        "[[1, 2, 3], [4]][0]",
    ] {
        assert!(iterations(list) >= 2, "{list}: {}", iterations(list));
    }
}
