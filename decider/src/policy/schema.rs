use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::document::Document;

/// The JSON Schema of policy files (draft 7, which editors support best), as committed next to the policy. It is generated
/// from the types of a policy file and does not cover references, such as to an undefined list.
pub fn json_schema() -> String {
    let generator = SchemaSettings::draft07().into_generator();
    let mut schema = generator.into_root_schema_for::<Document>().to_value();
    forbid_null(&mut schema);
    // The alternate form is indented.
    format!("{schema:#}\n")
}

/// Optional keys may be absent but not null, which is most likely an error.
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
