//! Verdicts match the formats of OpenIM's documentation and server byte for byte.

use importguard_core::{Dialect, VerdictKind};
use importguard_gateway::events::EventType;
use importguard_tests::{Line, OpenIm, Reading, Settings, wait_for_count};

use crate::asserts;

const ALLOW: [&str; 2] = [
    r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":"0"}"#,
    r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0}"#,
];

const REFUSED: [&str; 2] = [
    concat!(
        r#"{"actionCode":1,"errCode":5001,"errMsg":"User not allowed to import friends","#,
        r#""errDlt":"The user does not meet the criteria for importing friends","nextCode":"1","#,
        r#""ownerUserID":"blocked_owner","friendUserIDs":["user456","user789"]}"#,
    ),
    concat!(
        r#"{"actionCode":0,"errCode":5001,"errMsg":"User not allowed to import friends","#,
        r#""errDlt":"The user does not meet the criteria for importing friends","nextCode":1}"#,
    ),
];

const MODIFIED: [&str; 2] = [
    concat!(
        r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":"0","#,
        r#""ownerUserID":"user123","friendUserIDs":["user789","user456"]}"#,
    ),
    concat!(
        r#"{"actionCode":0,"errCode":0,"errMsg":"","errDlt":"","nextCode":0,"#,
        r#""ownerUserID":"user123","friendUserIDs":["user789","user456"]}"#,
    ),
];

const NOBODY_LEFT: [&str; 2] = [
    concat!(
        r#"{"actionCode":1,"errCode":5002,"errMsg":"No importable friends","#,
        r#""errDlt":"Every friend was removed by a rule","nextCode":"1","#,
        r#""ownerUserID":"user123","friendUserIDs":["blocked_1","bot_7"]}"#,
    ),
    concat!(
        r#"{"actionCode":0,"errCode":5002,"errMsg":"No importable friends","#,
        r#""errDlt":"Every friend was removed by a rule","nextCode":1}"#,
    ),
];

/// Asks in both dialects, and compares status, media type and body with what each must get.
async fn both(line: &Line, owner: &str, friends: &[&str], [documented, server]: [&str; 2]) {
    for (caller, expected) in [(line.documented(), documented), (line.server(), server)] {
        let answer = caller.import("1646445464564", owner, friends).await;
        assert_eq!(answer.text(), expected);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.media_type(), Some("application/json"));
    }
}

#[tokio::test]
async fn verdicts_have_the_bytes_that_openim_reads() {
    let line = Line::start().await;
    both(&line, "user123", &["user456", "user789"], ALLOW).await;
    both(&line, "blocked_owner", &["user456", "user789"], REFUSED).await;
    // The others keep their order.
    let friends = ["user789", "blocked_1", "user456", "bot_7"];
    both(&line, "user123", &friends, MODIFIED).await;
    both(&line, "user123", &["blocked_1", "bot_7"], NOBODY_LEFT).await;
}

#[tokio::test]
async fn the_owner_and_repeated_friends_are_left_out_without_any_rule() {
    let line = Line::start().await;
    let friends = ["a", "user123", "b", "a"];
    for caller in [line.documented(), line.server()] {
        let answer = caller.import("op", "user123", &friends).await;
        let expected = Reading::Imports {
            instead: Some(vec!["a".to_owned(), "b".to_owned()]),
        };
        assert_eq!(asserts::reading(caller.dialect(), &answer), expected);
    }
}

