//! The regular expressions of `matches`. They are literals, so each is compiled once, when the policy is loaded. In the expression that is
//! evaluated, a variable replaces each of them.

use std::any::Any;

use cel::{
    DeclarationError, Env, ExecutionError,
    common::{
        ast::{Expr, IdedExpr, LiteralValue},
        types::{CelBool, CelString, STRING_TYPE, Type},
        value::{CowVal, StaticVal, Val},
    },
};
use regex::RegexSet;

use super::super::patterns::{self, compile_pattern};

pub(super) const MATCHES: &str = "matches";

/// The maximum compiled size of one, in bytes: a sixteenth of what a matcher may have, as expressions may have several.
const MAX_REGEX_BYTES: usize = 64 << 10;
/// The maximum memory per thread for the part of the automaton that is built while matching, in bytes.
const MAX_DFA_BYTES: usize = 256 << 10;
/// The first character of the names of the variables. No identifier can contain it.
const VARIABLE: char = '/';

const REGEX_NAME: &str = "regex";
static REGEX: Type = Type::new_unspecified_type(REGEX_NAME);

/// A compiled regular expression as a value.
#[derive(Clone, Debug)]
struct RegexValue(RegexSet);

impl Val for RegexValue {
    fn get_type(&self) -> &Type {
        &REGEX
    }

    fn cel_type() -> &'static Type {
        &REGEX
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for RegexValue {}

/// The regular expressions of one expression.
#[derive(Debug, Default)]
pub(crate) struct Regexes(Vec<RegexValue>);

impl Regexes {
    /// Compiles the regular expressions of a checked expression, and replaces them by variables.
    pub(super) fn extract(expression: &mut IdedExpr) -> Result<Self, String> {
        let mut found = Self::default();
        found.take(expression)?;
        Ok(found)
    }

    fn take(&mut self, part: &mut IdedExpr) -> Result<(), String> {
        match &mut part.expr {
            Expr::Call(call) => {
                if call.func_name == MATCHES
                    && let [argument] = call.args.as_mut_slice()
                    && let Expr::Literal(LiteralValue::String(pattern)) = &argument.expr
                {
                    let regex = compile(pattern.inner())?;
                    argument.expr = Expr::Ident(format!("{VARIABLE}{}", self.0.len()));
                    self.0.push(RegexValue(regex));
                }
                let parts = call.target.as_deref_mut().into_iter();
                parts.chain(&mut call.args).try_for_each(|it| self.take(it))
            }
            Expr::List(list) => list.elements.iter_mut().try_for_each(|it| self.take(it)),
            Expr::Comprehension(it) => [
                &mut it.iter_range,
                &mut it.accu_init,
                &mut it.loop_cond,
                &mut it.loop_step,
                &mut it.result,
            ]
            .into_iter()
            .try_for_each(|it| self.take(it)),
            _ => Ok(()),
        }
    }

    /// One that may outgrow its cache, for a message; `None` if there is none.
    pub(super) fn slow(&self) -> Option<String> {
        let mut sources = self.0.iter().flat_map(|it| it.0.patterns());
        let slow = sources.find(|it| simulated_states(it) > 0)?;
        Some(patterns::named(slow))
    }

    /// The value of a variable that stands for a regular expression.
    pub(super) fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let index: usize = variable.strip_prefix(VARIABLE)?.parse().ok()?;
        let regex = self.0.get(index)?;
        Some(CowVal::Borrowed(regex as &dyn Val))
    }
}

/// Whether this variable stands for a regular expression.
pub(super) fn is_regex(variable: &str) -> bool {
    variable.starts_with(VARIABLE)
}

/// Compiles a regular expression; the error is a short explanation.
pub(super) fn compile(pattern: &str) -> Result<RegexSet, String> {
    compile_pattern(pattern, MAX_REGEX_BYTES, MAX_DFA_BYTES)
}

/// How many states matching may simulate for each byte; 0 if its time does not depend on that.
pub(super) fn simulated_states(pattern: &str) -> u64 {
    patterns::simulated_states(pattern, MAX_DFA_BYTES)
}

/// Declares `matches`.
pub(super) fn extension(env: &mut Env) -> Result<(), DeclarationError> {
    let arguments = vec![Type::new_unspecified_type(REGEX_NAME)];
    env.add_member_overload(
        MATCHES,
        "string.matches(regex)",
        STRING_TYPE,
        arguments,
        matches,
    )
}

fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let [text, regex] = arguments.as_slice() else {
        return Err(ExecutionError::invalid_argument_count(2, arguments.len()));
    };
    let text = text.as_ref().downcast_ref::<CelString<'_>>();
    let regex = regex.as_ref().downcast_ref::<RegexValue>();
    match (text, regex) {
        (Some(text), Some(RegexValue(regex))) => {
            Ok(CowVal::owned(CelBool::from(regex.is_match(text.inner()))))
        }
        _ => Err(ExecutionError::function_error(MATCHES, "not a string")),
    }
}
