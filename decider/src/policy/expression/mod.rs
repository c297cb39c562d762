//! Expressions in CEL, the Common Expression Language. Only this module uses the `cel` crate.
//!
//! A compiled expression uses only known variables and functions and is of type bool: [`check`] checks the types, as the crate
//! has no type checker. Only values can fail at run time: a division by zero, an overflow, a string that is not a number.

mod check;
mod constants;
mod cost;
mod regexes;
mod types;
mod values;

pub(super) use values::{Inputs, ListValues};

use std::{
    sync::{Arc, LazyLock},
    thread,
};

use cel::{
    Context, Env, ExecutionError, IdedExpr, ParseError, Value,
    common::ast::{CallExpr, Expr},
    extensions,
};
use check::{Checker, MAX_DEPTH};
use regexes::Regexes;
use types::Type;

use super::units::{Cost, MAX_EVALUATION, MAX_ID_BYTES};

/// The maximum length of an expression, in bytes. It also limits the parser's recursion and the cost of an evaluation.
pub(super) const MAX_SOURCE_BYTES: usize = 1024;
/// The stack of the thread that parses. The deepest nesting that fits into [`MAX_SOURCE_BYTES`] needs between 8 and
/// 16 MiB in a debug build; untouched pages cost nothing.
const PARSER_STACK_BYTES: usize = 64 << 20;
/// The maximum number of parse errors that are reported: the first usually causes the others.
const MAX_PARSE_ERRORS: usize = 1;

/// Which variables an expression may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those of the request.
    Request,
    /// Those of the request, and `friend`.
    Friend,
}

/// A compiled expression of type bool.
#[derive(Debug)]
pub(super) struct Expression {
    source: String,
    /// The expression, with variables in place of its regular expressions.
    root: IdedExpr,
    regexes: Regexes,
    cost: Cost,
    /// Whether it can fail at run time.
    pub(super) can_fail: bool,
    /// Its value, if that does not depend on any variable.
    pub(super) constant: Option<bool>,
}

/// An error in an expression.
#[derive(Debug, PartialEq)]
pub(super) struct ExpressionError {
    /// The first character and the number of characters; `None` for the whole expression.
    pub(super) place: Option<(usize, usize)>,
    pub(super) message: String,
    pub(super) remedy: String,
}

/// Whether this name is not available for a list, because expressions use it for something else.
pub(super) fn is_reserved(name: &str) -> bool {
    reserved_names().any(|reserved| reserved == name)
}

/// The names that are not available for lists.
pub(super) fn reserved_names() -> impl Iterator<Item = &'static str> {
    let variables = types::VARIABLES.iter().map(|(variable, _)| *variable);
    variables.chain([check::FRIEND]).chain(KEYWORDS)
}

/// Whether `name` has the form of a variable.
pub(super) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next();
    first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// CEL's reserved words and type names.
const KEYWORDS: [&str; 38] = [
    "as",
    "bool",
    "break",
    "bytes",
    "const",
    "continue",
    "double",
    "duration",
    "dyn",
    "else",
    "false",
    "for",
    "function",
    "google",
    "if",
    "import",
    "in",
    "int",
    "let",
    "list",
    "loop",
    "map",
    "math",
    "namespace",
    "null",
    "null_type",
    "optional",
    "optional_type",
    "package",
    "return",
    "string",
    "timestamp",
    "true",
    "type",
    "uint",
    "var",
    "void",
    "while",
];

