//! The decider's limits, each with the status that the caller gets.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use importguard_core::Dialect;
use importguard_proto::decider::{DecideRequest, DecideResponse, decider_client::DeciderClient};
use importguard_tests::{
    Http2Connection, OpenIm, OtlpReceiver, SOON, Service, Settings, Span, eventually, load,
};
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::asserts;

async fn channel(decider: &Service) -> Channel {
    let endpoint = Endpoint::from_shared(decider.grpc_url()).unwrap();
    endpoint.connect().await.unwrap()
}

/// About so many friends whose IDs have numbers of at least so many digits.
fn question(friends: usize, digits: usize) -> DecideRequest {
    DecideRequest {
        decision_id: "id".to_owned(),
        owner_user_id: "user123".to_owned(),
        friend_user_ids: (0..friends)
            .map(|number| format!("friend{number:0digits$}"))
            .collect(),
    }
}

/// With the operationID that each call has.
fn named(message: DecideRequest) -> Request<DecideRequest> {
    let mut request = Request::new(message);
    let id = MetadataValue::from_static("op");
    request.metadata_mut().insert("operationid", id);
    request
}

async fn ask(channel: &Channel, friends: usize) -> Result<(), Status> {
    put(channel, question(friends, 1)).await
}

async fn put(channel: &Channel, question: DecideRequest) -> Result<(), Status> {
    let mut client = DeciderClient::new(channel.clone());
    client.decide(named(question)).await.map(drop)
}

/// A question whose end never comes.
async fn ask_without_end(channel: &Channel) -> Status {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/importguard.decider.v1.Decider/Decide");
    let codec = ProstCodec::<DecideRequest, DecideResponse>::default();
    let stream = tokio_stream::pending::<DecideRequest>();
    let answer = client.client_streaming(Request::new(stream), path, codec);
    timeout(SOON, answer).await.unwrap().unwrap_err()
}

#[tokio::test]
async fn a_question_that_is_too_large_is_refused_and_the_gateway_falls_back() {
    // Fifty friends with the longest IDs and their framing, and what else a message holds.
    let most_bytes = (50 * (256 + 8) + 1024).to_string();
    for (digits, value, code) in [
        (1, "50", Code::InvalidArgument),
        (100, &*most_bytes, Code::OutOfRange),
    ] {
        let question = |friends| question(friends, digits);
        let receiver = OtlpReceiver::start().await;
        let settings = Settings::new().set("IMPORTGUARD_DECIDER_MAX_FRIENDS", "50");
        let decider = Service::decider(settings.traces_to(&receiver)).await;
        let channel = channel(&decider).await;
        put(&channel, question(50)).await.unwrap();
        let status = put(&channel, question(200)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(value), "{status:?}");
        is_reported(&decider, name(code), "IMPORTGUARD_DECIDER_MAX_FRIENDS=50").await;
        eventually("its span arrives", SOON, async || {
            let spans = receiver.all();
            let has_code = |span: &Span| {
                let found = span.attributes.get("rpc.response.status_code");
                found.is_some_and(|found| found == name(code))
            };
            let found = spans.iter().any(has_code);
            found.then_some(()).ok_or_else(|| format!("{spans:#?}"))
        })
        .await;

        let gateway = Service::gateway(Settings::new().decider(&decider)).await;
        let server = OpenIm::server(gateway.url());
        let many = question(200).friend_user_ids;
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let answer = server.import("op", "user123", &many).await;
        asserts::refuses(Dialect::Server, &answer, 200, 5912);
        let refused = format!("{}: ", name(code));
        gateway.wait_for_log(&[&refused, value]).await;
        let answer = server.import("op", "user123", &many[..50]).await;
        asserts::allows(Dialect::Server, &answer);
    }
}

/// Waits until a refused call is counted and logged with the setting to change.
async fn is_reported(decider: &Service, result: &str, setting: &str) {
    let count =
        format!("importguard_decider_request_duration_seconds_count{{result=\"{result}\"}}");
    decider.wait_for_metric(&count, |found| found == 1.0).await;
    let result = format!("result=\"{result}\"");
    decider
        .wait_for_log(&["WARN refused a call", setting, &result])
        .await;
}

fn name(code: Code) -> &'static str {
    match code {
        Code::OutOfRange => "OUT_OF_RANGE",
        _ => "INVALID_ARGUMENT",
    }
}

#[tokio::test]
async fn a_question_that_does_not_arrive_in_time_is_cancelled() {
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_REQUEST_TIMEOUT", "300ms");
    let decider = Service::decider(settings).await;
    let began = Instant::now();
    let status = ask_without_end(&channel(&decider).await).await;
    assert_eq!(status.code(), Code::Cancelled, "{status:?}");
    assert!(began.elapsed() > Duration::from_millis(250));
    is_reported(&decider, "CANCELLED", "IMPORTGUARD_DECIDER_REQUEST_TIMEOUT").await;
}

