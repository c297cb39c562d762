//! `docs/openapi.json`: what the gateway answers.

use std::collections::{BTreeMap, BTreeSet};

use importguard_core::{
    Cause, Dialect, IdError, ImportRequest, Kept, OperationId, UserId, Verdict,
};
use importguard_tests::{assert_is_current, workspace};
use schemars::{JsonSchema, Schema, generate::SchemaSettings, transform::transform_subschemas};
use serde_json::{Map, Value, json};

use strum::IntoEnumIterator;

use crate::{
    decide::{OnFailure, fallback},
    openim::{Answer, Command, Refusals, Rejection, RequestBody, Wire},
};

const INTRODUCTION: &str = "\
What importguard's gateway answers to open-im-server's callbacks for friend imports. It describes OpenIM's webhook contract for them, too, \
for which OpenIM has no such document.\n\n\
There are two dialects. open-im-server sends the callback's name as the last segment of the path, and expects `nextCode` as a number. OpenIM's \
documentation describes `?command=ImportFriendReqBeforeCommand`, with `nextCode` as a string. The request line chooses the dialect of the answer.\n\n\
**Every answer is a callback answer**, to any method, path and body: one that decides, or one that refuses. open-im-server does not look at the \
HTTP status, and takes any JSON object without `nextCode: 1` for consent, so that an ordinary error body would let the import through. \
Paths and methods that are not described here get 404 or 405 with a refusal as below; a HEAD request has no body to read. OpenIM's other \
callbacks are passed to the backend in IMPORTGUARD_UPSTREAM, whose answers are not described here.";

#[test]
fn the_schema_of_callbacks_is_current() {
    let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    assert_is_current(&workspace().join("docs/openapi.json"), &text);
}

/// A code that is not listed has no series in the metrics until it occurs.
#[test]
fn the_codes_of_all_rejections_are_listed() {
    let all = rejections().into_iter();
    let upstream = [Rejection::UpstreamUnavailable, Rejection::UpstreamTimeout];
    let codes: BTreeSet<_> = all.chain(upstream).map(|it| it.code()).collect();
    assert_eq!(codes, BTreeSet::from(Rejection::CODES));
}

fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "importguard: OpenIM's callbacks for friend imports",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{
            "url": "http://127.0.0.1:8080{basePath}",
            "description": "The URL in OpenIM's configuration. https where IMPORTGUARD_TLS_CERT_FILE is set",
            "variables": {"basePath": {"default": "", "description": "IMPORTGUARD_BASE_PATH"}},
        }],
        "security": [{}, {"password": []}, {"token": []}],
        "paths": {
            "/callbackBeforeImportFriendsCommand": {"post": before_server()},
            "/": {"post": before_documented()},
            "/callbackAfterImportFriendsCommand": {"post": after()},
        },
        "components": {
            "schemas": schemas(),
            "parameters": {"operationID": operation_id()},
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic", "description": "A line of IMPORTGUARD_BASIC_AUTH_FILE. OpenIM sends user:password@ of its webhook URL"},
                "token": {"type": "http", "scheme": "bearer", "description": "A line of IMPORTGUARD_BEARER_TOKEN_FILE. OpenIM cannot send one"},
            },
        },
    })
}

fn before_server() -> Value {
    operation(
        Command::BeforeImport(Dialect::Server),
        "Asks whether friends may be imported, as open-im-server does",
        "Sent by open-im-server 3.4.2 and later before it imports friends, if beforeImportFriends is enabled. Without a readable answer nothing is imported from 3.7 on, and before that where failedContinue is false.",
        json!([reference("parameters", "operationID")]),
        decided(&["ServerAllowed", "ServerShortened", "ServerRefused"]),
    )
}

fn before_documented() -> Value {
    let query = |name: &str, required: bool, value: &str, description: &str| json!({"name": name, "in": "query", "required": required, "description": description, "schema": {"const": value}});
    operation(
        Command::BeforeImport(Dialect::Documented),
        "Asks whether friends may be imported, as OpenIM's documentation describes it",
        "No released open-im-server sends this; it is for backends that follow OpenIM's page \"Callback Before Importing Friends\". A refusal repeats the request.",
        json!([
            query(
                "command",
                true,
                Command::BeforeImport(Dialect::Documented).name(),
                "The callback's name, which the body repeats"
            ),
            query("contenttype", false, "json", "Always json"),
            reference("parameters", "operationID"),
        ]),
        decided(&[
            "DocumentedAllowed",
            "DocumentedShortened",
            "DocumentedRefused",
        ]),
    )
}

fn after() -> Value {
    operation(
        Command::AfterImport,
        "Reports that friends were imported",
        "Sent by open-im-server after it has imported friends, if afterImportFriends is enabled. The answer allows even if the report cannot be read or recorded, as the friends are stored by then and OpenIM 3.5 would report an error; only wrong credentials are refused.",
        json!([reference("parameters", "operationID")]),
        json!({"description": "Noted, or rejected without a consequence.", "content": content("ServerAllowed")}),
    )
}