impl Expression {
    /// Parses and checks an expression that may use `lists`.
    pub(super) fn compile(
        source: &str,
        scope: Scope,
        lists: &ListValues,
    ) -> Result<Self, Vec<ExpressionError>> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(vec![ExpressionError::of_all(
                format!(
                    "this expression has {} bytes; the maximum is {MAX_SOURCE_BYTES}",
                    source.len()
                ),
                "split it into several rules, or put IDs into a list",
            )]);
        }
        // Parser, checker and destructor recurse as deep as the expression is nested, which is known only after parsing.
        thread::scope(|threads| {
            let thread = thread::Builder::new()
                .name("expression".to_owned())
                .stack_size(PARSER_STACK_BYTES)
                .spawn_scoped(threads, || Self::compile_here(source, scope, lists));
            let joined = thread.map(|thread| thread.join());
            match joined {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(vec![ExpressionError::of_all(
                    "this expression cannot be parsed",
                    "simplify it",
                )]),
                Err(error) => Err(vec![ExpressionError::of_all(
                    format!("cannot start a thread to parse this expression: {error}"),
                    "raise the thread or memory limit",
                )]),
            }
        })
    }

    fn compile_here(
        source: &str,
        scope: Scope,
        lists: &ListValues,
    ) -> Result<Self, Vec<ExpressionError>> {
        let program = ENVIRONMENT.compile(source).map_err(|errors| {
            let errors = errors.errors.iter().take(MAX_PARSE_ERRORS);
            errors
                .map(|error| ExpressionError::of_parsing(source, error))
                .collect::<Vec<_>>()
        })?;
        let mut checker = Checker::new(source, &program, scope, lists);
        let found = checker.check(program.expression());
        let (depends, can_fail) = (checker.uses_variables, checker.can_fail);
        let mut errors = std::mem::take(&mut checker.errors);
        if errors.is_empty() && found != Type::Bool {
            errors.push(ExpressionError::of_all(
                format!("this expression is of type {found}, but a rule needs bool"),
                check::comparison(Some(source), &found),
            ));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let cost = cost::cost(program.expression(), lists);
        let units = cost.units(MAX_ID_BYTES);
        if units > MAX_EVALUATION {
            return Err(vec![ExpressionError::of_all(
                format!(
                    "one evaluation of this expression costs {units} units; the maximum is {MAX_EVALUATION}"
                ),
                "split it into several rules, or put IDs into a list; avoid lists and conversions in loops",
            )]);
        }
        let mut root = program.expression().clone();
        let regexes = Regexes::extract(&mut root)
            .map_err(|why| vec![ExpressionError::of_all(why, "simplify it")])?;
        let mut expression = Self {
            source: source.to_owned(),
            root,
            regexes,
            cost,
            can_fail,
            constant: None,
        };
        if !depends {
            expression.constant = Some(expression.without_request(lists)?);
            return Ok(expression);
        }
        for (part, why) in expression.failing_constants(lists) {
            checker.error(
                part,
                format!("this always fails: {why}"),
                "correct it, or use a variable of the request",
            );
        }
        match checker.errors.is_empty() {
            true => Ok(expression),
            false => Err(checker.errors),
        }
    }

    /// The parts that do not depend on the request and fail, and why. They may be behind a condition that is rarely true, so that no
    /// test of the policy finds them.
    fn failing_constants(&self, lists: &ListValues) -> Vec<(&IdedExpr, String)> {
        let inputs = Inputs::without_request(lists);
        let constants = constants::constants(&self.root).into_iter();
        let fails = constants.filter_map(|part| {
            let error = self.execute(part, &inputs, None).err()?;
            Some((part, brief(&error)))
        });
        fails.collect()
    }

    /// Whether it refers to `list`.
    pub(super) fn uses(&self, list: &str) -> bool {
        self.root.references().has_variable(list)
    }

    /// Evaluates an expression that does not depend on the request. If that fails, it always does.
    fn without_request(&self, lists: &ListValues) -> Result<bool, Vec<ExpressionError>> {
        let value = self.evaluate(&Inputs::without_request(lists), None);
        value.map_err(|why| {
            vec![ExpressionError::of_all(
                format!("this expression always fails: {why}"),
                "correct it, or use a variable of the request",
            )]
        })
    }

    /// The maximum cost of one evaluation.
    pub(super) fn cost(&self) -> Cost {
        self.cost
    }

    /// One of its regular expressions that may outgrow its cache, for a message; `None` if there is none.
    pub(super) fn slow_pattern(&self) -> Option<String> {
        self.regexes.slow()
    }

    /// Evaluates it, or returns the reason for the failure. An evaluation cannot be interrupted, but costs at most [`MAX_EVALUATION`].
    pub(super) fn evaluate(
        &self,
        inputs: &Inputs<'_>,
        friend: Option<&str>,
    ) -> Result<bool, String> {
        match self.execute(&self.root, inputs, friend) {
            Ok(Value::Bool(value)) => Ok(value),
            Ok(other) => Err(format!("it returned {}", other.type_of())),
            Err(error) => Err(brief(&error)),
        }
    }

    fn execute(
        &self,
        part: &IdedExpr,
        inputs: &Inputs<'_>,
        friend: Option<&str>,
    ) -> Result<Value, ExecutionError> {
        let resolver = inputs.resolver(friend, &self.regexes);
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(&resolver);
        Value::resolve(part, &context)
    }

    /// Its source in the policy.
    pub(super) fn source(&self) -> &str {
        &self.source
    }
}

/// CEL's standard library without optional values, its string functions, and `matches`. The checker accepts only a part of it.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(false);
    for extension in [extensions::strings, regexes::extension] {
        // Fails only if the name is already defined. A test calls every function.
        let _ = env.add_extension(extension);
    }
    Arc::new(env)
});

/// Whether a call without variables evaluates without an error.
fn evaluates(call: CallExpr) -> bool {
    let root = IdedExpr {
        id: 0,
        expr: Expr::Call(call),
    };
    let context = Context::with_env(Arc::clone(&ENVIRONMENT));
    Value::resolve(&root, &context).is_ok()
}

