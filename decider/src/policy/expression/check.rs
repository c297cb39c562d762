//! The type checker: finds the type of every part of an expression, or what is wrong with it.

use cel::Program;
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, operators};

use super::super::diagnostic::{closest, quoted};
use super::types::{FUNCTIONS, OPERATORS, Type, VARIABLES};
use super::{ListValues, Problem, Scope};

/// The deepest nesting. Evaluation recurses once a level, at some 2 KiB in a release build and 40 KiB in a debug build:
/// 32 levels fit into a worker thread's 2 MiB either way. What people write has 5 to 10; chains of && and || count as
/// little, for the parser balances them.
pub(super) const MAX_DEPTH: usize = 32;
/// The most problems of one expression that are reported: who has five mended will try again.
const MAX_PROBLEMS: usize = 5;
/// The variable of a friend rule.
pub(super) const FRIEND: &str = "friend";

pub(super) struct Checker<'e> {
    source: &'e str,
    program: &'e Program,
    scope: Scope,
    lists: &'e ListValues,
    /// Variables that a comprehension has bound.
    bound: Vec<(&'e str, Type)>,
    depth: usize,
    in_comprehension: bool,
    pub(super) uses_variables: bool,
    pub(super) problems: Vec<Problem>,
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
            problems: Vec::new(),
        }
    }

    pub(super) fn check(&mut self, part: &'e IdedExpr) -> Type {
        self.depth += 1;
        let found = if self.depth > MAX_DEPTH {
            // Once is enough: nothing below is looked at.
            if self.problems.is_empty() {
                self.problem(part, format!("this expression is nested more than {MAX_DEPTH} levels deep"), "make several rules of it; a long chain of == belongs in a list: friend in [\"a\", \"b\"]");
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
            Expr::Call(call) => self.call(part, call),
            Expr::List(list) => {
                let mut element = Type::Unknown;
                for item in &list.elements {
                    let found = self.check(item);
                    if !element.fits(&found) {
                        self.problem(
                            item,
                            format!("this list mixes {element} and {found}"),
                            "write a list of one kind",
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
                    "nothing here has fields, so there is no {}",
                    quoted(&select.field)
                ),
                format!(
                    "use one of the variables {}",
                    self.variable_names().join(", ")
                ),
            ),
            Expr::Map(_) | Expr::Struct(_) => self.refuse(
                part,
                "expressions here have no maps or messages",
                "use a list in brackets, or a list of the policy",
            ),
            Expr::Unspecified => self.refuse(part, "this is no expression", "write it more simply"),
        }
    }

    fn literal(&mut self, part: &'e IdedExpr, literal: &LiteralValue) -> Type {
        match literal {
            LiteralValue::Boolean(_) => Type::Bool,
            LiteralValue::Int(_) => Type::Int,
            LiteralValue::Double(_) => Type::Double,
            LiteralValue::String(_) => Type::Text,
            LiteralValue::UInt(_) => self.refuse(
                part,
                "numbers here have no suffix",
                "write the number without the u",
            ),
            LiteralValue::Bytes(_) => self.refuse(
                part,
                "expressions here have no bytes",
                "write the text without the b",
            ),
            LiteralValue::Null => self.refuse(
                part,
                "nothing here is ever null",
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
        if self.lists.get(name).is_some() {
            return Type::Ids;
        }
        match (name == FRIEND, self.scope) {
            (true, Scope::Friend) => Type::Text,
            (true, Scope::Request) => self.refuse(
                part,
                "\"friend\" is known in dropFriendIf only",
                "use friendCount, or write the rule as dropFriendIf",
            ),
            (false, _) => {
                let remedy = match closest(name, self.variable_names()) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => format!(
                        "use one of {}; a text stands in quotes",
                        self.variable_names().join(", ")
                    ),
                };
                self.refuse(
                    part,
                    format!("there is no variable or list {}", quoted(name)),
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
        match (call.func_name.as_str(), types.as_slice()) {
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.expect(parts[0], condition, &Type::Bool);
                if !yes.fits(no) {
                    return self.refuse(
                        part,
                        format!("this is {yes} or {no}, as the case may be"),
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
                    format!("a minus cannot stand before {other}"),
                    "use it with numbers",
                ),
            },
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => {
                if !left.fits(right) || [left, right].contains(&&Type::Ids) {
                    return self.refuse(
                        part,
                        format!("{left} and {right} are never equal"),
                        conversion(left, right),
                    );
                }
                Type::Bool
            }
            (operators::IN, [item, list]) => {
                let fits = match list {
                    Type::Ids => item.fits(&Type::Text),
                    Type::Sequence(element) => item.fits(element),
                    Type::Unknown => true,
                    _ => false,
                };
                if !fits {
                    return self.refuse(
                        part,
                        format!("{item} cannot be in {list}"),
                        "write: ownerUserID in some_list, or: ownerUserID in [\"a\", \"b\"]",
                    );
                }
                Type::Bool
            }
            (operators::INDEX, [Type::Sequence(element), index]) => {
                self.expect(parts[1], index, &Type::Int);
                (**element).clone()
            }
            (operators::ADD, [Type::Sequence(left), Type::Sequence(right)]) if left.fits(right) => {
                let element = if **left == Type::Unknown { right } else { left };
                Type::Sequence(element.clone())
            }
            ("size", [Type::Sequence(_)]) => Type::Int,
            (name, [left, right]) if is_operator(name) => self.operator(part, name, left, right),
            (name, types) => self.function(part, name, call.target.is_some(), types),
        }
    }

    fn operator(&mut self, part: &'e IdedExpr, name: &str, left: &Type, right: &Type) -> Type {
        let fitting = OPERATORS
            .iter()
            .find(|(operator, l, r, _)| *operator == name && l.fits(left) && r.fits(right));
        match fitting {
            Some((.., result)) => result.clone(),
            None => {
                let symbol = name.trim_matches('_');
                self.refuse(
                    part,
                    format!("{symbol} cannot take {left} and {right}"),
                    conversion(left, right),
                )
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
            format!("{name} does not work on {given} like this"),
            format!("it is used as {}", ways.join(", or as ")),
        )
    }

    fn unknown_function(&mut self, part: &'e IdedExpr, name: &str) -> Type {
        let mut names: Vec<&str> = FUNCTIONS
            .iter()
            .map(|(name, ..)| *name)
            .chain(["all", "exists", "exists_one", "filter", "map"])
            .collect();
        names.dedup();
        let remedy = match (name, closest(name, names.iter().copied())) {
            ("matches", _) => "write the regular expression under dropFriends or refuseOwner: { matches: [\"^tmp[_-]\"] }".to_owned(),
            (_, Some(meant)) => format!("did you mean {meant}?"),
            (_, None) => format!("use one of {}", names.join(", ")),
        };
        self.refuse(
            part,
            format!("there is no function {}", quoted(name)),
            remedy,
        )
    }

    /// `all`, `exists`, `exists_one`, `filter` and `map` come here expanded: a loop with an accumulator.
    fn comprehension(&mut self, part: &'e IdedExpr, loop_: &'e ComprehensionExpr) -> Type {
        if self.in_comprehension {
            return self.refuse(
                part,
                "a loop in a loop costs too much",
                "write one of all, exists, exists_one, filter and map at a time",
            );
        }
        self.in_comprehension = true;
        let range = self.check(&loop_.iter_range);
        let element = match range {
            Type::Sequence(element) => *element,
            Type::Unknown => Type::Unknown,
            other => self.refuse(
                &loop_.iter_range,
                format!("{other} cannot be walked through"),
                "write a list in brackets before the dot: [\"a\", \"b\"].exists(x, friend.startsWith(x))",
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
                format!("this loop collects {step} into {initial}"),
                "write a condition: [\"a\", \"b\"].exists(x, friend.startsWith(x))",
            );
        }
        self.bound.truncate(outer + 1);
        // `filter` and `map` start with an empty list: only a step tells what they collect.
        self.bound.push((&loop_.accu_var, step));
        let result = self.check(&loop_.result);
        self.bound.truncate(outer);
        self.in_comprehension = false;
        result
    }

    /// The type that one turn of a loop gives. `all` and `exists` were expanded to an `&&` or `||` that nobody wrote, so
    /// what is wrong is said of the condition.
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
                "compare it with something, such as: friendCount > 50",
            );
        }
    }

    fn refuse(
        &mut self,
        part: &IdedExpr,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Type {
        self.problem(part, message, remedy);
        Type::Unknown
    }

    fn problem(&mut self, part: &IdedExpr, message: impl Into<String>, remedy: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                place: self.place(part),
                message: message.into(),
                remedy: remedy.into(),
            });
        }
    }

    /// Where a part stands. What a macro was expanded to has no place of its own.
    fn place(&self, part: &IdedExpr) -> Option<(usize, usize)> {
        // In bytes, the last one included.
        let (start, last) = self.program.source_info().offset_for(part.id)?;
        let before = self.source.get(..start as usize)?;
        let text = self.source.get(start as usize..=last as usize)?;
        Some((before.chars().count(), text.chars().count()))
    }
}

fn is_operator(name: &str) -> bool {
    OPERATORS.iter().any(|(operator, ..)| *operator == name)
}

fn conversion(left: &Type, right: &Type) -> &'static str {
    match (left, right) {
        (Type::Double, Type::Int) | (Type::Int, Type::Double) => {
            "write both numbers with a fraction: double(friendCount) > 1.5"
        }
        (Type::Text, Type::Int) | (Type::Int, Type::Text) => {
            "make both numbers, int(ownerUserID), or both texts, \"50\""
        }
        (Type::Ids, _) | (_, Type::Ids) => {
            "ask whether an id is in the list: ownerUserID in some_list"
        }
        _ => "use it with two of the same type",
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
