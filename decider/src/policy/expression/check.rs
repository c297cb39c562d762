//! The type checker: infers the type of every part of an expression and reports type errors.

mod arguments;
mod operands;

use operands::is_operator;

pub(super) use arguments::{MAX_PARTS, max_parts, string};

use cel::{
    Program,
    common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators},
};

use super::super::diagnostic::{closest, quoted};
use super::{
    ExpressionError, ListValues, Scope,
    types::{FUNCTIONS, Type, VARIABLES},
};

/// Maximum nesting depth. Evaluation recurses once per level and uses about 2 KiB of stack for it in a release build and 40 KiB in a debug
/// build, so 32 levels fit into a worker thread's 2 MiB either way. Expressions that people write have 5 to 10 levels; chains of && and ||
/// add few, because the parser balances them.
pub(super) const MAX_DEPTH: usize = 32;
/// The maximum number of errors reported for one expression.
const MAX_ERRORS: usize = 5;
/// The variable that holds the friend in `dropFriendIf`.
pub(super) const FRIEND: &str = "friend";

/// The longest operand that a message quotes.
const MAX_QUOTED_BYTES: usize = 40;

pub(super) struct Checker<'e> {
    source: &'e str,
    program: &'e Program,
    scope: Scope,
    lists: &'e ListValues,
    /// Variables bound by a comprehension.
    bound: Vec<(&'e str, Type)>,
    depth: usize,
    in_comprehension: bool,
    pub(super) uses_variables: bool,
    /// Whether some values of the variables make the expression fail.
    pub(super) can_fail: bool,
    pub(super) errors: Vec<ExpressionError>,
}

impl<'e> Checker<'e> {
    pub(super) fn new(
        source: &'e str,
        program: &'e Program,
        scope: Scope,
        lists: &'e ListValues,
    ) -> Self {
        Self {
            source,
            program,
            scope,
            lists,
            bound: Vec::new(),
            depth: 0,
            in_comprehension: false,
            uses_variables: false,
            can_fail: false,
            errors: Vec::new(),
        }
    }

    pub(super) fn check(&mut self, part: &'e IdedExpr) -> Type {
        self.depth += 1;
        let found = if self.depth > MAX_DEPTH {
            // Reported once; deeper parts are not checked.
            if self.errors.is_empty() {
                self.error(part, format!("this expression is nested more than {MAX_DEPTH} levels deep"), "split it into several rules; a long chain of == belongs in a list: friend in [\"a\", \"b\"]");
            }
            Type::Unknown
        } else {
            self.check_part(part)
        };
        self.depth -= 1;
        found
    }

    fn check_part(&mut self, part: &'e IdedExpr) -> Type {
        match &part.expr {
            Expr::Literal(literal) => self.literal(part, literal),
            Expr::Ident(name) => self.variable(part, name),
            Expr::Call(call) => {
                let errors = self.errors.len();
                let found = self.call(part, call);
                if self.errors.len() == errors {
                    self.literals(call);
                }
                found
            }
            Expr::List(list) => {
                let mut element = Type::Unknown;
                for item in &list.elements {
                    let found = self.check(item);
                    if !element.fits(&found) {
                        self.error(
                            item,
                            format!("this list mixes {element} and {found}"),
                            "use elements of one type",
                        );
                    }
                    if element == Type::Unknown {
                        element = found;
                    }
                }
                Type::Sequence(Box::new(element))
            }
            Expr::Comprehension(comprehension) => self.comprehension(part, comprehension),
            Expr::Select(select) => self.refuse(
                part,
                format!(
                    "unknown field {}: no variable has fields",
                    quoted(&select.field)
                ),
                format!(
                    "use one of the variables {}",
                    self.variable_names().join(", ")
                ),
            ),
            Expr::Map(_) | Expr::Struct(_) => self.refuse(
                part,
                "maps and messages are not supported",
                "use a list literal, or one of the policy's lists",
            ),
            Expr::Unspecified => self.refuse(part, "invalid expression", "simplify it"),
        }
    }

