//! Random connections of requests that are valid or invalid in every part: each answer is a refusal or the verdict that a model of the
//! policy expects, input that is not HTTP gets nothing to misread, and each decision is an event. `PROPTEST_CASES=5000` runs more.

mod body;
mod framing;
mod head;
mod model;
mod request;

use std::cell::Cell;

use importguard_tests::{Line, RawConnection, Response, Settings, wait_for_count};
use proptest::{
    collection::vec,
    prelude::{ProptestConfig, any},
    sample::Index,
    test_runner::{TestCaseError, TestRunner},
};
use tokio::runtime::Runtime;

use self::{
    model::Due,
    request::{Request, any_request},
};

/// Small enough for a request to exceed them in passing, and as patient as a busy machine needs.
fn settings() -> Settings {
    Settings::new()
        .set("IMPORTGUARD_MAX_BODY_BYTES", body::MAX_BYTES.to_string())
        .set("IMPORTGUARD_MAX_FRIENDS", body::MAX_FRIENDS.to_string())
        .set("IMPORTGUARD_MAX_HEADER_BYTES", head::MAX_BYTES.to_string())
        .set("IMPORTGUARD_REQUEST_BUDGET", "50s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "20s")
        .set("IMPORTGUARD_ACK_TIMEOUT", "20s")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "30s")
        .set("IMPORTGUARD_HEADER_READ_TIMEOUT", "30s")
}

#[test]
fn whatever_is_sent_each_answer_is_read_as_it_is_meant() {
    let runtime = Runtime::new().unwrap();
    let line = runtime.block_on(Line::with(settings()));
    let (decided, unclear) = (Cell::new(0), Cell::new(0));
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let connections = (vec(any_request(), 1..4), any::<Option<Index>>());
    let result = TestRunner::new(config).run(&connections, |(mut requests, cut)| {
        let last = requests.last_mut().unwrap();
        match cut {
            Some(at) => last.cut(at),
            None => last.close(),
        }
        let answers = runtime.block_on(converse(line.gateway.http_address(), &requests));
        for (request, answer) in requests.iter().zip(&answers) {
            match &request.due {
                // A report gets the same answer whether it was understood or not.
                Due::Either(..) if request.report => unclear.set(unclear.get() + 1),
                Due::Verdict(..) | Due::Either(..) if answer.status == 200 => {
                    decided.set(decided.get() + 1);
                }
                _ => {}
            }
        }
        check(&requests, &answers)
            .map_err(|why| TestCaseError::fail(format!("{why}\nanswers: {answers:#?}")))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    runtime.block_on(async {
        // Nothing is decided that is not recorded, and nothing is recorded that was not decided.
        let events = wait_for_count(&line.nats, decided.get()).await;
        let most = decided.get() + unclear.get();
        assert!(
            events.len() <= most,
            "{} events of at most {most}",
            events.len()
        );
        line.gateway.admin("/livez").await.unwrap();
    });
}

/// Sends all requests in one go, and returns every answer.
async fn converse(address: &str, requests: &[Request]) -> Vec<Response> {
    let bytes: Vec<u8> = requests.iter().flat_map(Request::bytes).collect();
    let mut connection = RawConnection::open(address).await;
    // A gateway that has read enough may hang up before all is sent.
    let _ = connection.send(bytes).await;
    // Only then: hyper takes it for a farewell where it waits for nothing.
    if requests.iter().any(|request| request.waits) {
        connection.finish().await;
    }
    connection.answers().await
}

fn check(requests: &[Request], answers: &[Response]) -> Result<(), String> {
    let mut answers = answers.iter();
    let mut may_have_hung_up = false;
    // What is found in the wrong place may look like a report, and a report in a wrong form is let pass.
    let astray = if requests.iter().any(|request| request.report) {
        Due::NothingOrPassed
    } else {
        Due::Nothing
    };
    for request in requests {
        match answers.next() {
            Some(answer) => request.due.check(answer)?,
            None if may_have_hung_up || request.due.may_be_missing() => return Ok(()),
            None => return Err(format!("no answer to {request:?}")),
        }
        if !request.ends_clearly {
            // Where the next one begins is anybody's guess, but not that it is let through.
            return answers.try_for_each(|answer| astray.check(answer));
        }
        may_have_hung_up |= request.may_be_last || !request.due.is_verdict();
    }
    match answers.next() {
        None => Ok(()),
        Some(_) => Err("more answers than requests".to_owned()),
    }
}