/// Messages that say that they are as long as a message may be, of which only the beginning ever arrives.
#[tokio::test]
async fn incomplete_messages_take_bounded_memory_and_hold_up_no_other_call() {
    const CONNECTIONS: usize = 8;
    const CALLS: u32 = 200;
    const SENT: usize = 160_000;
    const MIB: u64 = 1 << 20;
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_REQUEST_TIMEOUT", "60s");
    let decider = Service::decider(settings).await;
    let channel = channel(&decider).await;
    ask(&channel, 1).await.unwrap();
    let at_rest = decider.vitals().resident_bytes;
    let more = || decider.vitals().resident_bytes.saturating_sub(at_rest) / MIB;
    let address = decider.grpc_url().replace("http://", "");
    let mut message = vec![0; SENT];
    // Not compressed, and the length that is declared.
    message[1..5].copy_from_slice(&2_600_000_u32.to_be_bytes());
    let held = load(CONNECTIONS, CONNECTIONS, async |_| {
        let mut connection = Http2Connection::open(&address).await;
        for call in 0..CALLS {
            let path = "/importguard.decider.v1.Decider/Decide";
            connection
                .call_without_end(2 * call + 1, path, &message)
                .await;
        }
        connection
    })
    .await;
    ask(&channel, 1).await.unwrap();
    let most = more();
    assert!(most <= 100, "{most} MiB more than at rest");
    drop(held);
    eventually("the memory is released", SOON, async || match more() {
        0..=20 => Ok(()),
        more => Err(format!("{more} MiB more than at rest")),
    })
    .await;
}

#[tokio::test]
async fn more_calls_than_a_connection_may_have_open_wait() {
    const MAX_STREAMS: usize = 512;
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_REQUEST_TIMEOUT", "3s");
    let decider = Service::decider(settings).await;
    let channel = channel(&decider).await;
    // So that the decider's settings have arrived.
    ask(&channel, 1).await.unwrap();
    let began = Instant::now();
    let second = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        ask(&channel, 1).await.unwrap();
        began.elapsed()
    };
    let held = join_all((0..MAX_STREAMS).map(|_| ask_without_end(&channel)));
    let (held, waited) = tokio::join!(held, second);
    for held in held {
        assert_eq!(held.code(), Code::Cancelled, "{held:?}");
    }
    assert!(waited > Duration::from_millis(2900), "{waited:?}");
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused_and_the_connection_lives_on() {
    let decider = Service::decider(Settings::new()).await;
    let channel = channel(&decider).await;
    let mut large = named(question(1, 1));
    let filler: MetadataValue<_> = "x".repeat(20_000).parse().unwrap();
    large.metadata_mut().insert("filler", filler);
    let status = DeciderClient::new(channel.clone()).decide(large).await;
    assert!(status.is_err(), "{status:?}");
    ask(&channel, 1).await.unwrap();
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_the_gateway_falls_back() {
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_MAX_CONNECTIONS", "1");
    let decider = Service::decider(settings).await;
    let first = channel(&decider).await;
    ask(&first, 1).await.unwrap();
    let gateway = Service::gateway(Settings::new().decider(&decider)).await;
    let server = OpenIm::server(gateway.url());
    let answer = server.import("op", "a", &["b"]).await;
    asserts::refuses(Dialect::Server, &answer, 200, 5910);
    ask(&first, 1).await.unwrap();
    let rejected = "importguard_decider_connections_rejected_total";
    assert!(decider.metric(rejected).await.unwrap() > 0.0);
    decider
        .wait_for_log(&["IMPORTGUARD_DECIDER_MAX_CONNECTIONS"])
        .await;

    drop(first);
    eventually("there is room again", SOON, async || {
        match asserts::code(&server.import("op", "a", &["b"]).await) {
            0 => Ok(()),
            code => Err(code),
        }
    })
    .await;
}

#[tokio::test]
async fn silent_clients_are_disconnected_and_those_that_answer_pings_are_not() {
    let settings = Settings::new().set("IMPORTGUARD_DECIDER_IDLE_TIMEOUT", "5s");
    let decider = Service::decider(settings).await;
    let alive = channel(&decider).await;
    ask(&alive, 1).await.unwrap();
    let address = decider.grpc_url().replace("http://", "");
    let mut silent = TcpStream::connect(&address).await.unwrap();
    let began = Instant::now();
    let mut said = Vec::new();
    // However it is closed: what counts is that it is.
    let _ = timeout(SOON, silent.read_to_end(&mut said)).await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(4900));
    let open = "importguard_decider_connections";
    decider.wait_for_metric(open, |open| open == 1.0).await;
    ask(&alive, 1).await.unwrap();
}
