use schemars::generate::SchemaSettings;

use super::document::Document;

/// The JSON Schema of policy files (draft 7, which editors understand best), as it is committed next to the policy. It
/// is made of the types that a file is read into; what only a reading can find, such as a list that is not defined, it
/// does not know.
pub fn json_schema() -> String {
    let schema = SchemaSettings::draft07()
        .into_generator()
        .into_root_schema_for::<Document>();
    // The alternate form is indented, and a value that came from plain types has no reason to fail.
    format!("{:#}\n", schema.to_value())
}
