//! Expensive evaluations end at their callers' deadlines and do not delay others.

use std::time::Duration;

use futures_util::future::join_all;
use importguard_core::{Dialect, Mode, Outcome};
use importguard_proto::decider::{DecideRequest, decider_client::DeciderClient};
use importguard_tests::{
    Line, OpenIm, OtlpReceiver, PolicyDir, Reading, SOON, Service, Settings, Span, TraceParent,
    eventually, wait_for_count,
};
use tokio::time::timeout;
use tonic::{Code, Request, metadata::MetadataValue, transport::Channel};

use crate::asserts;

/// As many as a callback may hold by default.
const MANY: usize = 10_000;

fn friends(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("friend{number}")).collect()
}

/// An expression that looks through so many texts for each friend.
fn exists(texts: usize) -> String {
    format!("[{}].exists(x, x == friend)", vec!["'a'"; texts].join(","))
}

/// In shadow as expensive as an expression can be; one cheap rule that acts.
fn expensive_in_shadow() -> PolicyDir {
    let watch = |id: &str| {
        format!(
            "  - {{ id: {id}, dropFriendIf: \"{}\", mode: shadow, onError: skip }}\n",
            exists(235)
        )
    };
    let rules = format!(
        "{}  - {{ id: sevens, dropFriends: {{ suffixes: ['7'] }} }}\n{}",
        watch("first"),
        watch("second")
    );
    PolicyDir::new(
        &format!("apiVersion: importguard/v1\nname: expensive\nrules:\n{rules}"),
        &[],
    )
}

/// Enforced and as expensive as it may be, nearly: seconds in a debug build.
fn expensive_enforced() -> PolicyDir {
    let rule = format!(
        "  - {{ id: names, dropFriendIf: \"{}\", onError: skip }}\n",
        exists(14)
    );
    PolicyDir::new(
        &format!("apiVersion: importguard/v1\nname: expensive\nrules:\n{rule}"),
        &[],
    )
}

/// Less time than an expensive policy takes.
fn seconds() -> Settings {
    Settings::new()
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "2s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "4s")
}

/// Callbacks about one friend, one after the other; each must get the policy's verdict.
async fn small_ones(server: &OpenIm, count: usize) {
    for number in 0..count {
        let answer = server
            .import(&format!("op-small-{number}"), "user123", &["user456"])
            .await;
        asserts::allows(Dialect::Server, &answer);
    }
}

#[tokio::test]
async fn expensive_shadow_rules_delay_no_callback_and_the_policy_decides() {
    let policy = expensive_in_shadow();
    let line = Line::with(seconds().policy(&policy)).await;
    let server = line.server();
    let many = friends(MANY);
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (big, ()) = tokio::join!(
        server.import("op-big", "user123", &many),
        small_ones(&server, 20)
    );
    let Reading::Imports {
        instead: Some(kept),
    } = asserts::reading(Dialect::Server, &big)
    else {
        panic!("{}", big.text());
    };
    assert_eq!(kept.len(), MANY / 10 * 9);

    let skipped = line
        .decider
        .metric("importguard_decider_shadow_rules_skipped_total")
        .await;
    assert_eq!(skipped.unwrap(), 2.0);
    let events = wait_for_count(&line.nats, 21).await;
    let event = events
        .iter()
        .find(|event| event.operation_id() == "op-big")
        .unwrap();
    let rules = &event.decision().data.rules;
    let told: Vec<_> = rules
        .iter()
        .map(|rule| (&*rule.id, rule.mode, rule.outcome))
        .collect();
    assert_eq!(
        told,
        [
            ("first", Mode::Shadow, Outcome::Skipped),
            ("sevens", Mode::Enforce, Outcome::Remove),
            ("second", Mode::Shadow, Outcome::Skipped),
        ]
    );
}

#[tokio::test]
async fn many_expensive_imports_at_once_hold_up_no_other_callback() {
    let policy = expensive_enforced();
    let line = Line::with(seconds().policy(&policy)).await;
    let server = line.server();
    let many = friends(MANY);
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let big = join_all((0..6).map(|number| {
        let server = &server;
        let many = &many;
        async move {
            server
                .import(&format!("op-big-{number}"), "user123", many)
                .await
        }
    }));
    let (big, ()) = tokio::join!(big, small_ones(&server, 20));
    for answer in big {
        // Some were evaluated until their time was over, others waited for them.
        let code = asserts::code(&answer);
        assert!([0, 5911, 5913].contains(&code), "{}", answer.text());
    }
}

#[tokio::test]
async fn an_evaluation_is_stopped_at_its_callers_deadline() {
    let policy = expensive_enforced();
    let decider = Service::decider(Settings::new().policy(&policy)).await;
    let channel = Channel::from_shared(decider.grpc_url()).unwrap();
    let mut client = DeciderClient::new(channel.connect().await.unwrap());
    let request = |friends| {
        let mut request = Request::new(DecideRequest {
            decision_id: "id".to_owned(),
            owner_user_id: "user123".to_owned(),
            friend_user_ids: friends,
        });
        let id = MetadataValue::from_static("op");
        request.metadata_mut().insert("operationid", id);
        request
    };
    let aborted = "importguard_decider_evaluations_aborted_total";
    // On a busy machine a short deadline ends before the evaluation begins.
    let mut deadlines = [30, 60, 120, 240, 400].into_iter().cycle();
    eventually("an evaluation is stopped", SOON, async || {
        let mut hurried = request(friends(MANY));
        hurried.set_timeout(Duration::from_millis(deadlines.next().unwrap()));
        let status = client.decide(hurried).await.unwrap_err();
        // The latter where our own time-out was faster.
        assert!(
            [Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()),
            "{status:?}"
        );
        let found = decider.metric(aborted).await?;
        anyhow::ensure!(found >= 1.0, "{found}");
        Ok(())
    })
    .await;
    client.decide(request(friends(1))).await.unwrap();
}

#[tokio::test]
async fn a_call_that_its_caller_gives_up_has_a_whole_span() {
    let receiver = OtlpReceiver::start().await;
    let policy = expensive_enforced();
    let settings = Settings::new().policy(&policy);
    let decider = Service::decider(settings.traces_to(&receiver)).await;
    let channel = Channel::from_shared(decider.grpc_url()).unwrap();
    let mut client = DeciderClient::new(channel.connect().await.unwrap());
    let mut request = Request::new(DecideRequest {
        decision_id: "id".to_owned(),
        owner_user_id: "user123".to_owned(),
        friend_user_ids: friends(MANY),
    });
    let parent = TraceParent::numbered(14);
    let metadata = request.metadata_mut();
    metadata.insert("operationid", MetadataValue::from_static("op"));
    metadata.insert("traceparent", parent.to_string().parse().unwrap());
    let call = timeout(Duration::from_millis(300), client.decide(request));
    assert!(call.await.is_err(), "the evaluation was over");
    let enough = |spans: &[Span]| spans.len() == 1;
    let spans = receiver.wait_for(&parent.trace_id, SOON, enough).await;
    let attributes = &spans[0].attributes;
    assert_eq!(attributes["rpc.response.status_code"], "CANCELLED");
    assert_eq!(
        attributes["rpc.method"],
        "importguard.decider.v1.Decider/Decide"
    );
    // By OpenTelemetry's conventions, this is no error of a server.
    assert_eq!(spans[0].error, None);
    let cancelled = "importguard_decider_request_duration_seconds_count{result=\"CANCELLED\"}";
    assert_eq!(decider.metric(cancelled).await.unwrap(), 1.0);
}
