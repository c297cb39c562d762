//! The operands of operators: which types fit, and how to convert those that don't.

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::{
    super::types::{OPERATORS, Type},
    Checker, MAX_QUOTED_BYTES,
};

impl<'e> Checker<'e> {
    pub(super) fn operator(
        &mut self,
        part: &'e IdedExpr,
        name: &str,
        operands: [(&IdedExpr, &Type); 2],
    ) -> Type {
        let [(_, left), (_, right)] = operands;
        let fitting = OPERATORS
            .iter()
            .find(|(operator, l, r, _)| *operator == name && l.fits(left) && r.fits(right));
        match fitting {
            Some((.., result)) => result.clone(),
            None => {
                let message = match name.trim_matches('_') {
                    "<" | "<=" | ">" | ">=" => self.mismatch("compare", "with", operands),
                    symbol => self.mismatch(&format!("apply {symbol} to"), "and", operands),
                };
                self.refuse(part, message, self.conversion(operands))
            }
        }
    }

    /// Names the types of two operands, and their source where that is short.
    pub(super) fn mismatch(
        &self,
        verb: &str,
        link: &str,
        operands: [(&IdedExpr, &Type); 2],
    ) -> String {
        let [left, right] = operands.map(|(part, found)| match self.text(part) {
            Some(text) if text.len() <= MAX_QUOTED_BYTES => format!("{found} ({text})"),
            _ => found.to_string(),
        });
        format!("cannot {verb} {left} {link} {right}")
    }

    /// How to give two operands the same type.
    pub(super) fn conversion(&self, operands: [(&IdedExpr, &Type); 2]) -> String {
        let [(first, left), (second, right)] = operands;
        let [first_text, second_text] = [first, second].map(|part| {
            let text = self
                .text(part)
                .filter(|text| text.len() <= MAX_QUOTED_BYTES);
            text.unwrap_or("…")
        });
        let integer_first = *left == Type::Int;
        match (left, right) {
            (Type::String, Type::Int) if let Some(number) = quoted_integer(first) => {
                format!("write {number} without quotes")
            }
            (Type::Int, Type::String) if let Some(number) = quoted_integer(second) => {
                format!("write {number} without quotes")
            }
            (Type::Double, Type::Int) | (Type::Int, Type::Double) => {
                let integer = if integer_first {
                    first_text
                } else {
                    second_text
                };
                format!("write both numbers with a fraction: double({integer})")
            }
            (Type::String, Type::Int) | (Type::Int, Type::String) => {
                let (integer, string) = if integer_first {
                    (first_text, second_text)
                } else {
                    (second_text, first_text)
                };
                format!("convert one of them: int({string}), or string({integer})")
            }
            (Type::Timestamp, Type::String) | (Type::String, Type::Timestamp) => {
                "write a time as timestamp('2026-01-01T00:00:00Z')".to_owned()
            }
            (Type::Duration, Type::String) | (Type::String, Type::Duration) => {
                "write a duration as duration('1h')".to_owned()
            }
            (Type::Ids, _) => format!("test whether an ID is in the list, with: in {first_text}"),
            (_, Type::Ids) => format!("test whether an ID is in the list, with: in {second_text}"),
            _ => "use two values of the same type".to_owned(),
        }
    }
}

pub(super) fn is_operator(name: &str) -> bool {
    OPERATORS.iter().any(|(operator, ..)| *operator == name)
}

fn quoted_integer(part: &IdedExpr) -> Option<i64> {
    match &part.expr {
        Expr::Literal(LiteralValue::String(text)) => text.inner().parse().ok(),
        _ => None,
    }
}
