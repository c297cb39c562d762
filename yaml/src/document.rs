//! The common parts of importguard's files: their version, names, and JSON Schemas for editors.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema};
use serde_json::{Value, json};

use crate::{
    diagnostic::{Report, Spanned, quoted},
    fields::text,
    yaml::{self, Node},
};

/// The supported format version.
const API_VERSION: &str = "importguard/v1";

/// The maximum length of a policy, rule or list name, in bytes. Names are part of every event and of metric labels.
pub const MAX_NAME_BYTES: usize = 64;

/// Reads `apiVersion`.
pub fn api_version(node: Node, report: &mut Report<'_>) -> Option<()> {
    let version = match &node.value {
        // Quotes would not make a number the version.
        yaml::Value::Scalar { text, .. } if !text.is_empty() => Spanned {
            value: text.clone(),
            span: node.span,
        },
        _ => text(node, report)?,
    };
    if version.value != API_VERSION {
        report.error(
            version.span,
            format!("unsupported version {}", quoted(&version.value)),
            format!("write \"{API_VERSION}\", the only supported version"),
        );
    }
    Some(())
}

/// The kinds of importguard's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A policy.
    Policy,
    /// Tests of a policy.
    Tests,
    /// Rules of the detector.
    DetectorRules,
}

impl FileKind {
    /// Reports a file that is certainly of another kind. Its keys would otherwise be errors one by one.
    pub fn check(self, root: &Node, report: &mut Report<'_>) -> Option<()> {
        let Some(found) = Self::of(root).filter(|&found| found != self) else {
            return Some(());
        };
        report.error(
            root.span,
            format!("this is {}, not {}", found.text(), self.text()),
            format!("name {} here; {}", self.text(), found.used_by()),
        );
        None
    }

    /// The kind of a file by its keys, unless they leave a doubt.
    fn of(root: &Node) -> Option<Self> {
        let has = |key| root.entry(key).is_some();
        match (has("tests"), root.entry("rules"), has("name")) {
            (true, None, _) => Some(Self::Tests),
            (false, Some(_), true) => Some(Self::Policy),
            (false, Some(rules), false) => {
                let yaml::Value::Sequence(rules) = &rules.value else {
                    return None;
                };
                let is_window = |rule: &Node| rule.entry("within").is_some();
                rules.iter().any(is_window).then_some(Self::DetectorRules)
            }
            _ => None,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Policy => "a policy",
            Self::Tests => "a test file",
            Self::DetectorRules => "a file of detector rules",
        }
    }

    const fn used_by(self) -> &'static str {
        match self {
            Self::Policy => "`importguard policy check` checks a policy",
            Self::Tests => "`importguard policy test` runs a test file",
            Self::DetectorRules => "`importguard detect --rules` uses detector rules",
        }
    }
}

/// Reads the name of a policy or of a rule.
pub fn name(node: Node, report: &mut Report<'_>) -> Option<Spanned<String>> {
    let name = text(node, report)?;
    let starts = name
        .value
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if !starts
        || !name
            .value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        || name.value.len() > MAX_NAME_BYTES
    {
        report.error(
            name.span,
            format!("{} is not a valid name", quoted(&name.value)),
            format!(
                "use up to {MAX_NAME_BYTES} letters, digits, \"-\", \"_\" and \".\", starting with a letter or digit: blocked-owner"
            ),
        );
        return None;
    }
    Some(name)
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// Returns the JSON Schema of files with the structure `D` (draft 7, which editors support best). It does not detect invalid references,
/// such as to an undefined list.
pub fn json_schema<D: JsonSchema>() -> String {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<D>().to_value();
    forbid_null(&mut schema);
    // The alternate form is indented.
    format!("{schema:#}\n")
}

/// Adds `apiVersion` to the schema of a file. The types do not have it, because it is only checked when a file is read.
pub fn with_api_version(schema: &mut Schema) {
    let version = json_schema!({ "const": API_VERSION, "description": "The format of this file." });
    if let Some(properties) = schema
        .get_mut("properties")
        .and_then(|it| it.as_object_mut())
    {
        properties.insert("apiVersion".to_owned(), version.into());
    }
    if let Some(required) = schema.get_mut("required").and_then(|it| it.as_array_mut()) {
        required.push("apiVersion".into());
    }
}

/// Returns the choices of a schema, each of which requires one of `keys`.
pub fn one_of(keys: &[&str]) -> Value {
    keys.iter()
        .map(|key| json!({ "required": [key] }))
        .collect()
}

/// Forbids null for optional keys. They may be absent, but null is most likely an error.
fn forbid_null(value: &mut Value) {
    let is_null = |it: &Value| *it == "null" || it["type"] == "null";
    match value {
        Value::Array(items) => items.iter_mut().for_each(forbid_null),
        Value::Object(keys) => {
            if let Some(Value::Array(types)) = keys.get_mut("type") {
                types.retain(|it| !is_null(it));
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    keys.insert("type".to_owned(), only);
                }
            }
            for choices in ["anyOf", "enum"] {
                if let Some(Value::Array(choices)) = keys.get_mut(choices) {
                    choices.retain(|it| !is_null(it) && !it.is_null());
                }
            }
            keys.values_mut().for_each(forbid_null);
        }
        _ => {}
    }
}
