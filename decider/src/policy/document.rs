//! The structure of a policy file. The JSON Schema for editors is generated from these types, so the comments on fields
//! are written for policy authors.

use std::collections::BTreeMap;

use importguard_yaml::document::{MAX_NAME_BYTES, one_of, with_api_version};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::{
    diagnostic::Spanned,
    expression::reserved_names,
    read::{DUPLICATE, NOBODY_LEFT, SELF},
};
use crate::lists::Fold;

/// The action keys, of which a rule has exactly one. `read/rule.rs` relies on the order. docs/ARCHITECTURE.md has what to do for a new one.
pub(super) const KINDS: [&str; 5] = [
    "refuseOwner",
    "dropFriends",
    "limitFriends",
    "refuseIf",
    "dropFriendIf",
];

/// The keys that only a list with a file may have.
pub(super) const FILE_KEYS: [&str; 3] = ["allowEmpty", "allowShrink", "atLeast"];

/// The JSON Schema of policy files, as committed next to the policy.
pub fn json_schema() -> String {
    importguard_yaml::document::json_schema::<Document>()
}

/// An importguard policy: which friend imports are allowed, refused or shortened.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Policy", rename_all = "camelCase", deny_unknown_fields, transform = with_api_version)]
pub(super) struct Document {
    /// Name of the policy in events.
    #[schemars(length(max = 64), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub(super) name: String,
    /// Lists of user IDs by name, for use in rules.
    #[schemars(with = "Option<BTreeMap<String, ListDefinition>>", extend("propertyNames" = list_names()))]
    pub(super) lists: Vec<ListDefinition>,
    /// Rules in evaluation order: a refusal ends the evaluation; a filter shortens the list for the rules after it.
    #[schemars(length(max = 256))]
    pub(super) rules: Vec<RuleDefinition>,
    /// The answer when every requested friend was removed.
    pub(super) nobody_left: Option<RefusalDefinition>,
}

/// User IDs: in a file or inline, and in a bucket of NATS that changes while the decider runs.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "List", rename_all = "camelCase", deny_unknown_fields, transform = with_one_source)]
pub(super) struct ListDefinition {
    #[schemars(skip)]
    pub(super) name: Spanned<String>,
    /// File with one ID per line, relative to the policy's directory. Lines that start with # are comments.
    #[schemars(regex(pattern = r"\S"))]
    pub(super) file: Option<Spanned<String>>,
    /// The IDs, at least one.
    #[schemars(length(min = 1), inner(length(max = 256), regex(pattern = r"\S")))]
    pub(super) values: Option<Vec<String>>,
    /// Name of a live list: its entries are in the bucket IMPORTGUARD_LISTS, and `importguard list` changes them. They count beside
    /// those of the file or the values, if there are any.
    #[schemars(length(max = 64), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9_-]*$"))]
    pub(super) live: Option<Spanned<String>>,
    /// Another list: IDs in it are not in this one.
    #[schemars(regex(pattern = r"\S"))]
    pub(super) unless: Option<Spanned<String>>,
    /// enforce: the list counts; shadow: rules only report what they would have done because of it.
    #[schemars(with = "Option<ListMode>")]
    pub(super) mode: ListMode,
    /// Whether the file may have no IDs. Otherwise that is an error, and a decider that runs keeps the list it has.
    #[schemars(with = "Option<bool>")]
    pub(super) allow_empty: bool,
    /// Whether a decider that runs accepts a file with less than half of the IDs, or with an unfinished last line, without a
    /// confirmation by SIGHUP.
    #[schemars(with = "Option<bool>")]
    pub(super) allow_shrink: bool,
    /// Minimum number of IDs in the file; fewer are an error, also when a decider starts.
    #[schemars(range(min = 1), with = "Option<u64>")]
    pub(super) at_least: Option<Spanned<u64>>,
    /// Differences between IDs that do not count. case: upper and lower case; space: white space. By default, IDs are compared
    /// byte by byte.
    #[schemars(with = "Option<Vec<FoldKind>>", length(min = 1), extend("uniqueItems" = true))]
    pub(super) fold: Fold,
}

/// Whether a list counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub(super) enum ListMode {
    #[default]
    Enforce,
    Shadow,
}

/// A difference between IDs that does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub(super) enum FoldKind {
    Case,
    Space,
}

