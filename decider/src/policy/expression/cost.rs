//! The maximum cost of one evaluation of an expression: the estimate assumes that every part is evaluated and every loop runs
//! to its end.
//!
//! The constants are units of [`NANOS_PER_UNIT`](super::super::units::NANOS_PER_UNIT), measured by `cargo bench -p
//! importguard-decider --bench cost` on a busy machine and rounded up: on an idle one, loops take half as long.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};

use super::super::units::{Cost, SIMULATED, beside_look_up};
use super::{
    ListValues, MAX_SOURCE_BYTES,
    check::{FRIEND, MAX_PARTS, max_parts, string},
    regexes::{MATCHES, simulated_states},
};

/// The fixed cost of an evaluation: its context.
const EVALUATION: u64 = 4;
/// A literal, and an element of a list literal.
const LITERAL: u64 = 2;
/// Looking up a variable.
const VARIABLE: u64 = 3;
/// `&&` and `||`.
const LOGICAL: u64 = 1;
/// `==`, and comparing with one element of a list.
const EQUALS: u64 = 1;
/// Operators for which the crate creates a type error in advance: `!`, `<`, `in` and similar.
const PREPARED: u64 = 13;
/// Arithmetic and indexes.
const ARITHMETIC: u64 = 6;
/// A function call, which is resolved by name and argument types.
const FUNCTION: u64 = 14;
/// `size`, which counts characters.
const SIZE: u64 = 20;
/// Extracting a part of a timestamp, in any time zone.
const PART_OF_TIME: u64 = 32;
/// A conversion, including one that fails and formats a message.
const CONVERSION: u64 = 45;
/// Appending a value to a list.
const ELEMENT: u64 = 1;
/// Each part that `split` returns.
const PART: u64 = 8;
/// Reading 64 bytes character by character.
const CHARACTERS: u64 = 24;
/// Matching 64 bytes with a regular expression, the same as in a matcher.
const REGEX: u64 = 40;
/// One iteration of a loop without its body: the names and values of two variables.
const ITERATION: u64 = 28;

/// The cost and the result of a part.
#[derive(Clone, Copy, Default)]
struct Part {
    cost: Cost,
    value: Value,
}

/// The maximum size of a value.
#[derive(Clone, Copy, Default)]
struct Value {
    /// The number of elements, including those of nested lists; an empty nested list counts as one.
    elements: u64,
    /// The maximum number of elements in one element of the list.
    each: u64,
    /// The total length of its strings that are made from the request's, in multiples of the request's longest ID.
    texts: u64,
    /// The total length of its other strings, in bytes.
    literal_bytes: u64,
}

impl Value {
    const SCALAR: Self = Self {
        elements: 1,
        each: 1,
        texts: 0,
        literal_bytes: 0,
    };

    /// The size of a list that contains both.
    fn plus(self, other: Self) -> Self {
        Self {
            elements: self.elements.saturating_add(other.elements),
            each: self.each.max(other.each),
            texts: self.texts.saturating_add(other.texts),
            literal_bytes: self.literal_bytes.saturating_add(other.literal_bytes),
        }
    }

    /// The size as an element of a list.
    fn listed(self) -> Self {
        let elements = self.elements.max(1);
        Self {
            elements,
            each: elements,
            ..self
        }
    }

    /// The size of an element of this list. One element may have all of the strings.
    fn element(self) -> Self {
        Self {
            elements: self.each,
            ..self
        }
    }

    /// The size of a list that contains it `times` times.
    fn times(self, times: u64) -> Self {
        Self {
            elements: self.elements.saturating_mul(times),
            texts: self.texts.saturating_mul(times),
            literal_bytes: self.literal_bytes.saturating_mul(times),
            ..self
        }
    }

    /// The larger of both, field by field.
    fn most(self, other: Self) -> Self {
        Self {
            elements: self.elements.max(other.elements),
            each: self.each.max(other.each),
            texts: self.texts.max(other.texts),
            literal_bytes: self.literal_bytes.max(other.literal_bytes),
        }
    }

    /// The number of chunks in its strings that are made from literals. Bytes up to the maximum length of an expression do not count,
    /// because the cost of its parts includes them.
    fn chunks(self) -> u64 {
        self.literal_bytes.saturating_sub(MAX_SOURCE_BYTES as u64) / CHUNK_BYTES
    }

