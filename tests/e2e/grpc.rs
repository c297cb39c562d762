//! The decider with other gRPC clients.

use std::process::Command;

use importguard_proto::decider::{
    DecideRequest, Outcome, decide_response::Verdict, decider_client::DeciderClient,
};
use importguard_tests::{Service, Settings, tool, workspace};
use tokio_stream::StreamExt;
use tonic::{Code, Request, metadata::MetadataValue, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

async fn decider() -> (Service, Channel) {
    let decider = Service::decider(Settings::new()).await;
    let channel = Channel::from_shared(decider.grpc_url()).unwrap();
    let channel = channel.connect().await.unwrap();
    (decider, channel)
}

fn request(owner: &str, friends: &[&str]) -> Request<DecideRequest> {
    let mut request = Request::new(DecideRequest {
        decision_id: "0193c0de-0000-7000-8000-000000000001".to_owned(),
        owner_user_id: owner.to_owned(),
        friend_user_ids: friends.iter().map(|f| (*f).to_owned()).collect(),
    });
    let id = MetadataValue::from_static("op");
    request.metadata_mut().insert("operationid", id);
    request
}

#[tokio::test]
async fn its_health_service_reports_serving() {
    let (_decider, channel) = decider().await;
    let mut health = HealthClient::new(channel);
    for service in ["", "importguard.decider.v1.Decider"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = health.check(request).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
}

#[tokio::test]
async fn reflection_lists_its_service() {
    let (_decider, channel) = decider().await;
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list of services: {answer:?}");
    };
    let names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    assert!(
        names.iter().any(|n| n == "importguard.decider.v1.Decider"),
        "{names:?}"
    );
}

#[tokio::test]
async fn without_reflection_its_services_are_not_listed() {
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_REFLECTION", "false");
    let decider = Service::decider(settings).await;
    let channel = Channel::from_shared(decider.grpc_url()).unwrap();
    let mut client = ServerReflectionClient::new(channel.connect().await.unwrap());
    let none = tokio_stream::empty::<ServerReflectionRequest>();
    let status = client.server_reflection_info(none).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
}

#[tokio::test]
async fn it_decides_by_the_policy_and_names_policy_and_lists() {
    let (_decider, channel) = decider().await;
    let mut client = DeciderClient::new(channel);
    let mut decide = async |owner: &str, friends: &[&str]| {
        let answer = client.decide(request(owner, friends)).await;
        answer.unwrap().into_inner()
    };

    let allowed = decide("user123", &["a", "b"]).await;
    assert!(
        matches!(allowed.verdict, Some(Verdict::Allow(_))),
        "{allowed:?}"
    );
    assert_eq!(allowed.rules, []);
    let policy = allowed.policy.unwrap();
    assert_eq!(policy.name, "e2e");
    assert_eq!(
        policy.digest.len(),
        "sha256:".len() + 64,
        "{}",
        policy.digest
    );
    assert_eq!(allowed.lists[0].name, "blocked");
    assert!(!allowed.decider.is_empty());

    let refused = decide("blocked_owner", &["a"]).await;
    let Some(Verdict::Refuse(refuse)) = &refused.verdict else {
        panic!("not refused: {refused:?}");
    };
    assert_eq!((refuse.rule.as_str(), refuse.code), ("blocked-owner", 5001));
    assert_eq!(refused.rules[0].outcome(), Outcome::Refuse);

    let modified = decide("user123", &["a", "bot_7", "b", "blocked_2"]).await;
    let Some(Verdict::Modify(modify)) = &modified.verdict else {
        panic!("not modified: {modified:?}");
    };
    assert_eq!(modify.friends, [0, 2]);
    assert_eq!(modified.removed[0].rule, "blocked-friends");
    assert_eq!(modified.removed[0].friends, [1, 3]);
}

#[tokio::test]
async fn an_empty_id_is_an_invalid_argument() {
    let (_decider, channel) = decider().await;
    let mut client = DeciderClient::new(channel);
    let mut nameless = request("user123", &["a"]);
    nameless.metadata_mut().remove("operationid");
    for request in [
        request("", &["a"]),
        request("user123", &["a", ""]),
        nameless,
    ] {
        let status = client.decide(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
}

#[test]
fn the_contract_keeps_to_the_rules_of_buf() {
    let Some(buf) = tool("buf", "BUF", "buf lint proto") else {
        return;
    };
    let mut lint = Command::new(buf);
    let lint = lint.current_dir(workspace()).args(["lint", "proto"]);
    let output = lint.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
}
