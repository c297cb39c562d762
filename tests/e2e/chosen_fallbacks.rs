//! No caller chooses the operator's fallback: who sends too late, or does not read, is rejected where a fallback would allow.

use std::{thread::available_parallelism, time::Duration};

use importguard_core::Dialect::Server;
use importguard_tests::{
    Http2Connection, Line, OpenIm, PolicyDir, RawConnection, Response, SOON, Settings, eventually,
    load, post,
};
use tokio::time::timeout;

use crate::asserts;

const PATH: &str = "/callbackBeforeImportFriendsCommand";

/// Whatever is not decided is allowed.
fn allowing() -> Settings {
    Settings::new()
        .set("IMPORTGUARD_ON_OVERLOAD", "allow")
        .set("IMPORTGUARD_ON_DECIDER_TIMEOUT", "allow")
        .set("IMPORTGUARD_ON_UNRECORDABLE", "allow")
}

/// Callbacks that were answered by the fallback for `cause`.
async fn allowed(line: &Line, cause: &str) -> f64 {
    let decisions = line.gateway.admin("/metrics").await.unwrap();
    let by_cause = format!("cause=\"{cause}\"");
    let counted = decisions.lines().filter(|line| {
        line.starts_with("importguard_decisions_total{") && line.contains(&by_cause)
    });
    counted
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// `errCode`, whatever the status.
fn code(answer: &Response) -> i64 {
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    answer["errCode"].as_i64().unwrap()
}

#[tokio::test]
async fn who_reads_no_response_is_rejected() {
    const STREAMS: u32 = 30;
    let line = Line::with(allowing().set("IMPORTGUARD_QUEUE_TIMEOUT", "100ms")).await;
    let body = line.server().body("blocked_owner", &["user2"]);
    let mut connection = Http2Connection::open_with_window(line.gateway.http_address(), 0).await;
    for number in 0..STREAMS {
        connection.post(2 * number + 1, PATH, body.as_bytes()).await;
    }
    // The heads of all answers are let through.
    for _ in 0..STREAMS {
        connection.next_on_any_stream().await;
    }
    assert_eq!(allowed(&line, "overloaded").await, 0.0);
    let rejected = line
        .gateway
        .metric("importguard_rejections_total{code=\"5913\"}");
    assert!(rejected.await.unwrap() >= 20.0);
    line.gateway.wait_for_log(&["responses not read"]).await;
}

#[tokio::test]
async fn so_is_who_sends_the_last_byte_when_the_deciders_time_begins() {
    let settings = allowing()
        .set("IMPORTGUARD_REQUEST_BUDGET", "12s")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "12s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "6s");
    let line = Line::with(settings).await;
    let request = post(PATH, "op", &line.server().body("blocked_owner", &["user2"]));
    let (most, last) = request.split_at(request.len() - 1);
    let mut connection = RawConnection::open(line.gateway.http_address()).await;
    connection.send(most).await.unwrap();
    // The decider's time begins after 4.5 seconds: seven eighths of the budget are for the decision.
    let answer = match timeout(Duration::from_secs(7), connection.answer()).await {
        Ok(answer) => answer,
        Err(_) => {
            connection.send(last).await.unwrap();
            connection.answer().await
        }
    };
    asserts::refuses(Server, &answer, 408, 5900);
    assert_eq!(allowed(&line, "deciderTimeout").await, 0.0);
}

#[tokio::test]
async fn without_memory_for_bodies_the_fallback_for_overload_applies_and_is_counted() {
    const CALLBACKS: usize = 12;
    let settings = allowing()
        .set("IMPORTGUARD_MAX_BYTES_IN_FLIGHT", "1MiB")
        .set("IMPORTGUARD_MAX_BODY_BYTES", "512KiB")
        .set("IMPORTGUARD_ON_DECIDER_TIMEOUT", "refuse")
        // The decider is waited for when those who wait for memory have given up.
        .set("IMPORTGUARD_REQUEST_BUDGET", "4s")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "3s");
    let line = Line::with(settings).await;
    line.decider.freeze().await;
    let friends: Vec<_> = (0..9_000).map(|n| format!("a_friend_{n:032}")).collect();
    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
    let request = post(PATH, "op", &OpenIm::server("").body("user1", &friends));
    // A connection that stalls others is closed, which ends its body, and its caller may see no answer.
    let answers = load(CALLBACKS, CALLBACKS, async |_| {
        let (address, request) = (line.gateway.http_address().to_owned(), request.clone());
        let conversation = tokio::spawn(async move {
            let mut connection = RawConnection::open(&address).await;
            connection.send(&request).await.unwrap();
            connection.answer().await
        });
        conversation.await.ok()
    })
    .await;
    line.decider.thaw();
    let codes: Vec<_> = answers.iter().flatten().map(code).collect();
    // The decider's silence is answered as set.
    let is_due = |code: &i64| matches!(code, 0 | 5900 | 5910 | 5911);
    assert!(codes.iter().all(is_due), "{codes:?}");
    let by_overload = codes.iter().filter(|code| **code == 0).count();
    assert!(by_overload > 0, "{codes:?}");
    eventually("they are counted", SOON, async || {
        let unrecorded = line
            .gateway
            .metric("importguard_overload_unrecorded_total")
            .await?;
        let counted = allowed(&line, "overloaded").await;
        let most = by_overload + CALLBACKS - codes.len();
        for count in [unrecorded as usize, counted as usize] {
            anyhow::ensure!((by_overload..=most).contains(&count), "{count}");
        }
        Ok(())
    })
    .await;
    line.gateway
        .wait_for_log(&["callbacks exceeded the capacity"])
        .await;
}