    /// The cost of reading all of it, at `each` units per element.
    fn read(self, each: u64) -> Cost {
        let fixed = self.elements.saturating_mul(each);
        Cost {
            fixed: fixed.saturating_add(self.chunks()),
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

/// The unit in which reading strings is counted, in bytes.
const CHUNK_BYTES: u64 = 64;
/// The longest text of a number, a time or a duration: a time with nanoseconds and an offset has 35 bytes.
const NUMBER_BYTES: u64 = 40;

/// The cost of one evaluation. The expression must have passed the checker, which limits the recursion.
pub(super) fn cost(expression: &IdedExpr, lists: &ListValues) -> Cost {
    let mut estimate = Estimate {
        bound: Vec::new(),
        lists,
    };
    fixed(EVALUATION).plus(estimate.part(expression).cost)
}

struct Estimate<'e> {
    /// The variables of the current loop.
    bound: Vec<(&'e str, Value)>,
    lists: &'e ListValues,
}

impl<'e> Estimate<'e> {
    fn part(&mut self, part: &'e IdedExpr) -> Part {
        match &part.expr {
            Expr::Literal(literal) => Part {
                cost: fixed(LITERAL),
                value: Value {
                    literal_bytes: match literal {
                        LiteralValue::String(text) => text.inner().len() as u64,
                        _ => 0,
                    },
                    ..Value::SCALAR
                },
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
            // The checker rejects all of these.
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
                let folding = self.folding(call.args.last(), item.value);
                let own = fixed(PREPARED).plus(read.read(EQUALS)).plus(folding);
                (own, Value::SCALAR)
            }
            (operators::ADD, _) => (fixed(ARITHMETIC).plus(all.read(ELEMENT)), all),
            (operators::INDEX, [list, _]) => (fixed(ARITHMETIC), list.value.element()),
            ("split", _) => {
                let elements = call.args.last().and_then(max_parts).unwrap_or(MAX_PARTS);
                let own = function("split").plus(fixed(elements.saturating_mul(PART)));
                let value = Value {
                    elements,
                    each: 1,
                    ..all
                };
                (own.plus(texts(all, CHARACTERS)), value)
            }
            ("replace", _) => {
                let made = all.times(growth(&call.args));
                let value = Value {
                    elements: 1,
                    each: 1,
                    ..made
                };
                (
                    function("replace")
                        .plus(texts(all, CHARACTERS))
                        .plus(value.read(1)),
                    value,
                )
            }
            (MATCHES, _) => (function(MATCHES).plus(matching(call, all)), Value::SCALAR),
            ("lowerAscii" | "upperAscii" | "trim" | "substring", _) => {
                let value = Value {
                    elements: 1,
                    each: 1,
                    ..all
                };
                (function("lowerAscii").plus(texts(all, CHARACTERS)), value)
            }
            (name, _) => (function(name).plus(all.read(0)), result(name, all)),
        };
        Part {
            cost: spent.plus(own),
            value,
        }
    }

    /// The additional cost of a look-up of `item` if `list` is one of the policy's, because of `fold` for example.
    fn folding(&self, list: Option<&IdedExpr>, item: Value) -> Cost {
        let named = match list.map(|list| &list.expr) {
            Some(Expr::List(_)) => return Cost::default(),
            // A variable of a loop hides the list with its name.
            Some(Expr::Ident(name)) if !self.bound.iter().any(|(bound, _)| bound == name) => {
                self.lists.get(name)
            }
            _ => None,
        };
        let cost = match named {
            Some(list) => beside_look_up(list),
            // It may be any of them: `friend in (friendCount > 9 ? strict : lax)`.
            None => self
                .lists
                .all()
                .map(beside_look_up)
                .max()
                .unwrap_or_default(),
        };
        // A literal is short; other strings are made from the request's.
        cost.times(item.texts.max(1))
    }

    fn comprehension(&mut self, comprehension: &'e ComprehensionExpr) -> Part {
        let range = self.part(&comprehension.iter_range);
        let initial = self.part(&comprehension.accu_init);
        let iterations = range.value.elements;
        let outer = self.bound.len();
        self.bound
            .push((&comprehension.iter_var, range.value.element()));
        // The accumulator is appended to, not copied in each iteration.
        self.bound.push((&comprehension.accu_var, Value::default()));
        let condition = self.part(&comprehension.loop_cond);
        let step = self.part(&comprehension.loop_step);
        self.bound.truncate(outer);
        self.bound.push((
            &comprehension.accu_var,
            initial.value.plus(step.value.times(iterations)),
        ));
        let result = self.part(&comprehension.result);
        self.bound.truncate(outer);
        let iteration = fixed(ITERATION).plus(condition.cost).plus(step.cost);
        let cost = range
            .cost
            .plus(initial.cost)
            .plus(iteration.times(iterations));
        Part {
            cost: cost.plus(result.cost),
            value: result.value,
        }
    }
}

/// The cost of reading the strings of a value, at `each` units per 64 bytes.
fn texts(value: Value, each: u64) -> Cost {
    Cost {
        fixed: value.chunks().saturating_mul(each),
        texts: value.texts.saturating_mul(each),
    }
}

/// The cost of matching a string and its regular expression, whose size is `all`.
fn matching(call: &CallExpr, all: Value) -> Cost {
    let states = call
        .args
        .last()
        .and_then(string)
        .map_or(0, simulated_states);
    let simulated = states.saturating_mul(SIMULATED);
    // Literals count here although they are short: a simulation takes as long for each of their bytes as for those of an ID.
    let literals = all.literal_bytes.saturating_mul(simulated) / CHUNK_BYTES;
    texts(all, REGEX.saturating_add(simulated)).plus(fixed(literals))
}

/// The maximum factor by which `replace` lengthens a string.
fn growth(arguments: &[IdedExpr]) -> u64 {
    let [from, to] = arguments else { return 1 };
    let [from, to] = [from, to].map(|part| string(part).map_or(1, str::len).max(1) as u64);
    to.div_ceil(from).max(1)
}

/// The cost of a function or any other operator, without reading strings.
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

/// The size of the result, which is a string only after a conversion.
fn result(name: &str, arguments: Value) -> Value {
    match name {
        "string" => Value {
            literal_bytes: arguments.literal_bytes.saturating_add(NUMBER_BYTES),
            ..arguments
        },
        _ => Value::SCALAR,
    }
}

#[cfg(test)]
mod tests;
