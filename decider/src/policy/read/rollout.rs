use super::super::{
    diagnostic::Report,
    document::{Otherwise, RolloutDefinition, RuleMode},
    fields::{Fields, integer, word},
    yaml::{Node, Value},
};

const EXAMPLE: &str = "{ percent: 10, otherwise: shadow }";

/// A percentage, or a mapping that also specifies what the rule does for the other owners.
pub(super) fn rollout(
    node: Node,
    mode: RuleMode,
    report: &mut Report<'_>,
) -> Option<RolloutDefinition> {
    if !matches!(node.value, Value::Mapping(_)) {
        return per_cent(node, "rollout", report).map(|percent| RolloutDefinition {
            percent,
            otherwise: Otherwise::Off,
        });
    }
    let mut fields = Fields::open(node, "rollout", EXAMPLE, report)?;
    let remedy = "add \"percent: 10\", the percentage of owners that the rule applies to";
    let percent = fields.required("percent", remedy, report, |node, report| {
        per_cent(node, "percent", report)
    });
    let otherwise = fields.take("otherwise").and_then(|entry| {
        let words = [("shadow", Otherwise::Shadow), ("off", Otherwise::Off)];
        let otherwise = word(entry.value, "otherwise", &words, report)?;
        if (otherwise, mode) == (Otherwise::Shadow, RuleMode::Shadow) {
            report.error(
                entry.key_span,
                "the rule is in shadow for all owners: it has \"mode: shadow\"",
                "remove the mode, so that the rule is enforced for its percentage of owners",
            );
        }
        Some(otherwise)
    });
    fields.close(report);
    Some(RolloutDefinition {
        percent: percent?,
        otherwise: otherwise.unwrap_or_default(),
    })
}

fn per_cent(node: Node, key: &str, report: &mut Report<'_>) -> Option<u8> {
    let per_cent = integer(node, report)?;
    let valid = u8::try_from(per_cent.value).ok().filter(|&it| it <= 100);
    if valid.is_none() {
        report.error(
            per_cent.span,
            format!("{key} is {}; it must be 0 to 100", per_cent.value),
            "write the percentage of owners that the rule applies to",
        );
    }
    valid
}
