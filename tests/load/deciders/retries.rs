//! Second attempts at a decision: when there is one, at which decider, and what its result means.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use importguard_core::Dialect;
use importguard_proto::decider::{
    DecideRequest, DecideResponse, Refuse,
    decide_response::Verdict,
    decider_server::{Decider, DeciderServer},
};
use importguard_tests::{FixedDecider, NatsServer, OpenIm, Proxy, Service, Settings};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::until;
use crate::{asserts, chaos::alone};

/// Says how long it was given, and answers nothing for as long as it is not to.
struct Clerk {
    given: Arc<Mutex<Vec<Duration>>>,
    /// What it answers, if anything.
    answer: Option<Status>,
}

#[tonic::async_trait]
impl Decider for Clerk {
    async fn decide(
        &self,
        request: Request<DecideRequest>,
    ) -> Result<Response<DecideResponse>, Status> {
        let timeout = request.metadata().get("grpc-timeout").unwrap();
        let (count, unit) = timeout.to_str().unwrap().split_at(timeout.len() - 1);
        let count = count.parse().unwrap();
        self.given.lock().unwrap().push(match unit {
            "n" => Duration::from_nanos(count),
            "u" => Duration::from_micros(count),
            "m" => Duration::from_millis(count),
            other => panic!("a time-out in {other}"),
        });
        match &self.answer {
            Some(status) => Err(status.clone()),
            None => std::future::pending().await,
        }
    }
}

async fn clerk(silent: bool) -> (String, Arc<Mutex<Vec<Duration>>>) {
    let answer = (!silent).then(|| Status::internal("it only takes notes"));
    clerk_answering(answer).await
}

async fn clerk_answering(answer: Option<Status>) -> (String, Arc<Mutex<Vec<Duration>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let given = Arc::default();
    let service = DeciderServer::new(Clerk {
        given: Arc::clone(&given),
        answer,
    });
    let server = Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (url, given)
}

#[tokio::test]
async fn a_second_one_that_fails_does_not_end_the_wait_for_the_first() {
    let (_slow, slow_url) = FixedDecider::allowing_after(Duration::from_secs(1)).await;
    let (failing_url, _) = clerk(false).await;
    let nats = NatsServer::start().await;
    let settings = Settings::new()
        .nats(&nats)
        .set("IMPORTGUARD_DECIDER_RETRY_AFTER", "100ms")
        .set(
            "IMPORTGUARD_DECIDER_URL",
            format!("{slow_url},{failing_url}"),
        );
    let gateway = Service::gateway(settings).await;
    until(&gateway, 2, 2).await;
    let server = OpenIm::server(gateway.url());
    let mut codes = Vec::new();
    // Each of the two is the first one once.
    for number in 0..2 {
        let answer = server.import(&format!("op{number}"), "a", &["b"]).await;
        codes.push(asserts::code(&answer));
    }
    codes.sort_unstable();
    assert_eq!(codes, [0, 5912]);
}

#[tokio::test]
async fn an_error_of_the_second_one_counts_where_the_first_stays_silent() {
    let ((silent_url, _), (failing_url, _)) = (clerk(true).await, clerk(false).await);
    let nats = NatsServer::start().await;
    let settings = Settings::new()
        .nats(&nats)
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "2s")
        .set(
            "IMPORTGUARD_DECIDER_URL",
            format!("{silent_url},{failing_url}"),
        );
    let gateway = Service::gateway(settings).await;
    until(&gateway, 2, 2).await;
    let server = OpenIm::server(gateway.url());
    for number in 0..2 {
        let answer = server.import(&format!("op{number}"), "a", &["b"]).await;
        asserts::refuses(Dialect::Server, &answer, 200, 5912);
    }
}

#[tokio::test]
async fn each_is_given_what_is_left_of_the_time() {
    let _turn = alone().await;
    let ((first, to_first), (second, to_second)) = (clerk(true).await, clerk(true).await);
    let settings = Settings::new()
        .set("IMPORTGUARD_DECIDER_URL", format!("{first},{second}"))
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "18s")
        .set("IMPORTGUARD_DECIDER_RETRY_AFTER", "8s")
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h")
        .set("IMPORTGUARD_REQUEST_BUDGET", "14s");
    let gateway = Service::gateway(settings).await;
    let answer = OpenIm::server(gateway.url())
        .import("op", "a", &["b"])
        .await;
    // Who waited for as long as there was time may have none left to record that.
    let code = asserts::code(&answer);
    assert!([5911, 5914].contains(&code), "{code}");
    let mut given = [to_first, to_second].map(|given| given.lock().unwrap().clone());
    given.sort();
    let [late, early] = given.map(|given| <[Duration; 1]>::try_from(given).unwrap()[0]);
    let seconds = Duration::from_secs;
    assert!(seconds(8) < early && early <= seconds(14), "{early:?}");
    assert!(!late.is_zero() && late <= seconds(6), "{late:?}");
}