    fn literal(&mut self, part: &'e IdedExpr, literal: &LiteralValue) -> Type {
        match literal {
            LiteralValue::Boolean(_) => Type::Bool,
            LiteralValue::Int(_) => Type::Int,
            LiteralValue::Double(_) => Type::Double,
            LiteralValue::String(_) => Type::String,
            LiteralValue::UInt(_) => self.refuse(
                part,
                "unsigned integers are not supported",
                "write the number without the u",
            ),
            LiteralValue::Bytes(_) => self.refuse(
                part,
                "byte strings are not supported",
                "write the string without the b",
            ),
            LiteralValue::Null => self.refuse(
                part,
                "no value is ever null",
                "remove the comparison with null",
            ),
        }
    }

    fn variable(&mut self, part: &'e IdedExpr, name: &str) -> Type {
        if let Some((_, found)) = self.bound.iter().rev().find(|(bound, _)| *bound == name) {
            return found.clone();
        }
        self.uses_variables = true;
        if let Some((_, found)) = VARIABLES.iter().find(|(variable, _)| *variable == name) {
            return found.clone();
        }
        if let Some(list) = self.lists.get(name) {
            if list.is_shadow() {
                return self.refuse(
                    part,
                    format!("the list {} is in shadow, and an expression cannot report what it would have been", quoted(name)),
                    "use it with in or notIn, or put the rule in shadow instead of the list",
                );
            }
            return Type::Ids;
        }
        match (name == FRIEND, self.scope) {
            (true, Scope::Friend) => Type::String,
            (true, Scope::Request) => self.refuse(
                part,
                "\"friend\" is available only in dropFriendIf",
                "use friendCount, or write the rule as dropFriendIf",
            ),
            (false, _) => {
                let remedy = match closest(name, self.variable_names()) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!(
                        "use one of {}; strings need quotes",
                        self.variable_names().join(", ")
                    ),
                };
                self.refuse(
                    part,
                    format!("unknown variable or list {}", quoted(name)),
                    remedy,
                )
            }
        }
    }

    fn variable_names(&self) -> Vec<&'e str> {
        let lists = self.lists;
        let mut lists: Vec<&str> = lists.names().collect();
        lists.sort_unstable();
        let friend = (self.scope == Scope::Friend).then_some(FRIEND);
        let fixed = VARIABLES.iter().map(|(name, _)| *name);
        fixed.chain(friend).chain(lists).collect()
    }

    fn call(&mut self, part: &'e IdedExpr, call: &'e CallExpr) -> Type {
        let parts: Vec<&IdedExpr> = call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect();
        let types: Vec<Type> = parts.iter().map(|part| self.check(part)).collect();
        self.can_fail = self.can_fail || self.may_fail(call, &types);
        match (call.func_name.as_str(), types.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.expect(parts[0], condition, &Type::Bool);
                if !yes.fits(no) {
                    return self.refuse(
                        part,
                        format!("the branches have different types: {yes} and {no}"),
                        "give both sides of the : the same type",
                    );
                }
                if *yes == Type::Unknown {
                    no.clone()
                } else {
                    yes.clone()
                }
            }
            (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, [operand]) => {
                self.expect(parts[0], operand, &Type::Bool);
                Type::Bool
            }
            (operators::NEGATE, [operand]) => match operand {
                Type::Int | Type::Double | Type::Unknown => operand.clone(),
                other => self.refuse(
                    part,
                    format!("cannot negate {other}"),
                    "use it with numbers",
                ),
            },
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => {
                if !left.fits(right) || [left, right].contains(&&Type::Ids) {
                    return self.refuse(
                        part,
                        self.mismatch("compare", "with", [(parts[0], left), (parts[1], right)]),
                        self.conversion([(parts[0], left), (parts[1], right)]),
                    );
                }
                Type::Bool
            }
            (operators::IN, [item, list]) => {
                let fits = match list {
                    Type::Ids => item.fits(&Type::String),
                    Type::Sequence(element) => item.fits(element),
                    Type::Unknown => true,
                    _ => false,
                };
                if !fits {
                    return self.refuse(
                        part,
                        format!("cannot look up {item} in {list}"),
                        match list {
                            Type::Ids => "lists contain strings: convert it with string()",
                            Type::Sequence(_) => "use elements of its type",
                            _ => "write one of the policy's lists after in, or values in brackets: [\"a\", \"b\"]",
                        },
                    );
                }
                Type::Bool
            }
            (operators::INDEX, [Type::Sequence(element), index]) => {
                self.expect(parts[1], index, &Type::Int);
                (**element).clone()
            }
            // The error of the operand has been reported.
            (operators::INDEX, [Type::Unknown, _]) => Type::Unknown,
            (operators::INDEX, [other, _]) => self.refuse(
                part,
                format!("{other} has no elements"),
                "index only lists in brackets and the result of split; substring(0, 1) is a string's first character",
            ),
            (operators::ADD, [Type::Sequence(left), Type::Sequence(right)]) if left.fits(right) => {
                let element = if **left == Type::Unknown { right } else { left };
                Type::Sequence(element.clone())
            }
            ("size", [Type::Sequence(_)]) => Type::Int,
            (name, [left, right]) if is_operator(name) => {
                self.operator(part, name, [(parts[0], left), (parts[1], right)])
            }
            ("split", [Type::String, Type::String, Type::Int]) if call.target.is_some() => {
                self.arguments(call);
                Type::Sequence(Box::new(Type::String))
            }
            ("split", _) => self.refuse(
                part,
                "split needs a separator and a limit",
                format!("write split(\",\", 2): the second is the maximum number of parts, 1 to {MAX_PARTS}"),
            ),
            (name, types) => {
                self.arguments(call);
                self.function(part, name, call.target.is_some(), types)
            }
        }
    }

    fn function(&mut self, part: &'e IdedExpr, name: &str, member: bool, types: &[Type]) -> Type {
        let mut named = FUNCTIONS
            .iter()
            .filter(|(function, ..)| *function == name)
            .peekable();
        if named.peek().is_none() {
            return self.unknown_function(part, name);
        }
        let fitting = named.clone().find(|(_, on_first, expected, _)| {
            *on_first == member
                && expected.len() == types.len()
                && expected.iter().zip(types).all(|(e, t)| e.fits(t))
        });
        if let Some((.., result)) = fitting {
            return result.clone();
        }
        let given: Vec<String> = types.iter().map(Type::to_string).collect();
        let given = if given.is_empty() {
            "nothing".to_owned()
        } else {
            given.join(" and ")
        };
        let ways: Vec<String> = named
            .map(|(name, on_first, expected, _)| usage(name, *on_first, expected))
            .collect();
        self.refuse(
            part,
            format!("{name} cannot be called with {given} like this"),
            format!("use it as {}", ways.join(", or as ")),
        )
    }

    fn unknown_function(&mut self, part: &'e IdedExpr, name: &str) -> Type {
        let mut names: Vec<&str> = FUNCTIONS
            .iter()
            .map(|(name, ..)| *name)
            .chain(["split", "all", "exists", "exists_one", "filter", "map"])
            .collect();
        names.dedup();
        let remedy = match (name, closest(name, names.iter().copied())) {
            ("not", _) => "write ! for \"not\"".to_owned(),
            (_, Some(meant)) => format!("did you mean {meant}?"),
            (_, None) => format!("use one of {}", names.join(", ")),
        };
        self.refuse(part, format!("unknown function {}", quoted(name)), remedy)
    }

    /// Checks `all`, `exists`, `exists_one`, `filter` and `map`, which the parser expands to a loop with an accumulator.
    fn comprehension(&mut self, part: &'e IdedExpr, loop_: &'e ComprehensionExpr) -> Type {
        if self.in_comprehension {
            return self.refuse(
                part,
                "nested loops are not allowed",
                "use only one of all, exists, exists_one, filter and map",
            );
        }
        self.in_comprehension = true;
        let range = self.check(&loop_.iter_range);
        let element = match range {
            Type::Sequence(element) => *element,
            Type::Unknown => Type::Unknown,
            other => self.refuse(
                &loop_.iter_range,
                format!("{other} cannot be iterated over"),
                "write a list literal before the dot: [\"a\", \"b\"].exists(x, x != \"\")",
            ),
        };
        let initial = self.check(&loop_.accu_init);
        let outer = self.bound.len();
        self.bound.push((&loop_.iter_var, element));
        self.bound.push((&loop_.accu_var, initial.clone()));
        let condition = self.check(&loop_.loop_cond);
        self.expect(part, &condition, &Type::Bool);
        let step = self.step(loop_);
        if !step.fits(&initial) {
            self.refuse(
                part,
                format!("this loop's body is {step}, but its result is {initial}"),
                "write a condition: [\"a\", \"b\"].exists(x, x != \"\")",
            );
        }
        self.bound.truncate(outer + 1);
        // `filter` and `map` start with an empty list: only the step has the element type.
        self.bound.push((&loop_.accu_var, step));
        let result = self.check(&loop_.result);
        self.bound.truncate(outer);
        self.in_comprehension = false;
        result
    }

    /// The type of a loop's step. `all` and `exists` are expanded to an `&&` or `||` that is not in the source, so errors
    /// are reported for the condition.
    fn step(&mut self, loop_: &'e ComprehensionExpr) -> Type {
        if let Expr::Call(CallExpr { args, .. }) = &loop_.loop_step.expr
            && let [accumulator, condition] = args.as_slice()
            && accumulator.expr == Expr::Ident(loop_.accu_var.clone())
            && !matches!(condition.expr, Expr::List(_))
        {
            let found = self.check(condition);
            self.expect(condition, &found, &Type::Bool);
            return Type::Bool;
        }
        self.check(&loop_.loop_step)
    }

    fn expect(&mut self, part: &'e IdedExpr, found: &Type, expected: &Type) {
        if !found.fits(expected) {
            self.refuse(
                part,
                format!("expected {expected} here, found {found}"),
                comparison(self.text(part), found),
            );
        }
    }

    fn refuse(
        &mut self,
        part: &IdedExpr,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Type {
        self.error(part, message, remedy);
        Type::Unknown
    }

    pub(super) fn error(
        &mut self,
        part: &IdedExpr,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(ExpressionError {
                place: self.place(part),
                message: message.into(),
                remedy: remedy.into(),
            });
        }
    }

    /// The position of a part in characters. The expansion of a macro has none.
    fn place(&self, part: &IdedExpr) -> Option<(usize, usize)> {
        let (start, _) = self.program.source_info().offset_for(part.id)?;
        let before = self.source.get(..start as usize)?;
        Some((before.chars().count(), self.text(part)?.chars().count()))
    }

    /// The source of a part.
    fn text(&self, part: &IdedExpr) -> Option<&'e str> {
        // Byte offsets, the last one inclusive.
        let (start, last) = self.program.source_info().offset_for(part.id)?;
        self.source.get(start as usize..=last as usize)
    }
}

