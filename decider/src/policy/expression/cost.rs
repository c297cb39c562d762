//! What one evaluation of an expression costs at most, from its tree: every part is taken to be evaluated, every loop to run
//! to its end.
//!
//! The constants are units of [`NANOS_PER_UNIT`](super::super::cost::NANOS_PER_UNIT), measured by `cargo bench -p
//! importguard-decider --bench cost` while the machine was busy with other things, and rounded up: on an idle one loops take
//! half of that.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, operators};

use super::super::cost::Cost;
use super::check::FRIEND;

/// What an evaluation costs whatever the expression is: its context.
const EVALUATION: u64 = 4;
/// A constant, and a value in the list that it is put into.
const LITERAL: u64 = 2;
/// Finding a variable.
const VARIABLE: u64 = 3;
/// `&&` and `||`.
const LOGICAL: u64 = 1;
/// `==`, and comparing with one element of a list.
const EQUALS: u64 = 1;
/// Operators and functions for which the crate prepares the error of a wrong type beforehand: `!`, `<`, `in` and the like.
const PREPARED: u64 = 13;
/// Arithmetic and indexes.
const ARITHMETIC: u64 = 6;
/// A function, which is found by its name and the types of its arguments.
const FUNCTION: u64 = 14;
/// A size, for which the characters are counted.
const SIZE: u64 = 20;
/// A part of a point in time, also in another time zone.
const PART_OF_TIME: u64 = 32;
/// A conversion, also where it fails: then a message is written.
const CONVERSION: u64 = 45;
/// Putting a value into a list.
const ELEMENT: u64 = 1;
/// One turn of a loop beside what stands in it: the names and values of two variables.
const TURN: u64 = 28;

/// What a part costs and what comes of it.
#[derive(Clone, Copy, Default)]
struct Part {
    cost: Cost,
    value: Value,
}

/// How large a value is at most.
#[derive(Clone, Copy, Default)]
struct Value {
    /// The elements, those of lists in it included; an empty list in a list is one.
    elements: u64,
    /// As many of them as one element of a list holds.
    each: u64,
    /// How many times the longest id of the request all of its texts have together.
    texts: u64,
}

impl Value {
    const SCALAR: Self = Self {
        elements: 1,
        each: 1,
        texts: 0,
    };

    /// Both in one list.
    fn plus(self, other: Self) -> Self {
        Self {
            elements: self.elements.saturating_add(other.elements),
            each: self.each.max(other.each),
            texts: self.texts.saturating_add(other.texts),
        }
    }

    /// As an element of a list.
    fn listed(self) -> Self {
        let elements = self.elements.max(1);
        Self {
            elements,
            each: elements,
            ..self
        }
    }

    /// An element of this list. All of the texts may be in one.
    fn element(self) -> Self {
        Self {
            elements: self.each,
            ..self
        }
    }

    /// A list of so many.
    fn times(self, times: u64) -> Self {
        Self {
            elements: self.elements.saturating_mul(times),
            texts: self.texts.saturating_mul(times),
            ..self
        }
    }

    /// Either.
    fn most(self, other: Self) -> Self {
        Self {
            elements: self.elements.max(other.elements),
            each: self.each.max(other.each),
            texts: self.texts.max(other.texts),
        }
    }

    /// Reading all of it, at so many units an element.
    fn read(self, each: u64) -> Cost {
        Cost {
            fixed: self.elements.saturating_mul(each),
            texts: self.texts,
        }
    }
}

fn fixed(units: u64) -> Cost {
    Cost {
        fixed: units,
        texts: 0,
    }
}

/// What one evaluation costs. The expression must have passed the checker, which bounds how deep this recurses.
pub(super) fn cost(expression: &IdedExpr) -> Cost {
    let mut estimate = Estimate { bound: Vec::new() };
    fixed(EVALUATION).plus(estimate.part(expression).cost)
}

struct Estimate<'e> {
    /// The variables of the loop that is looked at.
    bound: Vec<(&'e str, Value)>,
}

