//! The arguments of functions: which must be literals, and which make a function fail.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::super::{
    evaluates,
    regexes::{self, MATCHES},
    types::Type,
};
use super::{Checker, MAX_QUOTED_BYTES};

/// The maximum number of parts of `split`.
pub(in super::super) const MAX_PARTS: u64 = 16;
/// The functions that convert a value, each with what to write instead of a literal that it cannot convert.
const CONVERSIONS: [(&str, &str); 4] = [
    ("int", "write an integer, as in int('5')"),
    ("double", "write a number, as in double('1.5')"),
    (
        "timestamp",
        "write date, time and zone, as in timestamp('2026-11-23T18:00:00Z')",
    ),
    (
        "duration",
        "write hours, minutes or seconds, as in duration('24h')",
    ),
];
/// The maximum length of an argument of `replace`, in bytes.
const MAX_ARGUMENT_BYTES: usize = 64;

impl<'e> Checker<'e> {
    /// Whether a call fails for some arguments of these types.
    pub(super) fn may_fail(&self, call: &CallExpr, types: &[Type]) -> bool {
        let literal = |part: &IdedExpr| matches!(part.expr, Expr::Literal(_));
        let counter =
            |part: &IdedExpr| matches!(&part.expr, Expr::Ident(name) if name.starts_with('@'));
        match (call.func_name.as_str(), types) {
            // The counter of `exists_one` cannot overflow.
            (operators::ADD, _) if call.args.iter().any(counter) => false,
            // Concatenating strings or lists cannot fail; arithmetic can overflow.
            (operators::ADD, [first, ..]) => !matches!(first, Type::String | Type::Sequence(_)),
            (
                operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::MODULO
                | operators::INDEX
                | "substring",
                _,
            ) => true,
            (operators::NEGATE, _) => !call.args.iter().all(literal),
            // NaN has no order, so comparing it fails.
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                types,
            ) => types.contains(&Type::Double),
            (name, _) if name.starts_with("get") => {
                !call.args.iter().all(|zone| is_zone(zone) == Some(true))
            }
            ("int", [Type::Int | Type::Timestamp])
            | ("double", [Type::Int | Type::Double])
            | ("timestamp", [Type::Timestamp])
            | ("duration", [Type::Duration]) => false,
            (name @ ("int" | "double" | "timestamp" | "duration"), _) => !call
                .args
                .iter()
                .all(|argument| converts(name, argument) == Some(true)),
            _ => false,
        }
    }

    /// Checks arguments that must be literals, so that the run time of a function and the size of its result are bounded.
    pub(super) fn arguments(&mut self, call: &'e CallExpr) {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (MATCHES, [pattern]) => match string(pattern) {
                Some(text) => {
                    if let Err(why) = regexes::compile(text) {
                        self.error(
                            pattern,
                            format!("invalid regular expression: {why}"),
                            "use the syntax of Rust's regex crate, such as '^tmp[_-]'; in CEL, r'\\d' needs the r",
                        );
                    }
                }
                None => self.error(
                    pattern,
                    "the regular expression of matches must be a string in quotes",
                    "write it out: it is compiled when the policy is loaded",
                ),
            },
            ("replace", [from, to]) => {
                for (argument, least) in [(from, 1), (to, 0)] {
                    let fits = |text: &str| (least..=MAX_ARGUMENT_BYTES).contains(&text.len());
                    if !string(argument).is_some_and(fits) {
                        self.error(
                            argument,
                            format!("replace needs strings in quotes, of {least} to {MAX_ARGUMENT_BYTES} bytes here"),
                            "write it out, as in replace(\"-\", \"_\")",
                        );
                    }
                }
            }
            ("split", [separator, limit]) => {
                if string(separator).is_none_or(str::is_empty) {
                    self.error(
                        separator,
                        "the separator of split must be a string in quotes, and not empty",
                        "write it out, as in split(\",\", 2)",
                    );
                }
                if !max_parts(limit).is_some_and(|parts| (1..=MAX_PARTS).contains(&parts)) {
                    self.error(
                        limit,
                        format!("the limit of split must be a number, 1 to {MAX_PARTS}"),
                        "write it out, as in split(\",\", 2)",
                    );
                }
            }
            _ => {}
        }
    }

    /// Reports literals with which a call of the right types always fails. They may be behind a condition that is rarely true, so that no
    /// test of the policy finds them.
    pub(super) fn literals(&mut self, call: &'e CallExpr) {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::DIVIDE | operators::MODULO, [_, divisor])
                if integer(divisor) == Some(0) =>
            {
                self.error(divisor, "division by zero", "divide by another number");
            }
            (operators::INDEX, [list, index]) => self.index(list, index),
            ("substring", [start, rest @ ..]) => self.substring(start, rest.first()),
            (name, [zone]) if name.starts_with("get") && is_zone(zone) == Some(false) => self
                .error(
                    zone,
                    format!("unknown time zone {}", self.named(zone)),
                    "write a name such as 'Europe/Berlin', or an offset such as '+01:00'",
                ),
            (name, [argument]) => {
                if let Some((_, remedy)) = CONVERSIONS.iter().find(|(known, _)| *known == name)
                    && converts(name, argument) == Some(false)
                {
                    let message = format!("{name} cannot convert {}", self.named(argument));
                    self.error(argument, message, *remedy);
                }
            }
            _ => {}
        }
    }

    fn index(&mut self, list: &IdedExpr, index: &'e IdedExpr) {
        let (length, at_most) = match &list.expr {
            Expr::List(list) => (i64::try_from(list.elements.len()).ok(), ""),
            Expr::Call(call) if call.func_name == "split" => {
                (call.args.get(1).and_then(integer), "at most ")
            }
            _ => return,
        };
        let (Some(length), Some(number)) = (length, integer(index)) else {
            return;
        };
        let missing = format!("this list has no element {number}");
        match length {
            0 => self.error(
                index,
                format!("{missing}: it is empty"),
                "put elements into it",
            ),
            _ if (0..length).contains(&number) => {}
            _ => self.error(
                index,
                format!("{missing}: there are {at_most}{length}, numbered from 0"),
                format!("write 0 to {}", length - 1),
            ),
        }
    }

    fn substring(&mut self, start: &'e IdedExpr, end: Option<&'e IdedExpr>) {
        let first = integer(start);
        if let Some(first @ ..0) = first {
            let message = format!("substring cannot start at {first}");
            return self.error(
                start,
                message,
                "write 0 or more: the first character is at 0",
            );
        }
        let Some((end, last)) = end.and_then(|end| Some((end, integer(end)?))) else {
            return;
        };
        if last < first.unwrap_or_default() {
            self.error(
                end,
                format!("substring cannot end at {last}, before its start"),
                "write the positions where it starts and ends, as in substring(2, 5)",
            );
        }
    }

    /// The source of a part, if it is short.
    fn named(&self, part: &IdedExpr) -> &'e str {
        let text = self.text(part);
        text.filter(|text| text.len() <= MAX_QUOTED_BYTES)
            .unwrap_or("this")
    }
}

