//! The JSON Schemas of events in `docs/schemas/`.

use importguard_tests::{assert_is_current, workspace};
use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::RecursiveTransform};
use serde_json::{Value, json};

use crate::events::{DecisionEvent, ImportedEvent};

/// Draft 7 has no format for UUIDs.
pub(crate) const UUID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";

/// The formats that are kept: schemars also writes Rust's names of number types.
const FORMATS: [&str; 2] = ["date-time", "uri-reference"];

/// Types that may get further values within v1, by `docs/events.md`: a schema with those of today only would refuse later events.
const OPEN: [&str; 4] = ["Cause", "Dialect", "Mode", "Outcome"];

/// Which fields of a decision depend on others.
pub(crate) fn presence_in_decision() -> Value {
    json!([
        friends_or_their_count(),
        {
            "if": {"properties": {"verdict": {"const": "refuse"}}},
            "then": {"required": ["refusal"]},
            "else": {"not": {"required": ["refusal"]}},
        },
        {
            "if": {"properties": {"decidedBy": {"const": "fallback"}}},
            "then": {"required": ["cause"]},
            "else": {"required": ["policy", "decider"], "not": {"required": ["cause"]}},
        },
    ])
}

/// Which fields of a completed import depend on others.
pub(crate) fn presence_in_imported() -> Value {
    json!([friends_or_their_count()])
}

fn friends_or_their_count() -> Value {
    json!({"oneOf": [
        {"required": ["friendUserIDs"]},
        {"required": ["friendCount", "omitted"]},
    ]})
}

#[test]
fn the_schema_of_decisions_is_current() {
    is_current::<DecisionEvent<'static>>(
        "decision.v1.json",
        "A decision on a friend import",
        "importguard.decision.v1",
    );
}

#[test]
fn the_schema_of_imports_is_current() {
    is_current::<ImportedEvent<'static>>(
        "imported.v1.json",
        "A friend import that took place",
        "importguard.imported.v1",
    );
}

#[test]
fn the_schema_of_list_changes_is_current() {
    is_current::<importguard_lists::ListChangedEvent>(
        "list.changed.v1.json",
        "A change of a live list",
        "importguard.list.changed.v1",
    );
}

fn is_current<T: JsonSchema>(file: &str, title: &str, kind: &str) {
    let text = serde_json::to_string_pretty(&schema::<T>(title, kind)).unwrap() + "\n";
    assert_is_current(&workspace().join("docs/schemas").join(file), &text);
}

/// The schema in draft 7, which every validator supports and AsyncAPI can embed.
fn schema<T: JsonSchema>(title: &str, kind: &str) -> Schema {
    let settings = SchemaSettings::draft07()
        .for_serialize()
        .with_transform(RecursiveTransform(keep_known_formats))
        .with_transform(RecursiveTransform(remove_null))
        .with_transform(RecursiveTransform(join_lines));
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    schema.insert("description".to_owned(), "A CloudEvent 1.0 in structured JSON. Fields are added over time, so a reader ignores those it doesn't know. docs/events.md explains each.".into());
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert("type".to_owned(), json!({"const": kind}));
    }
    if let Some(Value::Object(definitions)) = schema.get_mut("definitions") {
        definitions.remove("EventType");
        for name in OPEN {
            definitions.entry(name).and_modify(open);
        }
    }
    schema
}

/// Has any string match, with the values of today as examples.
fn open(definition: &mut Value) {
    let values = definition["oneOf"].as_array().unwrap();
    let examples: Vec<_> = values.iter().map(|value| value["const"].clone()).collect();
    let meaning = definition["description"].as_str().unwrap();
    *definition = json!({
        "description": format!("{meaning} Treat an unknown value as something else: more may be added."),
        "type": "string",
        "examples": examples,
    });
}

fn keep_known_formats(schema: &mut Schema) {
    let format = schema.get("format").and_then(Value::as_str);
    if format.is_some_and(|format| !FORMATS.contains(&format)) {
        schema.remove("format");
    }
}

/// Removes `null` from the types of optional fields: an absent value is omitted.
fn remove_null(schema: &mut Schema) {
    let null = Value::from("null");
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| *kind != null);
        if let [one] = &types[..] {
            let one = one.clone();
            schema.insert("type".to_owned(), one);
        }
    }
    if let Some(Value::Array(choices)) = schema.remove("anyOf") {
        let choices = choices
            .into_iter()
            .filter(|choice| choice.get("type") != Some(&null));
        schema.insert("allOf".to_owned(), choices.collect());
    }
}

/// Joins the lines of doc comments.
fn join_lines(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}