impl<'e> Estimate<'e> {
    fn part(&mut self, part: &'e IdedExpr) -> Part {
        match &part.expr {
            Expr::Literal(_) => Part {
                cost: fixed(LITERAL),
                value: Value::SCALAR,
            },
            Expr::Ident(name) => Part {
                cost: fixed(VARIABLE),
                value: self.variable(name),
            },
            Expr::Call(call) => self.call(call),
            Expr::List(list) => list.elements.iter().fold(Part::default(), |all, element| {
                let Part { cost, value } = self.part(element);
                Part {
                    cost: all.cost.plus(cost).plus(fixed(ELEMENT)),
                    value: all.value.plus(value.listed()),
                }
            }),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            // The checker lets none of them through.
            Expr::Select(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => Part::default(),
        }
    }

    fn variable(&self, name: &str) -> Value {
        if let Some((_, value)) = self.bound.iter().rev().find(|(bound, _)| *bound == name) {
            return *value;
        }
        let is_text = [FRIEND, "ownerUserID", "operationID"].contains(&name);
        Value {
            texts: u64::from(is_text),
            ..Value::SCALAR
        }
    }

    fn call(&mut self, call: &'e CallExpr) -> Part {
        let parts: Vec<Part> = call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .map(|part| self.part(part))
            .collect();
        let spent = parts
            .iter()
            .fold(Cost::default(), |sum, part| sum.plus(part.cost));
        let all = parts
            .iter()
            .fold(Value::default(), |sum, part| sum.plus(part.value));
        let (own, value) = match (call.func_name.as_str(), parts.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::NOT_STRICTLY_FALSE, _) => {
                (fixed(LOGICAL), Value::SCALAR)
            }
            (operators::CONDITIONAL, [_, yes, no]) => (fixed(LOGICAL), yes.value.most(no.value)),
            (operators::EQUALS | operators::NOT_EQUALS, _) => (all.read(EQUALS), Value::SCALAR),
            (operators::IN, [item, list]) => {
                // The item is compared with each element.
                let texts = item.value.texts.saturating_mul(list.value.elements);
                let read = Value {
                    texts: texts.saturating_add(list.value.texts),
                    ..list.value
                };
                (fixed(PREPARED).plus(read.read(EQUALS)), Value::SCALAR)
            }
            (operators::ADD, _) => (fixed(ARITHMETIC).plus(all.read(ELEMENT)), all),
            (operators::INDEX, [list, _]) => (fixed(ARITHMETIC), list.value.element()),
            (name, _) => (function(name).plus(all.read(0)), result(name, all)),
        };
        Part {
            cost: spent.plus(own),
            value,
        }
    }

    fn comprehension(&mut self, comprehension: &'e ComprehensionExpr) -> Part {
        let range = self.part(&comprehension.iter_range);
        let initial = self.part(&comprehension.accu_init);
        let turns = range.value.elements;
        let outer = self.bound.len();
        self.bound
            .push((&comprehension.iter_var, range.value.element()));
        // What is collected is appended to, and not copied at every turn.
        self.bound.push((&comprehension.accu_var, Value::default()));
        let condition = self.part(&comprehension.loop_cond);
        let step = self.part(&comprehension.loop_step);
        self.bound.truncate(outer);
        self.bound.push((
            &comprehension.accu_var,
            initial.value.plus(step.value.times(turns)),
        ));
        let result = self.part(&comprehension.result);
        self.bound.truncate(outer);
        let turn = fixed(TURN).plus(condition.cost).plus(step.cost);
        let cost = range.cost.plus(initial.cost).plus(turn.times(turns));
        Part {
            cost: cost.plus(result.cost),
            value: result.value,
        }
    }
}

/// What a function or any other operator costs beside reading texts.
fn function(name: &str) -> Cost {
    let units = match name {
        operators::LESS
        | operators::LESS_EQUALS
        | operators::GREATER
        | operators::GREATER_EQUALS
        | operators::LOGICAL_NOT
        | operators::NEGATE => PREPARED,
        operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO => {
            ARITHMETIC
        }
        "size" => SIZE,
        "int" | "double" | "string" | "timestamp" | "duration" => CONVERSION,
        name if name.starts_with("get") => PART_OF_TIME,
        _ => FUNCTION,
    };
    fixed(units)
}

/// What comes of it: a text only where one was converted.
fn result(name: &str, arguments: Value) -> Value {
    match name {
        "string" => arguments,
        _ => Value::SCALAR,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Expression, ListValues, Scope};
    use super::*;

    fn cost_of(source: &str) -> Cost {
        let compiled = Expression::compile(source, Scope::Friend, &ListValues::default());
        compiled
            .unwrap_or_else(|problems| panic!("{source}: {problems:#?}"))
            .cost()
    }

    #[test]
    fn every_part_counts_whether_it_is_come_to_or_not() {
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
    fn a_list_in_a_loop_counts_as_often_as_the_loop_turns() {
        let inner = "friend in ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']";
        let alone = cost_of(inner);
        let looped = cost_of(&format!("[1, 2, 3, 4].exists(n, {inner})"));
        assert!(looped.fixed > 4 * (alone.fixed - EVALUATION), "{looped:?}");
        assert_eq!(looped.texts, 4 * alone.texts);
    }

    #[test]
    fn texts_that_grow_cost_as_often_as_they_are_copied() {
        assert_eq!(cost_of("'a' == 'b' && friendCount > 1").texts, 0);
        assert_eq!(cost_of("friend == 'a'").texts, 1);
        // Copied, and then compared with another one.
        assert_eq!(cost_of("friend + ownerUserID == operationID").texts, 2 + 3);
        let mapped = cost_of("friend in ['a', 'b'].map(x, x + ownerUserID)");
        assert!(mapped.texts >= 6, "{mapped:?}");
        assert_eq!(cost_of("string(friend) == 'a'").texts, 2);
    }

    #[test]
    fn elements_of_every_list_that_can_be_walked_through_count() {
        let turns = |list: &str| {
            let walked = cost_of(&format!("{list}.exists(x, friendCount > 1)")).fixed;
            (walked - cost_of("[1].exists(x, friendCount > 1)").fixed) / TURN
        };
        for list in [
            "[1, 2, 3]",
            "([1] + [2, 3])",
            "(friendCount > 1 ? [1] : [1, 2, 3])",
            "[[], [], []]",
            "[[1, 2, 3], [4]][0]",
        ] {
            assert!(turns(list) >= 2, "{list}: {}", turns(list));
        }
    }
}