/// Whether a function succeeds with this literal; `None` if it is no literal.
fn converts(function: &str, argument: &IdedExpr) -> Option<bool> {
    matches!(argument.expr, Expr::Literal(_)).then(|| evaluates(call(None, function, argument)))
}

/// Whether a literal is a known time zone; `None` if it is no literal.
fn is_zone(zone: &IdedExpr) -> Option<bool> {
    matches!(zone.expr, Expr::Literal(_)).then(|| {
        let zero = part(Expr::Literal(LiteralValue::Int(0.into())));
        let epoch = part(Expr::Call(call(None, "timestamp", &zero)));
        evaluates(call(Some(epoch), "getHours", zone))
    })
}

fn call(target: Option<IdedExpr>, function: &str, argument: &IdedExpr) -> CallExpr {
    CallExpr {
        func_name: function.to_owned(),
        target: target.map(Box::new),
        args: vec![argument.clone()],
    }
}

/// A part that is not in the source.
fn part(expr: Expr) -> IdedExpr {
    IdedExpr { id: 0, expr }
}

/// The value of an integer literal.
fn integer(part: &IdedExpr) -> Option<i64> {
    match &part.expr {
        Expr::Literal(LiteralValue::Int(number)) => Some(*number.inner()),
        _ => None,
    }
}

/// The value of a string literal.
pub(in super::super) fn string(part: &IdedExpr) -> Option<&str> {
    match &part.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// The limit of `split`, if it is a literal.
pub(in super::super) fn max_parts(limit: &IdedExpr) -> Option<u64> {
    u64::try_from(integer(limit)?).ok()
}