impl ExpressionError {
    fn of_all(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            place: None,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    fn of_parsing(source: &str, error: &ParseError) -> Self {
        let message = error
            .msg
            .strip_prefix("Syntax error: ")
            .unwrap_or(&error.msg);
        // The parser lists every token that could have come next.
        let message = message.split(" expecting ").next().unwrap_or(message);
        let message = message.replace("<EOF>", "the end");
        let (line, column) = error.pos;
        let before: usize = source
            .split_inclusive('\n')
            .take(usize::try_from(line - 1).unwrap_or_default())
            .map(|line| line.chars().count())
            .sum();
        let start = before + usize::try_from(column - 1).unwrap_or_default();
        Self {
            place: Some((start, 1)),
            message: format!("invalid expression: {message}"),
            remedy: syntax_remedy(source, &error.msg),
        }
    }
}

/// How to correct an expression that cannot be parsed.
fn syntax_remedy(source: &str, message: &str) -> String {
    let bare = without_strings(source);
    let words = words(&bare);
    let is = |word: &&str, expected: &str| word.eq_ignore_ascii_case(expected);
    if words
        .windows(2)
        .any(|pair| is(&pair[0], "not") && is(&pair[1], "in"))
    {
        return "write !(… in …) for \"not in\"".to_owned();
    }
    let operators = operators(&bare);
    let foreign = OTHER_LANGUAGES.iter().find(|(foreign, _)| {
        words.iter().any(|word| is(word, foreign)) || operators.contains(foreign)
    });
    if let Some((foreign, operator)) = foreign {
        return format!("write {operator} for \"{foreign}\"");
    }
    if bare.contains(['“', '”', '„', '‘', '’']) {
        return "write straight quotes, \" or '; text copied from web pages may have others"
            .to_owned();
    }
    if source.contains('\\') {
        return "put an r before a string with \\, as in r'^\\d+$'; otherwise it starts an escape sequence"
            .to_owned();
    }
    if ["recursion", "nest", "depth"]
        .iter()
        .any(|it| message.contains(it))
    {
        return format!("use at most {MAX_DEPTH} levels of operators, brackets and calls");
    }
    "check the operators, brackets and quotes; operators are &&, ||, !, ==, !=, <, <=, >, >=, in"
        .to_owned()
}

/// Operators of other languages, and their equivalents in CEL.
const OTHER_LANGUAGES: [(&str, &str); 15] = [
    ("and", "&&"),
    ("or", "||"),
    ("not", "!"),
    ("like", ".startsWith('…'), .endsWith('…') or .contains('…')"),
    ("<>", "!="),
    ("===", "=="),
    ("!==", "!="),
    ("=>", ">="),
    ("=<", "<="),
    ("=~", ".matches('…')"),
    ("~", ".matches('…')"),
    ("!~", "! before it and .matches('…')"),
    ("=", "=="),
    ("&", "&&"),
    ("|", "||"),
];

/// Replaces every character within a string by a blank.
fn without_strings(source: &str) -> String {
    let mut quote = None;
    let mut escaped = false;
    let visible = source.chars().map(|c| {
        match (quote, c) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if open == c => {
                quote = None;
                return ' ';
            }
            (None, '"' | '\'') => quote = Some(c),
            _ => {}
        }
        if quote.is_some() { ' ' } else { c }
    });
    visible.collect()
}

/// The words of an expression without strings.
fn words(bare: &str) -> Vec<&str> {
    let words = bare.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    words.filter(|word| !word.is_empty()).collect()
}

/// The operators of an expression without strings, of those that consist of these characters.
fn operators(bare: &str) -> Vec<&str> {
    let operators = bare.split(|c: char| !matches!(c, '=' | '!' | '<' | '>' | '&' | '|' | '~'));
    operators.filter(|operator| !operator.is_empty()).collect()
}

/// Describes the error without its values, whose length a caller controls.
fn brief(error: &ExecutionError) -> String {
    match error {
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number or time is too large".to_owned(),
        // The types are right, so this is a comparison with NaN.
        ExecutionError::NoSuchOverload(_) => "a value to compare is not a number (NaN)".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "no such element in the list".to_owned(),
        // These messages quote the argument.
        ExecutionError::FunctionError { function, message } => match function.as_str() {
            "timezone" => "unknown time zone".to_owned(),
            "duration" => "not a duration".to_owned(),
            _ => {
                let message: String = message.chars().take(120).collect();
                format!("{function}: {message}")
            }
        },
        other => other.to_string().chars().take(120).collect(),
    }
}

#[cfg(test)]
mod tests;