/// A rule: its action and its conditions.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Rule", rename_all = "camelCase", deny_unknown_fields, transform = with_one_kind)]
pub(super) struct RuleDefinition {
    /// ID of the rule in events. Not self, duplicate or nobodyLeft, which are built in.
    #[schemars(length(max = 64), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$"), extend("not" = built_in_rules()))]
    pub(super) id: Spanned<String>,
    /// Purpose of the rule.
    pub(super) description: Option<String>,
    /// Refuses the import if the owner matches.
    pub(super) refuse_owner: Option<MatcherDefinition>,
    /// Removes each friend that matches.
    pub(super) drop_friends: Option<MatcherDefinition>,
    /// Limits the number of friends per import. Friends that earlier rules removed do not count.
    pub(super) limit_friends: Option<LimitDefinition>,
    /// Refuses the import if this CEL expression is true.
    #[schemars(length(max = 1024), regex(pattern = r"\S"))]
    pub(super) refuse_if: Option<Spanned<String>>,
    /// Removes each friend for which this CEL expression is true.
    #[schemars(length(max = 1024), regex(pattern = r"\S"))]
    pub(super) drop_friend_if: Option<Spanned<String>>,
    /// The rule is evaluated only if this CEL expression is true.
    #[schemars(length(max = 1024), regex(pattern = r"\S"))]
    pub(super) when: Option<Spanned<String>>,
    /// enforce: the rule acts; shadow: it only reports what it would have done; off: it is not evaluated.
    #[schemars(default)]
    pub(super) mode: RuleMode,
    /// Percentage of owners that the rule applies to, selected by a stable hash of rule ID and owner; or also what it does for
    /// the others.
    #[schemars(default, schema_with = "rollout_schema")]
    pub(super) rollout: Option<RolloutDefinition>,
    /// What happens when an expression of the rule fails at run time: refuse (the default), or skip the rule. Not needed if it
    /// cannot fail.
    pub(super) on_error: Option<OnErrorDefinition>,
    /// The answer when this rule refuses.
    pub(super) refusal: Option<RefusalDefinition>,
}

/// For which owners a rule acts.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(rename = "Rollout", rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RolloutDefinition {
    /// Percentage of owners that the rule applies to.
    #[schemars(range(min = 0, max = 100))]
    pub(super) percent: u8,
    /// off: the rule is not evaluated for the others; shadow: it only reports what it would have done for them.
    #[schemars(default)]
    pub(super) otherwise: Otherwise,
}

/// What a rule does for owners outside its rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub(super) enum Otherwise {
    #[default]
    Off,
    Shadow,
}

fn rollout_schema(generator: &mut SchemaGenerator) -> Schema {
    let long = generator.subschema_for::<RolloutDefinition>();
    json_schema!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 100 }, long] })
}

/// Whether a rule acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename = "Mode", rename_all = "camelCase", inline)]
pub(super) enum RuleMode {
    #[default]
    Enforce,
    Shadow,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename = "OnError", rename_all = "camelCase", inline)]
pub(super) enum OnErrorDefinition {
    Skip,
    Refuse,
}

/// Which IDs a rule applies to: those that match any of the keys. A key that starts with not matches IDs that none of its values
/// fits.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Matcher", rename_all = "camelCase", deny_unknown_fields, extend("minProperties" = 1))]
pub(super) struct MatcherDefinition {
    /// IDs in this list.
    #[schemars(rename = "in", regex(pattern = r"\S"))]
    pub(super) in_list: Option<Spanned<String>>,
    /// IDs that are not in this list.
    #[schemars(regex(pattern = r"\S"))]
    pub(super) not_in: Option<Spanned<String>>,
    /// IDs that start with one of these strings.
    #[schemars(
        with = "Option<Vec<String>>",
        length(min = 1, max = 64),
        inner(regex(pattern = r"\S"))
    )]
    pub(super) prefixes: Vec<String>,
    /// IDs that end with one of these strings.
    #[schemars(
        with = "Option<Vec<String>>",
        length(min = 1, max = 64),
        inner(regex(pattern = r"\S"))
    )]
    pub(super) suffixes: Vec<String>,
    /// IDs that contain a match of one of these regular expressions; anchor them with ^ and $.
    #[schemars(
        with = "Option<Vec<String>>",
        length(min = 1, max = 64),
        inner(length(max = 256), regex(pattern = r"\S"))
    )]
    pub(super) matches: Vec<Spanned<String>>,
    /// IDs that start with none of these strings.
    #[schemars(
        with = "Option<Vec<String>>",
        length(min = 1, max = 64),
        inner(regex(pattern = r"\S"))
    )]
    pub(super) not_prefixes: Vec<String>,
    /// IDs that end with none of these strings.
    #[schemars(
        with = "Option<Vec<String>>",
        length(min = 1, max = 64),
        inner(regex(pattern = r"\S"))
    )]
    pub(super) not_suffixes: Vec<String>,
    /// IDs in which none of these regular expressions is found; anchor them with ^ and $.
    #[schemars(
        with = "Option<Vec<String>>",
        length(min = 1, max = 64),
        inner(length(max = 256), regex(pattern = r"\S"))
    )]
    pub(super) not_matches: Vec<Spanned<String>>,
}

