//! What peers can hold open at a decider: streams of the health and the reflection service, and connections beyond their age.

use importguard_core::Dialect;
use importguard_tests::{
    Frame, Http2Connection, OpenIm, SOON, Service, Settings, eventually, load,
};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

use crate::asserts;

/// How many calls that are no decisions a connection may have open.
const MAX_OTHERS: usize = 4;

async fn channel(decider: &Service) -> Channel {
    let endpoint = Channel::from_shared(decider.grpc_url()).unwrap();
    endpoint.connect().await.unwrap()
}

async fn check(channel: &Channel) -> Result<ServingStatus, Status> {
    let mut health = HealthClient::new(channel.clone());
    let answer = health.check(HealthCheckRequest::default()).await?;
    Ok(answer.into_inner().status())
}

async fn watch(channel: &Channel) -> Result<Streaming<HealthCheckResponse>, Status> {
    let mut health = HealthClient::new(channel.clone());
    let answer = health.watch(HealthCheckRequest::default()).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn peers_with_many_open_streams_hold_up_neither_decisions_nor_health_checks() {
    const CONNECTIONS: usize = 30;
    const STREAMS: u32 = 512;
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_SHUTDOWN_GRACE", "60s");
    let settings = settings.set("IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT", "60s");
    let decider = Service::decider(settings).await;
    let address = decider.grpc_url().replace("http://", "");
    let _held = load(CONNECTIONS, CONNECTIONS, async |_| {
        let mut connection = Http2Connection::open(&address).await;
        for call in 0..STREAMS {
            let path = "/grpc.health.v1.Health/Watch";
            // A message without fields.
            connection.call(2 * call + 1, path, &[0; 5]).await;
        }
        let answer = connection.next(1).await;
        assert_eq!(answer.kind, Frame::HEADERS);
        connection
    })
    .await;
    let status = check(&channel(&decider).await).await.unwrap();
    assert_eq!(status, ServingStatus::Serving);
    let gateway = Service::gateway(Settings::new().decider(&decider)).await;
    let server = OpenIm::server(gateway.url());
    asserts::allows(Dialect::Server, &server.import("op", "a", &["b"]).await);
    // Gateways still learn that it stops.
    decider.sigterm();
    gateway
        .wait_for_log(&["unavailable: health check reports NOT_SERVING"])
        .await;
}

#[tokio::test]
async fn a_connection_has_a_few_streams_and_any_number_of_decisions() {
    let decider = Service::decider(Settings::new()).await;
    let channel = channel(&decider).await;
    let mut open = Vec::new();
    for _ in 0..MAX_OTHERS {
        open.push(watch(&channel).await.unwrap());
    }
    for status in [
        watch(&channel).await.map(drop).unwrap_err(),
        check(&channel).await.unwrap_err(),
    ] {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    let gateway = Service::gateway(Settings::new().decider(&decider)).await;
    let server = OpenIm::server(gateway.url());
    asserts::allows(Dialect::Server, &server.import("op", "a", &["b"]).await);
    open.pop();
    eventually("there is room for a check", SOON, async || {
        check(&channel).await
    })
    .await;
}

#[tokio::test]
async fn open_streams_end_when_a_decider_stops() {
    let settings = Settings::new()
        .set("IMPORTGUARD_DECIDER_SHUTDOWN_GRACE", "0s")
        .set("IMPORTGUARD_DECIDER_SHUTDOWN_TIMEOUT", "10m");
    let mut decider = Service::decider(settings).await;
    let channel = channel(&decider).await;
    let mut watched = watch(&channel).await.unwrap();
    assert!(watched.next().await.unwrap().is_ok());
    let questions = Request::new(tokio_stream::pending());
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let mut reflected = reflection.server_reflection_info(questions).await.unwrap();
    assert!(decider.terminate(SOON).await.success());
    decider.wait_for_log(&["all calls are answered"]).await;
    let last = watched.collect::<Vec<_>>().await.pop().unwrap();
    for end in [
        last.map(drop),
        reflected.get_mut().message().await.map(drop),
    ] {
        assert_eq!(end.unwrap_err().code(), Code::Unavailable);
    }
}

#[tokio::test]
async fn a_connection_of_the_maximum_age_is_not_cut_but_ends_by_http2s_rules() {
    let settings = Settings::new()
        .set("IMPORTGUARD_DECIDER_MAX_CONNECTION_AGE", "10ms")
        .set("IMPORTGUARD_DECIDER_REQUEST_TIMEOUT", "10ms");
    let decider = Service::decider(settings).await;
    let address = decider.grpc_url().replace("http://", "");
    let mut connection = Http2Connection::open(&address).await;
    connection.is_told_to_leave().await;
}
