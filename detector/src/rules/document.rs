//! The structure of a rules file. The JSON Schema for editors is generated from these types, so the comments on fields are written
//! for the authors of rules.

use importguard_yaml::document::{one_of, with_api_version};
use schemars::{JsonSchema, Schema};

/// The keys that define what is counted. A rule has exactly one of them.
pub(super) const KINDS: [&str; 2] = ["refusals", "differentFriends"];

/// Rules of importguard's detector: whose behaviour puts them on a live list.
#[derive(JsonSchema)]
#[schemars(rename = "DetectorRules", rename_all = "camelCase", deny_unknown_fields, transform = with_api_version)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Document {
    /// The rules. Each counts for itself, in file order.
    #[schemars(length(min = 1, max = 64))]
    rules: Vec<RuleDefinition>,
}

/// A rule: what is counted by owner, up to how many within which time, and what follows.
#[derive(JsonSchema)]
#[schemars(rename = "Rule", rename_all = "camelCase", deny_unknown_fields, transform = with_one_kind)]
#[expect(dead_code, reason = "only its schema is used")]
struct RuleDefinition {
    /// ID of the rule in the reason of entries and in metrics.
    #[schemars(length(max = 64), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    id: String,
    /// Purpose of the rule.
    description: Option<String>,
    /// The rule acts on this many refused imports of an owner.
    #[schemars(range(min = 1, max = 10_000))]
    refusals: Option<u32>,
    /// The rule acts when an owner has asked for this many different friends.
    #[schemars(range(min = 1, max = 100_000))]
    different_friends: Option<u32>,
    /// Within which time, by the time of the decisions: from 1s to 24h.
    within: String,
    /// Count only decisions that fit each of these keys.
    only: Option<Only>,
    /// Do not count decisions that fit any of these keys.
    except: Option<Except>,
    /// The live list that the owner is put on.
    #[schemars(length(max = 64), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*$"))]
    list: String,
    /// For how long, from the decision on that was one too many: from 1s to 365d.
    #[schemars(rename = "for")]
    duration: String,
    /// Whether decisions count while the owner is on the list, so that going on makes the entry last longer.
    prolong: Option<bool>,
}

/// Which decisions count.
#[derive(JsonSchema)]
#[schemars(rename = "Only", rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct Only {
    /// Decisions with one of these verdicts.
    #[schemars(length(min = 1))]
    verdicts: Option<Vec<VerdictWord>>,
    /// Decisions in which one of these rules of the policy refused or removed friends.
    #[schemars(length(min = 1))]
    rules: Option<Vec<String>>,
    /// Refusals with one of these codes.
    #[schemars(length(min = 1))]
    codes: Option<Vec<i64>>,
    /// Fallbacks for one of these causes. Without this key, no fallback counts: an outage is nobody's abuse.
    #[schemars(length(min = 1))]
    causes: Option<Vec<CauseWord>>,
}

/// Which decisions do not count.
#[derive(JsonSchema)]
#[schemars(rename = "Except", rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct Except {
    /// Decisions with one of these verdicts.
    #[schemars(length(min = 1))]
    verdicts: Option<Vec<VerdictWord>>,
    /// Decisions in which one of these rules of the policy refused or removed friends.
    #[schemars(length(min = 1))]
    rules: Option<Vec<String>>,
    /// Refusals with one of these codes.
    #[schemars(length(min = 1))]
    codes: Option<Vec<i64>>,
}

/// A verdict.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum VerdictWord {
    Allow,
    Modify,
    Refuse,
}

/// Why a fallback decided.
#[derive(JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum CauseWord {
    DeciderUnavailable,
    DeciderTimeout,
    DeciderFailed,
    Overloaded,
}

fn with_one_kind(schema: &mut Schema) {
    schema.insert("oneOf".to_owned(), one_of(&KINDS));
}
