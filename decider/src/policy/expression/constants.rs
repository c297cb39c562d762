//! The parts of an expression without variables. They have the same result for every request, so one that fails always does.

use cel::common::ast::{Expr, IdedExpr};

use super::regexes::is_regex;

/// The largest calls and loops without variables.
pub(super) fn constants(part: &IdedExpr) -> Vec<&IdedExpr> {
    match &part.expr {
        Expr::Call(_) | Expr::Comprehension(_) if is_constant(part, &[]) => vec![part],
        _ => children(part).into_iter().flat_map(constants).collect(),
    }
}

/// Whether a part has no variables except these, which a loop around it binds.
fn is_constant(part: &IdedExpr, bound: &[&str]) -> bool {
    match &part.expr {
        Expr::Ident(name) => bound.contains(&name.as_str()) || is_regex(name),
        Expr::Comprehension(it) => {
            let inside = [it.iter_var.as_str(), &it.accu_var];
            let [range, body @ ..] = [
                &it.iter_range,
                &it.accu_init,
                &it.loop_cond,
                &it.loop_step,
                &it.result,
            ];
            is_constant(range, bound) && body.iter().all(|it| is_constant(it, &inside))
        }
        _ => children(part).iter().all(|it| is_constant(it, bound)),
    }
}

fn children(part: &IdedExpr) -> Vec<&IdedExpr> {
    match &part.expr {
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Comprehension(it) => vec![
            &it.iter_range,
            &it.accu_init,
            &it.loop_cond,
            &it.loop_step,
            &it.result,
        ],
        _ => Vec::new(),
    }
}