/// A limit on the number of friends per import.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Limit", rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct LimitDefinition {
    /// Maximum number of friends per import.
    #[schemars(range(min = 1, max = u32::MAX))]
    pub(super) max: u32,
    /// truncate: import only the first ones; refuse: refuse the import.
    pub(super) on_exceed: OnExceed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "camelCase", inline)]
pub(super) enum OnExceed {
    Truncate,
    Refuse,
}

/// The answer to OpenIM when an import is refused.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(rename = "Refusal", rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RefusalDefinition {
    /// OpenIM's errCode: 5000 to 9999 except 5900 to 5999, which are importguard's own failures.
    #[schemars(schema_with = "code_schema")]
    pub(super) code: i32,
    /// OpenIM's errMsg: a short sentence.
    #[schemars(length(max = 256), regex(pattern = r"\S"))]
    pub(super) message: String,
    /// OpenIM's errDlt: details.
    #[schemars(with = "Option<String>", length(max = 1024))]
    pub(super) detail: String,
}

fn code_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "minimum": 5000, "maximum": 9999, "not": { "minimum": 5900, "maximum": 5999 } })
}

fn list_names() -> Value {
    let reserved: Vec<_> = reserved_names().collect();
    json!({
        "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
        "maxLength": MAX_NAME_BYTES,
        "not": { "pattern": format!("^({})$", reserved.join("|")) },
    })
}

fn built_in_rules() -> Value {
    json!({ "enum": [SELF, DUPLICATE, NOBODY_LEFT] })
}

fn with_one_source(schema: &mut Schema) {
    schema.insert("anyOf".to_owned(), one_of(&["file", "values", "live"]));
    let contradictions = json!({ "anyOf": [
        { "required": ["file", "values"] },
        { "required": ["fold", "live"] },
        { "required": ["allowEmpty", "atLeast"], "properties": { "allowEmpty": { "const": true } } },
    ] });
    schema.insert("not".to_owned(), contradictions);
    let of_files = FILE_KEYS.map(|key| (key.to_owned(), json!(["file"])));
    let dependencies = serde_json::Map::from_iter(of_files);
    schema.insert("dependencies".to_owned(), dependencies.into());
}

fn with_one_kind(schema: &mut Schema) {
    schema.insert("oneOf".to_owned(), one_of(&KINDS));
    let shadow = json!({ "const": "shadow" });
    let always_in_shadow = json!({
        "required": ["mode", "rollout"],
        "properties": {
            "mode": shadow,
            "rollout": { "type": "object", "required": ["otherwise"], "properties": { "otherwise": shadow } },
        },
    });
    schema.insert("not".to_owned(), always_in_shadow);
    let refuses = json!({ "onExceed": { "const": "refuse" } });
    let skips =
        json!({ "required": ["onError"], "properties": { "onError": { "const": "skip" } } });
    let dependencies = json!({
        "refuseOwner": ["refusal"],
        "refuseIf": ["refusal"],
        "limitFriends": { "anyOf": [
            { "required": ["refusal"] },
            { "not": { "properties": { "limitFriends": { "properties": refuses } } } },
        ] },
        "onError": { "allOf": [
            { "anyOf": one_of(&["refuseIf", "dropFriendIf", "when"]) },
            { "anyOf": [skips, { "required": ["refusal"] }] },
        ] },
        "refusal": { "anyOf": [
            { "required": ["refuseOwner"] },
            { "required": ["refuseIf"] },
            { "required": ["limitFriends"], "properties": { "limitFriends": { "properties": refuses } } },
            { "anyOf": one_of(&["dropFriendIf", "when"]), "not": skips },
        ] },
    });
    schema.insert("dependencies".to_owned(), dependencies);
}
