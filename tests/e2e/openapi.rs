//! `docs/openapi.json` is valid, and a gateway answers as it says, whatever it is sent.

use std::{fs, path::PathBuf, process::Output};

use importguard_tests::{Foreign, Line, workspace};
use serde_json::Value;
use tempfile::TempDir;

fn document() -> PathBuf {
    workspace().join("docs/openapi.json")
}

/// Compares a gateway's answers with the document in `file`; without a `url`, only validates it.
fn check(python: &Foreign, file: PathBuf, url: Option<String>, options: &[&str]) -> (bool, String) {
    let mut command = python.command("check.py");
    let Output {
        status,
        stdout,
        stderr,
    } = command.arg(file).args(url).args(options).output().unwrap();
    let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    (status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_generated_request_gets_an_answer_that_the_document_describes() {
    let Some(python) = Foreign::python("tests/openapi") else {
        return;
    };
    let line = Line::start().await;
    let url = line.gateway.url();
    let (agrees, text) = check(&python, document(), Some(url.clone()), &[]);
    assert!(agrees, "{text}");

    // Were answers not compared, it would agree with any document.
    let dir = TempDir::new().unwrap();
    let operation = "/paths/~1callbackBeforeImportFriendsCommand/post/responses";
    let field = "/components/schemas/ServerAllowed/properties";
    for (parent, key, options) in [
        (operation, "400", ["--phases", "coverage"]),
        (field, "errDlt", ["--phases", "examples"]),
    ] {
        let text = fs::read_to_string(document()).unwrap();
        let mut changed: Value = serde_json::from_str(&text).unwrap();
        let parent = changed.pointer_mut(parent).unwrap();
        parent.as_object_mut().unwrap().remove(key).unwrap();
        let schemas = changed.pointer_mut("/components/schemas/ServerAllowed/required");
        let required = schemas.unwrap().as_array_mut().unwrap();
        required.retain(|name| name != key);
        let file = dir.path().join("openapi.json");
        fs::write(&file, changed.to_string()).unwrap();
        let one = "callbackBeforeImportFriendsCommand";
        let less = ["--include-operation-id", one, "--max-failures", "1"];
        let options = [&options[..], &less].concat();
        let (agrees, text) = check(&python, file, Some(url.clone()), &options);
        assert!(!agrees, "{key} may be missing: {text}");
        let is_found = ["Undocumented status code", "Response violates schema"];
        assert!(is_found.iter().any(|found| text.contains(found)), "{text}");
    }
}