/// What callers cause together is overload, whatever they import: it is not the decider that is slow.
#[tokio::test]
async fn imports_that_wait_for_other_expensive_ones_are_overload() {
    // Seconds in a debug build.
    let names = vec!["'a'"; 140].join(",");
    let policy = PolicyDir::new(
        &format!(
            "apiVersion: importguard/v1\nname: expensive\nrules:\n  - {{ id: names, dropFriendIf: \"[{names}].exists(x, x == friend)\" }}\n"
        ),
        &[],
    );
    let settings = allowing()
        .set("IMPORTGUARD_ON_DECIDER_TIMEOUT", "refuse")
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "2s")
        // So that its status arrives in time on a busy machine.
        .set("IMPORTGUARD_DECIDER_REQUEST_TIMEOUT", "500ms")
        .set("IMPORTGUARD_DECIDER_MAX_FRIENDS", "1000")
        .policy(&policy);
    let line = Line::with(settings).await;
    let friends: Vec<_> = (0..1000).map(|n| format!("friend{n}")).collect();
    let friends: Vec<_> = friends.iter().map(String::as_str).collect();
    // One evaluation for each processor but one at a time.
    let callbacks = 2 * available_parallelism().unwrap().get() + 6;
    let server = line.server();
    let answers = load(callbacks, callbacks, async |number| {
        let id = format!("op-{number}");
        server.import(&id, "user1", &friends).await
    })
    .await;
    let codes: Vec<_> = answers.iter().map(code).collect();
    assert!(codes.iter().all(|it| [0, 5911].contains(it)), "{codes:?}");
    let overloaded = allowed(&line, "overloaded").await;
    assert!(overloaded >= 1.0, "{codes:?}");
    line.gateway
        .wait_for_log(&["the decider is overloaded"])
        .await;
}

/// The deciders are not slow: the gateway has no time to hear from them.
#[tokio::test]
async fn imports_for_whose_verdicts_the_gateway_itself_is_too_busy_are_overload() {
    const CALLBACKS: usize = 400;
    let settings = allowing()
        .set("IMPORTGUARD_DECIDER_TIMEOUT", "20ms")
        .set("IMPORTGUARD_MAX_IN_FLIGHT", "1000");
    let line = Line::with(settings).await;
    let server = line.server();
    eventually("the gateway is too busy", SOON, async || {
        load(CALLBACKS, CALLBACKS, async |number| {
            let id = format!("op-{number}");
            server.import(&id, "user1", &["user2"]).await
        })
        .await;
        match allowed(&line, "overloaded").await {
            0.0 => Err("it is not"),
            _ => Ok(()),
        }
    })
    .await;
    line.gateway
        .wait_for_log(&["this gateway was too busy"])
        .await;
}