/// One more than a request may have that is put to several deciders.
fn many_friends() -> Vec<String> {
    (0..1_001).map(|number| format!("f{number}")).collect()
}

#[tokio::test]
async fn a_request_with_many_friends_is_put_to_one_decider_only() {
    let ((first, to_first), (second, to_second)) = (clerk(true).await, clerk(true).await);
    let settings = Settings::new()
        .set("IMPORTGUARD_DECIDER_URL", format!("{first},{second}"))
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "3s")
        .set("IMPORTGUARD_DECIDER_RETRY_AFTER", "20ms");
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url());
    let asked = || [&to_first, &to_second].map(|given| given.lock().unwrap().len());
    let friends = many_friends();
    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
    let answer = server.import("op", "a", &friends).await;
    asserts::refuses(Dialect::Server, &answer, 200, 5911);
    assert_eq!(asked().iter().sum::<usize>(), 1, "{:?}", asked());
    let answer = server.import("op", "a", &friends[1..]).await;
    asserts::refuses(Dialect::Server, &answer, 200, 5911);
    assert_eq!(asked().iter().sum::<usize>(), 3, "{:?}", asked());
}

#[tokio::test]
async fn a_decider_whose_connection_broke_is_asked_again_where_there_is_no_other() {
    let decider = Service::decider(Settings::new()).await;
    let proxy = Proxy::to(decider.grpc_url().replace("http://", "")).await;
    let settings = Settings::new()
        .set(
            "IMPORTGUARD_DECIDER_URL",
            format!("http://{}", proxy.address()),
        )
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h");
    let gateway = Service::gateway(settings).await;
    until(&gateway, 1, 1).await;
    let server = OpenIm::server(gateway.url());
    asserts::allows(Dialect::Server, &server.import("op", "a", &["b"]).await);
    let ((), answer) = tokio::join!(proxy.cut(), server.import("op", "a", &["b"]));
    asserts::allows(Dialect::Server, &answer);
    let unavailable = "importguard_decider_retries_total{reason=\"unavailable\"}";
    assert_eq!(gateway.metric(unavailable).await.unwrap(), 1.0);
}

#[tokio::test]
async fn a_request_with_many_friends_is_put_to_another_decider_where_the_first_did_not_process_it()
{
    let settings = Settings::new();
    let mut dead = Service::decider(settings.clone()).await;
    let (declining, declined) = clerk_answering(Some(Status::unavailable("not now"))).await;
    let decider = Service::decider(settings).await;
    let urls = [dead.grpc_url(), declining, decider.grpc_url()].join(",");
    let settings = Settings::new()
        .set("IMPORTGUARD_DECIDER_URL", urls)
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "10s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "20s")
        .set("IMPORTGUARD_DECIDER_RETRY_AFTER", "10s")
        .set("IMPORTGUARD_DECIDER_CHECK_INTERVAL", "1h");
    let gateway = Service::gateway(settings).await;
    until(&gateway, 3, 3).await;
    dead.kill9();
    // By then the gateway has noticed the end of the connection.
    gateway.admin("/readyz").await.unwrap();
    let server = OpenIm::server(gateway.url());
    let friends = many_friends();
    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
    for _ in 0..6 {
        asserts::allows(Dialect::Server, &server.import("op", "a", &friends).await);
    }
    assert!(!declined.lock().unwrap().is_empty());
    let unavailable = "importguard_decider_retries_total{reason=\"unavailable\"}";
    assert!(gateway.metric(unavailable).await.unwrap() >= 2.0);
}

#[tokio::test]
async fn an_answer_may_be_as_large_as_the_most_friends_make_it() {
    let refuse = Refuse {
        code: 5001,
        rule: "r".to_owned(),
        message: "no".to_owned(),
        detail: "x".repeat(5 << 20),
    };
    let (_decider, url) = FixedDecider::answering(Verdict::Refuse(refuse)).await;
    for (max_friends, code) in [("10000", 5912), ("1000000", 5001)] {
        let settings = Settings::new()
            .set("IMPORTGUARD_DECIDER_URL", &*url)
            .set("IMPORTGUARD_DECIDER_TIMEOUT", "20s")
            .set("IMPORTGUARD_REQUEST_BUDGET", "60s")
            .set("IMPORTGUARD_MAX_FRIENDS", max_friends);
        let gateway = Service::gateway(settings).await;
        let answer = OpenIm::server(gateway.url())
            .import("op", "a", &["b"])
            .await;
        assert_eq!(asserts::code(&answer), code);
    }
}
