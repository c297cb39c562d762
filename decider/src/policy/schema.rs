use super::document::Document;

/// The JSON Schema of policy files, as committed next to the policy. It is generated from the types of a policy file.
pub fn json_schema() -> String {
    importguard_yaml::document::json_schema::<Document>()
}
