//! Published events match `docs/asyncapi.yaml` and `docs/schemas/`.

use std::{collections::BTreeSet, fs};

use importguard_gateway::events::{CONTENT_TYPE, Subject};
use importguard_tests::{Foreign, Line, Settings, load, wait_for_count, workspace};
use jsonschema::Validator;
use serde_json::{Value, json};
use strum::IntoEnumIterator;

/// The schemas of the events, by the events' type.
struct Schemas([(&'static str, Validator); 3]);

impl Schemas {
    fn committed() -> Self {
        let read = |file: &str| {
            let text = fs::read_to_string(workspace().join("docs/schemas").join(file)).unwrap();
            let schema = serde_json::from_str(&text).unwrap();
            let options = jsonschema::options().should_validate_formats(true);
            options.build(&schema).unwrap()
        };
        Self([
            ("importguard.decision.v1", read("decision.v1.json")),
            ("importguard.imported.v1", read("imported.v1.json")),
            ("importguard.list.changed.v1", read("list.changed.v1.json")),
        ])
    }

    fn objections(&self, event: &Value) -> Vec<String> {
        let known = self.0.iter().find(|(kind, _)| event["type"] == *kind);
        let (_, schema) = known.unwrap_or_else(|| panic!("no schema for {event}"));
        let objection =
            |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
        schema.iter_errors(event).map(objection).collect()
    }

    #[track_caller]
    fn accept(&self, event: &Value) {
        let objections = self.objections(event);
        assert!(objections.is_empty(), "{objections:#?} in {event:#}");
    }
}

/// One of each kind that a gateway publishes: allowed, modified, refused by a rule, by the engine and by the fallback,
/// reported as done, and too large for NATS.
async fn events_of_every_kind() -> Vec<Value> {
    let line = Line::start().await;
    let server = line.server();
    let documented = line.documented();
    server.import("allow", "user123", &["user456"]).await;
    server
        .import("modify", "user123", &["bot_7", "user456", "user456"])
        .await;
    documented.import("refuse", "blocked_owner", &["u"]).await;
    server.import("nobody-left", "user123", &["bot_1"]).await;
    documented.import("empty", "user123", &[]).await;
    let long: Vec<_> = (0..10_000).map(|n| format!("bot_{n:0>120}")).collect();
    let long: Vec<_> = long.iter().map(String::as_str).collect();
    server.import("too-large", "user123", &long).await;
    let report = server.after_import("imported", "user123", &["user456"]);
    server.send(report).await;

    let alone = importguard_tests::Service::gateway(Settings::new().nats(&line.nats)).await;
    importguard_tests::OpenIm::server(alone.url())
        .import("fallback", "user123", &["user456"])
        .await;
    let events = wait_for_count(&line.nats, 8).await;
    events.into_iter().map(|event| event.json).collect()
}

#[tokio::test]
async fn every_kind_of_event_matches_its_schema() {
    let schemas = Schemas::committed();
    let events = events_of_every_kind().await;
    let ids: BTreeSet<_> = events
        .iter()
        .map(|event| event["data"]["operationID"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 8, "{ids:?}");
    for event in &events {
        schemas.accept(event);
    }
    let large = events
        .iter()
        .find(|event| event["data"]["friendCount"] == 10_000);
    assert!(large.is_some(), "no event was too large for NATS");
}

#[tokio::test]
async fn the_schema_objects_to_what_breaks_the_contract() {
    let schemas = Schemas::committed();
    let line = Line::start().await;
    line.server().import("op", "blocked_owner", &["u"]).await;
    let event = wait_for_count(&line.nats, 1).await.remove(0).json;
    schemas.accept(&event);
    let mut later = event.clone();
    later["data"]["addedInALaterVersion"] = json!(true);
    schemas.accept(&later);

    for pointer in [
        "/data/dialect",
        "/data/rules/0/mode",
        "/data/rules/0/outcome",
    ] {
        *later.pointer_mut(pointer).unwrap() = json!("addedInALaterVersion");
    }
    later["data"]["decidedBy"] = json!("fallback");
    later["data"]["cause"] = json!("addedInALaterVersion");
    schemas.accept(&later);

    for (pointer, wrong) in [
        ("/id", json!("1646445464564")),
        ("/source", json!("importguard/gateway/gw %zz ü")),
        ("/time", json!("yesterday")),
        ("/specversion", json!("0.3")),
        ("/subject", json!("")),
        ("/data/operationID", json!("two words")),
        ("/data/verdict", json!("perhaps")),
        ("/data/verdict", json!("allow")),
        ("/data/decidedBy", json!("fallback")),
        ("/data/friendUserIDs", json!(null)),
        ("/data/friendUserIDs", json!([7])),
        ("/data/refusal/code", json!("5001")),
        ("/data/micros/total", json!(-1)),
    ] {
        let mut event = event.clone();
        *event.pointer_mut(pointer).unwrap() = wrong.clone();
        let objections = schemas.objections(&event);
        assert!(!objections.is_empty(), "{pointer} may be {wrong}");
    }
    for (parent, field) in [
        ("", "id"),
        ("/data", "friendUserIDs"),
        ("/data", "refusal"),
        ("/data", "policy"),
    ] {
        let mut event = event.clone();
        let object = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        object.remove(field).unwrap();
        assert!(
            !schemas.objections(&event).is_empty(),
            "{parent}/{field} may be missing"
        );
    }
}

#[test]
fn the_asyncapi_document_is_valid_and_names_the_subjects_and_events_there_are() {
    let Some(parser) = Foreign::node("tests/asyncapi") else {
        return;
    };
    let document = workspace().join("docs/asyncapi.yaml");
    let output = parser.command("check.mjs").arg(&document).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();

    // 0 is an error and 1 a warning; what follows is advice, as that to move on to a later version of AsyncAPI.
    let diagnostics = found["diagnostics"].as_array().unwrap();
    let wrong: Vec<_> = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic["severity"].as_u64() < Some(2))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");

    let addresses = found["channels"].as_array().unwrap().iter();
    let addresses: Vec<_> = addresses
        .map(|address| address.as_str().unwrap().replace("{verdict}", ""))
        .collect();
    for subject in Subject::iter().map(Subject::into_str) {
        let described = addresses.iter().filter(|all| subject.starts_with(*all));
        assert_eq!(described.count(), 1, "{subject} in {addresses:?}");
    }

    let schemas = Schemas::committed();
    for message in found["messages"].as_array().unwrap() {
        let examples = message["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{message}");
        for example in examples {
            let (headers, payload) = (&example["headers"], &example["payload"]);
            schemas.accept(payload);
            assert_eq!(payload["type"], message["name"]);
            assert_eq!(headers["Nats-Msg-Id"], payload["id"]);
            assert_eq!(headers["operationID"], payload["data"]["operationID"]);
            assert_eq!(headers["Content-Type"], CONTENT_TYPE);
        }
    }
}

#[tokio::test]
async fn a_busy_gateways_events_match_their_schema() {
    const REQUESTS: usize = 200;
    let schemas = Schemas::committed();
    let line = Line::start().await;
    let server = line.server();
    let owners = ["user123", "blocked_owner"];
    load(REQUESTS, 16, async |number| {
        let friends = ["a", "bot_1", "b", "a"];
        let friends = &friends[..number % 5];
        server
            .import(&format!("op-{number}"), owners[number % 2], friends)
            .await;
    })
    .await;
    for event in wait_for_count(&line.nats, REQUESTS).await {
        schemas.accept(&event.json);
    }
}