#[tokio::test]
async fn no_friends_at_all_are_allowed_also_as_null() {
    let line = Line::start().await;
    both(&line, "user123", &[], ALLOW).await;
    for (caller, expected) in [line.documented(), line.server()].into_iter().zip(ALLOW) {
        let body = caller.body("user123", &[]).replace("[]", "null");
        assert!(body.ends_with(r#""friendUserIDs":null}"#), "{body}");
        let answer = caller.send(caller.with_body("op", &body)).await;
        assert_eq!(answer.text(), expected);
    }
}

#[tokio::test]
async fn unknown_fields_white_space_and_escapes_change_nothing() {
    let line = Line::start().await;
    for (caller, expected) in [line.documented(), line.server()].into_iter().zip(ALLOW) {
        let body = caller
            .body("user123", &["user456"])
            .replacen('{', "{ \"future\": {\"a\": [1, null]},\n\t", 1)
            .replace("user456", "\\u0075ser456");
        let answer = caller.send(caller.with_body("op", &body)).await;
        assert_eq!(answer.text(), expected, "{body}");
    }
}

#[tokio::test]
async fn ids_in_any_script_come_back_as_they_were() {
    let line = Line::start().await;
    let odd = ["ü 1", "用户\"2\"", "a\\b\n", "🦀"];
    let mut friends = odd.to_vec();
    friends.push("blocked_1");
    for caller in [line.documented(), line.server()] {
        let answer = caller.import("op", "владелец", &friends).await;
        let expected = Reading::Imports {
            instead: Some(odd.map(str::to_owned).to_vec()),
        };
        assert_eq!(asserts::reading(caller.dialect(), &answer), expected);
    }
}

#[tokio::test]
async fn the_base_url_may_have_a_path_and_newer_servers_add_a_query() {
    let line = Line::with(Settings::new().set("IMPORTGUARD_BASE_PATH", "/secret/hooks")).await;
    let base = format!("{}/secret/hooks", line.gateway.url());
    let documented = OpenIm::documented(&base);
    asserts::allows(
        Dialect::Documented,
        &documented.import("op", "a", &["b"]).await,
    );
    let server = OpenIm::server(&base);
    asserts::allows(Dialect::Server, &server.import("op", "a", &["b"]).await);
    let url = format!("{base}/callbackBeforeImportFriendsCommand?contenttype=json");
    let call = server.before_import("op", "a", &["b"]).url(url);
    asserts::allows(Dialect::Server, &server.send(call).await);
    let url = format!("{base}?command=ImportFriendReqBeforeCommand&contenttype=json");
    let call = documented.before_import("op", "a", &["b"]).url(url);
    asserts::allows(Dialect::Documented, &documented.send(call).await);
}

#[tokio::test]
async fn every_verdict_is_an_event_with_its_reason() {
    let line = Line::start().await;
    let server = line.server();
    server.import("op-allow", "user123", &["a"]).await;
    line.documented()
        .import("op-refuse", "blocked_owner", &["a"])
        .await;
    server
        .import("op-modify", "user123", &["a", "bot_7", "a"])
        .await;

    let events = wait_for_count(&line.nats, 3).await;
    let event = |id| events.iter().find(|e| e.operation_id() == id).unwrap();

    let allow = event("op-allow");
    assert_eq!(allow.subject, "importguard.v1.decision.allow");
    let data = &allow.decision().data;
    assert_eq!(
        (data.verdict, data.dialect),
        (VerdictKind::Allow, Dialect::Server)
    );
    assert_eq!(
        allow.json["data"]["friendUserIDs"],
        serde_json::json!(["a"])
    );
    assert_eq!(allow.json["data"]["decidedBy"], "policy");
    assert_eq!(allow.json["subject"], "user123");
    let policy = data.policy.as_ref().unwrap();
    assert_eq!(policy.name, "e2e");
    assert!(policy.digest.starts_with("sha256:"), "{}", policy.digest);
    assert_eq!(
        (data.lists[0].name.as_str(), data.lists[0].size),
        ("blocked", 3)
    );

    let refuse = event("op-refuse");
    assert_eq!(refuse.subject, "importguard.v1.decision.refuse");
    let data = &refuse.decision().data;
    assert_eq!(
        (data.verdict, data.dialect),
        (VerdictKind::Refuse, Dialect::Documented)
    );
    let refusal = data.refusal.as_ref().unwrap();
    assert_eq!(
        (refusal.rule.as_deref(), refusal.code),
        (Some("blocked-owner"), 5001)
    );
    assert_eq!(refuse.json["data"]["rules"][0]["outcome"], "refuse");

    let modify = event("op-modify");
    assert_eq!(modify.subject, "importguard.v1.decision.modify");
    assert_eq!(modify.decision().data.verdict, VerdictKind::Modify);
    let removed = &modify.json["data"]["removed"];
    let by = |rule: &str| {
        let all = removed.as_array().unwrap();
        all.iter()
            .find(|r| r["rule"] == rule)
            .map(|r| r["friends"].clone())
    };
    assert_eq!(by("duplicate"), Some(serde_json::json!([2])), "{removed}");
    assert_eq!(
        by("blocked-friends"),
        Some(serde_json::json!([1])),
        "{removed}"
    );
}

#[tokio::test]
async fn a_report_after_an_import_is_answered_and_recorded() {
    let line = Line::start().await;
    let server = line.server();
    let answer = server
        .send(server.after_import("op-after", "user123", &["user456"]))
        .await;
    asserts::allows(Dialect::Server, &answer);

    let events = wait_for_count(&line.nats, 1).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].subject, "importguard.v1.imported");
    let event = events[0].imported();
    assert_eq!(event.kind, EventType::Imported);
    assert_eq!(event.subject.as_str(), "user123");
    assert_eq!(event.data.operation_id.as_str(), "op-after");
    assert_eq!(event.data.owner_user_id.as_str(), "user123");
    assert_eq!(
        events[0].json["data"]["friendUserIDs"],
        serde_json::json!(["user456"])
    );
}