/// The operation of `command`, whose answer with status 200 is `decided`.
fn operation(
    command: Command,
    summary: &str,
    description: &str,
    parameters: Value,
    decided: Value,
) -> Value {
    let mut responses = match command {
        Command::AfterImport => rejected(&["ServerRefused"], |rejection| !rejection.allows_after()),
        // A request line without a command is answered in the server's dialect.
        Command::BeforeImport(Dialect::Documented) => {
            rejected(&["DocumentedRefused", "ServerRefused"], |_| true)
        }
        Command::BeforeImport(Dialect::Server) => rejected(&["ServerRefused"], |_| true),
    };
    responses.insert("200".to_owned(), decided);
    let body = match command {
        Command::BeforeImport(Dialect::Server) => "ServerQuestion",
        Command::BeforeImport(Dialect::Documented) => "DocumentedQuestion",
        Command::AfterImport => "Report",
    };
    json!({
        "operationId": command.name(),
        "summary": summary,
        "description": description,
        "parameters": parameters,
        "requestBody": {"required": true, "content": content(body)},
        "responses": responses,
    })
}

/// The answers that decide: verdicts of the policy, and fallbacks.
fn decided(schemas: &[&str]) -> Value {
    let described = |cause| match fallback(cause, OnFailure::Refuse).verdict() {
        Verdict::Refuse(refusal) => format!("{} {}", refusal.code, refusal.message),
        Verdict::Allow | Verdict::Modify(_) => String::new(),
    };
    let fallbacks: Vec<_> = Cause::iter().map(described).collect();
    json!({
        "description": format!(
            "The decision: allowed, allowed with fewer friends, or refused. Refused with a code of the policy's own, or because there was no decision ({}), which a setting for each cause can turn into an allowing answer.",
            fallbacks.join(", ")
        ),
        "content": {"application/json": {"schema": one_of(schemas)}},
    })
}