/// Suggests how to turn an expression of this type into a condition.
pub(super) fn comparison(source: Option<&str>, found: &Type) -> String {
    let with = match found {
        // The remainder of a division is small.
        Type::Int if source.is_some_and(|source| source.contains('%')) => "== 0",
        Type::Int => "> 50",
        Type::Double => "> 0.5",
        Type::String => "== \"a\"",
        Type::Timestamp => "> timestamp(\"2026-01-01T00:00:00Z\")",
        Type::Duration => "> duration(\"1h\")",
        Type::Ids => return "test whether an ID is in it, with: in".to_owned(),
        Type::Sequence(_) => return "test one value, with: in; or each, with: exists".to_owned(),
        Type::Bool | Type::Unknown => return "compare it with something".to_owned(),
    };
    match source.filter(|source| source.len() <= MAX_QUOTED_BYTES) {
        Some(source) => format!("compare it with something: {source} {with}"),
        None => format!("compare it with something, as in: … {with}"),
    }
}

fn usage(name: &str, on_first: bool, types: &[Type]) -> String {
    let shown = |types: &[Type]| {
        types
            .iter()
            .map(|t| format!("<{t}>"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match types.split_first() {
        Some((first, rest)) if on_first => format!("<{first}>.{name}({})", shown(rest)),
        _ => format!("{name}({})", shown(types)),
    }
}
