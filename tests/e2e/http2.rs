//! HTTP/2 on the public listener, frame by frame: answers that h2 gives before importguard sees a request never consent.

use std::time::Duration;

use importguard_tests::{Frame, Http2Connection, Service, Settings};

const NO_ERROR: [u8; 4] = [0, 0, 0, 0];
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

#[tokio::test]
async fn one_request_too_many_on_a_connection_is_refused_and_the_others_are_answered() {
    let settings = Settings::new()
        .set("IMPORTGUARD_HTTP2_MAX_STREAMS", "2")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "15s")
        .set("IMPORTGUARD_REQUEST_BUDGET", "15s");
    let gateway = Service::gateway(settings).await;
    let mut connection = Http2Connection::open(gateway.http_address()).await;
    for stream in [1, 3, 5] {
        connection.begin(stream, 0).await;
    }
    let refused = connection.next(5).await;
    assert_eq!(refused.kind, Frame::RST_STREAM);
    assert_eq!(refused.payload, REFUSED_STREAM);

    // An empty body is none, which is said in a body.
    connection
        .send(Frame::DATA, Frame::END_STREAM, 3, &[])
        .await;
    assert_eq!(connection.next(3).await.kind, Frame::HEADERS);
    let answer = connection.next(3).await;
    assert_eq!(answer.kind, Frame::DATA);
    let answer = String::from_utf8(answer.payload).unwrap();
    assert!(answer.contains(r#""errCode":5900"#), "{answer}");
    // There is room again.
    connection.begin(7, 0).await;
    connection
        .send(Frame::DATA, Frame::END_STREAM, 7, &[])
        .await;
    assert_eq!(connection.next(7).await.kind, Frame::HEADERS);
}

#[tokio::test]
async fn headers_that_h2_itself_does_not_take_get_no_body_to_misunderstand() {
    let settings = Settings::new().set("IMPORTGUARD_MAX_HEADER_BYTES", "4096");
    let gateway = Service::gateway(settings).await;
    let mut connection = Http2Connection::open(gateway.http_address()).await;
    // Between one and four times the bound the answer is importguard's.
    connection.begin(1, 8_000).await;
    assert_eq!(connection.next(1).await.kind, Frame::HEADERS);
    let answer = connection.next(1).await;
    assert_eq!(answer.kind, Frame::DATA);
    let answer = String::from_utf8(answer.payload).unwrap();
    assert!(answer.contains(r#""errCode":5903"#), "{answer}");
    // Beyond that it is h2's: a status, and no body that could be read as consent.
    connection.begin(3, 20_000).await;
    let answer = connection.next(3).await;
    assert_eq!(
        (answer.kind, answer.flags),
        (Frame::HEADERS, Frame::END_HEADERS | Frame::END_STREAM)
    );
    // The connection goes on.
    connection.begin(5, 0).await;
    connection
        .send(Frame::DATA, Frame::END_STREAM, 5, &[])
        .await;
    assert_eq!(connection.next(5).await.kind, Frame::HEADERS);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_does_not_reset_the_stream_under_a_caller_that_still_sends()
 {
    let settings = Settings::new().set("IMPORTGUARD_BASE_PATH", "/secret");
    let gateway = Service::gateway(settings).await;
    let mut connection = Http2Connection::open(gateway.http_address()).await;
    connection.begin(1, 0).await;
    assert_eq!(connection.next(1).await.kind, Frame::HEADERS);
    let answer = connection.next(1).await;
    assert_eq!(
        (answer.kind, answer.flags),
        (Frame::DATA, Frame::END_STREAM)
    );
    connection
        .send(Frame::DATA, Frame::END_STREAM, 1, b"{}")
        .await;
    // The next that is heard is about the next request.
    connection.begin(3, 0).await;
    let next = connection.next_on_any_stream().await;
    assert_eq!((next.stream, next.kind), (3, Frame::HEADERS));
    assert_eq!(connection.next_on_any_stream().await.kind, Frame::DATA);
    // This one's body never ends, and that is not waited for for ever.
    let reset = connection.next_on_any_stream().await;
    assert_eq!((reset.stream, reset.kind), (3, Frame::RST_STREAM));
    assert_eq!(reset.payload, NO_ERROR);
}

#[tokio::test]
async fn a_connection_that_was_idle_for_too_long_is_closed_with_goaway() {
    let settings = Settings::new().set("IMPORTGUARD_IDLE_TIMEOUT", "300ms");
    let gateway = Service::gateway(settings).await;
    let mut used = Http2Connection::open(gateway.http_address()).await;
    used.post(1, "/callbackBeforeImportFriendsCommand", b"{}")
        .await;
    let mut unused = Http2Connection::open(gateway.http_address()).await;
    for connection in [&mut used, &mut unused] {
        let kinds = connection.kinds_until_closed().await;
        assert!(kinds.contains(&Frame::GOAWAY), "{kinds:?}");
    }
}

#[tokio::test]
async fn one_opened_before_it_is_needed_has_as_much_time_as_an_idle_one() {
    let settings = Settings::new().set("IMPORTGUARD_HEADER_READ_TIMEOUT", "300ms");
    let gateway = Service::gateway(settings).await;
    let mut connection = Http2Connection::open(gateway.http_address()).await;
    assert!(!connection.closes_within(Duration::from_secs(2)).await);
    connection.begin(1, 0).await;
    connection
        .send(Frame::DATA, Frame::END_STREAM, 1, &[])
        .await;
    assert_eq!(connection.next(1).await.kind, Frame::HEADERS);
}