/// The answers to requests that are not decided, by status.
fn rejected(schemas: &[&str], applies: impl Fn(&Rejection) -> bool) -> Map<String, Value> {
    let mut by_status: BTreeMap<u16, Vec<Rejection>> = BTreeMap::new();
    for rejection in rejections().into_iter().filter(applies) {
        by_status
            .entry(rejection.status().as_u16())
            .or_default()
            .push(rejection);
    }
    let responses = by_status.into_iter().map(|(status, rejections)| {
        let mut reasons: Vec<String> = Vec::new();
        for rejection in &rejections {
            let reason = format!("{} {}", rejection.code(), rejection.message());
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let mut response = json!({
            "description": format!("Not decided, and refused: {}.", reasons.join(", ")),
            "content": {"application/json": {"schema": one_of(schemas)}},
        });
        if let Some(name) = match status {
            401 => Some("WWW-Authenticate"),
            405 => Some("Allow"),
            _ => None,
        } {
            response["headers"] = json!({name: {"schema": {"type": "string"}}});
        }
        (status.to_string(), response)
    });
    responses.collect()
}

/// One of each kind that a callback for imports can meet. The upstream's are those of other callbacks.
fn rejections() -> Vec<Rejection> {
    let large = |what| Rejection::TooLarge {
        what,
        max: 1,
        unit: "",
    };
    let all = vec![
        Rejection::UnknownCommand,
        Rejection::NoUpstream,
        Rejection::CommandMismatch {
            expected: "",
            found: String::new(),
        },
        Rejection::Unauthorised,
        Rejection::MethodNotAllowed,
        Rejection::UnsupportedMediaType,
        Rejection::Malformed(String::new()),
        large("the body"),
        Rejection::HeadTooLarge,
        Rejection::UriTooLong,
        Rejection::TooSlow,
        Rejection::Overloaded,
        Rejection::UnreadResponses,
        Rejection::OperationIdMissing,
        Rejection::OperationIdInvalid(IdError::Empty),
        Rejection::OperationIdRepeated,
        Rejection::Internal,
    ];
    for rejection in &all {
        // A new kind does not compile until it is listed here and above.
        match rejection {
            Rejection::UnknownCommand
            | Rejection::NoUpstream
            | Rejection::CommandMismatch { .. }
            | Rejection::Unauthorised
            | Rejection::MethodNotAllowed
            | Rejection::UnsupportedMediaType
            | Rejection::Malformed(_)
            | Rejection::TooLarge { .. }
            | Rejection::HeadTooLarge
            | Rejection::UriTooLong
            | Rejection::TooSlow
            | Rejection::Overloaded
            | Rejection::UnreadResponses
            | Rejection::OperationIdMissing
            | Rejection::OperationIdInvalid(_)
            | Rejection::OperationIdRepeated
            | Rejection::Internal
            | Rejection::UpstreamUnavailable
            | Rejection::UpstreamTimeout => {}
        }
    }
    all
}

fn schemas() -> Value {
    let mut schemas = Map::new();
    for (name, command) in [
        ("ServerQuestion", Command::BeforeImport(Dialect::Server)),
        (
            "DocumentedQuestion",
            Command::BeforeImport(Dialect::Documented),
        ),
        ("Report", Command::AfterImport),
    ] {
        schemas.insert(name.to_owned(), question(command));
    }
    let request = example();
    let kept = Kept::of(vec![0], &request).unwrap();
    let refused = Answer::Refuse {
        code: 5001,
        message: "User not allowed to import friends",
        detail: "The user does not meet the criteria for importing friends",
        request: Some(&request),
    };
    let shortened = Answer::Modify {
        request: &request,
        kept: &kept,
    };
    for (prefix, dialect) in [
        ("Server", Dialect::Server),
        ("Documented", Dialect::Documented),
    ] {
        schemas.insert(
            format!("{prefix}Allowed"),
            answer(dialect, Answer::Allow, "Import all friends."),
        );
        schemas.insert(
            format!("{prefix}Shortened"),
            answer(
                dialect,
                shortened,
                "Import only the friends in friendUserIDs: some of those requested, in their order, never none.",
            ),
        );
        schemas.insert(
            format!("{prefix}Refused"),
            answer(dialect, refused, "Import nobody."),
        );
    }
    schemas.into()
}

fn example() -> ImportRequest {
    ImportRequest {
        operation_id: OperationId::parse("1646445464564").unwrap(),
        owner: UserId::parse("user123").unwrap(),
        friends: ["user456", "user789"]
            .map(|id| UserId::parse(id).unwrap())
            .into(),
    }
}

/// The schema of `command`'s body.
fn question(command: Command) -> Value {
    let settings = SchemaSettings::draft2020_12().for_deserialize();
    let mut schema = inlined::<RequestBody<'static>>(settings);
    schema["properties"]["callbackCommand"]["const"] = command.name().into();
    schema["examples"] = json!([{
        "callbackCommand": command.name(),
        "ownerUserID": "user123",
        "friendUserIDs": ["user456", "user789"],
    }]);
    schema
}

/// The schema of answers of the same kind as `answer`.
fn answer(dialect: Dialect, answer: Answer<'_>, description: &str) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = inlined::<Wire<'static>>(settings);
    let encoded = answer.encode(dialect, Refusals::Readable);
    let example: Value = serde_json::from_slice(&encoded).unwrap();
    let is_refusal = matches!(answer, Answer::Refuse { .. });
    let fields = schema["properties"].as_object_mut().unwrap();
    fields.retain(|name, _| example.get(name).is_some());
    for (name, field) in fields.iter_mut() {
        let constraints = match name.as_str() {
            "errCode" if is_refusal => json!({"minimum": 5000, "maximum": 9999}),
            "errMsg" if is_refusal => json!({"minLength": 1}),
            "errDlt" if is_refusal => json!({}),
            "nextCode" if is_refusal && dialect == Dialect::Server => json!({
                "enum": [1, "1"],
                "description": "1, a number. The string \"1\" only with IMPORTGUARD_REFUSALS=unreadable, for OpenIM 3.6.0, which ignores what it can read",
            }),
            "ownerUserID" => json!({}),
            "friendUserIDs" if is_refusal => json!({}),
            "friendUserIDs" => json!({"minItems": 1, "uniqueItems": true}),
            _ => json!({"const": example[name]}),
        };
        let constraints = constraints.as_object().unwrap().clone();
        field.as_object_mut().unwrap().extend(constraints);
    }
    let required = example.as_object().unwrap().keys();
    // A request that could not be parsed is not repeated.
    let required =
        required.filter(|name| !is_refusal || !name.ends_with("IDs") && !name.ends_with("ID"));
    schema["required"] = required.cloned().collect();
    schema["additionalProperties"] = false.into();
    schema["description"] = description.into();
    schema["examples"] = json!([example]);
    schema
}

/// The schema of `T` without references and without what only Rust knows.
fn inlined<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let settings = settings.with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("title");
    transform_subschemas(&mut tidy, &mut schema);
    tidy(&mut schema);
    schema.to_value()
}

fn tidy(schema: &mut Schema) {
    schema.remove("format");
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}

fn operation_id() -> Value {
    json!({
        "name": "operationID",
        "in": "header",
        "required": true,
        "description": "OpenIM's ID of the operation, which is in every log line, span and event. A callback without it is refused, unless IMPORTGUARD_OPERATION_ID=generate",
        "schema": {"type": "string", "pattern": "^[!-~]{1,256}$"},
        "example": "1646445464564",
    })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

fn content(schema: &str) -> Value {
    json!({"application/json": {"schema": reference("schemas", schema)}})
}

fn one_of(schemas: &[&str]) -> Value {
    match schemas {
        [one] => reference("schemas", one),
        _ => {
            json!({"oneOf": schemas.iter().map(|name| reference("schemas", name)).collect::<Value>()})
        }
    }
}
