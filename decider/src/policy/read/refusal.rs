use super::super::{
    diagnostic::{Report, Spanned},
    document::RefusalDefinition,
    fields::{Fields, any_text, integer, text},
    yaml::Node,
};

/// The maximum lengths of a refusal's message and detail, in bytes. Both are part of every response and event of the rule.
const MAX_MESSAGE_BYTES: usize = 256;
const MAX_DETAIL_BYTES: usize = 1024;

/// An example of the syntax.
pub(super) const EXAMPLE: &str = "{ code: 5001, message: \"User not allowed to import friends\" }";

pub(super) fn refusal(node: Node, report: &mut Report<'_>) -> Option<RefusalDefinition> {
    let mut fields = Fields::open(node, "a refusal", EXAMPLE, report)?;
    let remedy = "add \"code: 5001\": OpenIM's errCode, 5000 to 9999 except 5900 to 5999";
    let code = fields.required("code", remedy, report, refusal_code);
    let remedy = "add \"message: …\": OpenIM's errMsg, a short sentence";
    let message = fields.required("message", remedy, report, |node, report| {
        bounded(text(node, report)?, MAX_MESSAGE_BYTES, report)
    });
    let detail = fields.optional("detail", report, |node, report| {
        bounded(any_text(node, report)?, MAX_DETAIL_BYTES, report)
    });
    fields.close(report);
    Some(RefusalDefinition {
        code: code?,
        message: message?,
        detail: detail.unwrap_or_default(),
    })
}

/// Reads an `errCode` that a policy may use: 5000–9999, the range that OpenIM reserves for callbacks, except 5900–5999, which are
/// importguard's own failures.
fn refusal_code(node: Node, report: &mut Report<'_>) -> Option<i32> {
    let code = integer(node, report)?;
    let valid = match code.value {
        5000..=5899 | 6000..=9999 => i32::try_from(code.value).ok(),
        _ => None,
    };
    if valid.is_none() {
        let why = if (5900..=5999).contains(&code.value) {
            "is reserved for importguard's own failures"
        } else {
            "is outside OpenIM's range for callbacks"
        };
        report.error(
            code.span,
            format!("the code {} {why}", code.value),
            "choose a code from 5000 to 5899 or 6000 to 9999",
        );
    }
    valid
}

fn bounded(text: Spanned<String>, max: usize, report: &mut Report<'_>) -> Option<String> {
    if text.value.len() > max {
        report.error(
            text.span,
            format!(
                "this string has {} bytes; the maximum is {max}",
                text.value.len()
            ),
            "shorten it",
        );
        return None;
    }
    Some(text.value)
}
