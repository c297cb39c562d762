//! The arguments of functions: which must be literals, and for which a function fails.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::super::{
    evaluates,
    regexes::{self, MATCHES},
    types::Type,
};
use super::Checker;

/// The maximum number of parts of `split`.
pub(in super::super) const MAX_PARTS: u64 = 16;
/// The maximum length of an argument of `replace`, in bytes.
const MAX_ARGUMENT_BYTES: usize = 64;

impl<'e> Checker<'e> {
    /// Whether a call fails for some arguments of these types.
    pub(super) fn may_fail(&self, call: &CallExpr, types: &[Type]) -> bool {
        let literal = |part: &IdedExpr| matches!(part.expr, Expr::Literal(_));
        let counter =
            |part: &IdedExpr| matches!(&part.expr, Expr::Ident(name) if name.starts_with('@'));
        match (call.func_name.as_str(), types) {
            // `exists_one` counts elements.
            (operators::ADD, _) if call.args.iter().any(counter) => false,
            // Joins strings or lists, and calculates otherwise.
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
            // NaN has no order.
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                types,
            ) => types.contains(&Type::Double),
            (name, _) if name.starts_with("get") => !call
                .args
                .iter()
                .all(|zone| self.succeeds("timestamp(0).getHours", zone)),
            ("int", [Type::Int | Type::Timestamp])
            | ("double", [Type::Int | Type::Double])
            | ("timestamp", [Type::Timestamp])
            | ("duration", [Type::Duration]) => false,
            (name @ ("int" | "double" | "timestamp" | "duration"), _) => !call
                .args
                .iter()
                .all(|argument| self.succeeds(name, argument)),
            _ => false,
        }
    }

    /// Checks arguments that must be literals, so that the time that a function takes and the size of its result have a limit.
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

    /// Whether a function succeeds with this argument, which is the case only for a literal.
    fn succeeds(&self, function: &str, argument: &IdedExpr) -> bool {
        let literal = matches!(argument.expr, Expr::Literal(_));
        let text = self.text(argument).filter(|_| literal);
        text.is_some_and(|text| evaluates(&format!("{function}({text})")))
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
    match &limit.expr {
        Expr::Literal(LiteralValue::Int(limit)) => u64::try_from(*limit.inner()).ok(),
        _ => None,
    }
}
