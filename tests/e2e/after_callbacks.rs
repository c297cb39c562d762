//! Callbacks *after* something always get an allowing answer, whatever is wrong with them: open-im-server 3.5 would report a failure to
//! its caller although the friends are stored. One whose request line also names a question is a question.

use http::Method;
use importguard_core::Dialect::Server;
use importguard_tests::{Call, Client, MountedSecret, OpenIm, RawConnection, Service, Settings};

use crate::asserts;

const REPORT: &str = "/callbackAfterImportFriendsCommand";
/// One that belongs to the operator's other backend, which these gateways don't know.
const OTHER_REPORT: &str = "/callbackAfterAddFriendCommand";

async fn rejections(gateway: &Service, code: u16) -> f64 {
    let name = format!("importguard_rejections_total{{code=\"{code}\"}}");
    // A label's value is there from the first one on.
    gateway.metric(&name).await.unwrap_or_default()
}

/// `call` is let pass, and counted and told of as rejected with `code`.
async fn passes(gateway: &Service, call: Call, code: u16) {
    let before = rejections(gateway, code).await;
    let answer = Client::default().send(call).await;
    asserts::allows(Server, &answer);
    assert_eq!(rejections(gateway, code).await, before + 1.0, "{code}");
    gateway
        .wait_for_log(&["rejected", &format!("status=200 code={code}")])
        .await;
}

fn report(gateway: &Service) -> Call {
    OpenIm::server(gateway.url()).after_import("op", "a", &["b"])
}

#[tokio::test]
async fn a_report_that_is_none_passes() {
    let gateway = Service::gateway(Settings::new()).await;
    let before_import = OpenIm::server("").body("a", &["b"]);
    for body in ["", "{", "null", r#"{"callbackCommand":7}"#, &before_import] {
        passes(&gateway, report(&gateway).body(body.to_owned()), 5900).await;
    }
    for media_type in ["text/plain", "nonsense"] {
        let call = report(&gateway).header("Content-Type", media_type);
        passes(&gateway, call, 5900).await;
    }
    let zipped = report(&gateway).header("Content-Encoding", "gzip");
    passes(&gateway, zipped, 5900).await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        passes(&gateway, report(&gateway).method(method), 5900).await;
    }
    let contradicted = gateway.url() + REPORT + "?command=callbackAfterAddFriendCommand";
    passes(&gateway, report(&gateway).url(contradicted), 5900).await;
}

#[tokio::test]
async fn a_question_on_the_path_of_a_report_is_refused() {
    let gateway = Service::gateway(Settings::new()).await;
    for (asker, question) in [
        (OpenIm::documented(""), "ImportFriendReqBeforeCommand"),
        (OpenIm::server(""), "callbackBeforeImportFriendsCommand"),
    ] {
        for path in [REPORT, OTHER_REPORT] {
            let url = format!("{}{path}?command={question}", gateway.url());
            let call = report(&gateway).url(url).body(asker.body("a", &["b"]));
            let answer = Client::default().send(call).await;
            asserts::refuses(Server, &answer, 404, 5901);
        }
    }
}

#[tokio::test]
async fn so_does_one_without_an_operation_id() {
    let gateway = Service::gateway(Settings::new()).await;
    let missing = report(&gateway).without_header("operationID");
    passes(&gateway, missing, 5904).await;
    let unusable = report(&gateway).header("operationID", "x".repeat(257));
    passes(&gateway, unusable, 5904).await;
}

#[tokio::test]
async fn so_does_one_that_is_too_large() {
    for (limit, value) in [
        ("IMPORTGUARD_MAX_BODY_BYTES", "100"),
        ("IMPORTGUARD_MAX_FRIENDS", "2"),
        ("IMPORTGUARD_MAX_HEADER_BYTES", "1024"),
    ] {
        let gateway = Service::gateway(Settings::new().set(limit, value)).await;
        let server = OpenIm::server(gateway.url());
        let call = server.after_import("op", "a", &["friend1", "friend2", "friend3"]);
        let call = call.header("X-Filler", "x".repeat(1_100));
        passes(&gateway, call, 5903).await;
    }
}

#[tokio::test]
async fn so_does_one_with_an_id_that_no_column_of_openim_holds() {
    let gateway = Service::gateway(Settings::new()).await;
    let server = OpenIm::server(gateway.url());
    let call = server.after_import("op", "a", &[&"f".repeat(257)]);
    passes(&gateway, call, 5903).await;
}

#[tokio::test]
async fn so_does_one_that_does_not_come_to_its_end() {
    let settings = Settings::new().set("IMPORTGUARD_BODY_READ_TIMEOUT", "300ms");
    let gateway = Service::gateway(settings).await;
    let mut connection = RawConnection::open(gateway.http_address()).await;
    let head = format!("POST {REPORT} HTTP/1.1\r\nHost: x\r\nOperationid: op\r\nContent-Length: 9");
    connection.send(head + "\r\n\r\n{").await.unwrap();
    asserts::allows(Server, &connection.answer().await);
    assert_eq!(rejections(&gateway, 5900).await, 1.0);
    gateway.wait_for_log(&["rejected", "code=5900"]).await;
}

#[tokio::test]
async fn so_does_one_of_another_command_without_an_upstream() {
    let gateway = Service::gateway(Settings::new()).await;
    for path in [
        OTHER_REPORT,
        "/callbackAfterSendSingleMsgCommand?contenttype=json",
        "/callbackAfterSomethingThatIsNewCommand",
    ] {
        let call = report(&gateway).url(gateway.url() + path);
        passes(&gateway, call, 5901).await;
    }
    // A question is no report.
    let question = report(&gateway).url(gateway.url() + "/callbackBeforeAddFriendCommand");
    let answer = Client::default().send(question).await;
    asserts::refuses(Server, &answer, 404, 5901);
}

#[tokio::test]
async fn an_unauthenticated_caller_still_gets_its_401() {
    let secret = MountedSecret::new(&[("tokens", "t0ken")]);
    let settings = Settings::new().set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"));
    let gateway = Service::gateway(settings).await;
    for path in [REPORT, OTHER_REPORT] {
        let call = report(&gateway).url(gateway.url() + path);
        let answer = Client::default().send(call.clone()).await;
        asserts::refuses(Server, &answer, 401, 5902);
        let malformed = call.header("Authorization", "Bearer t0ken").body("{");
        let answer = Client::default().send(malformed).await;
        asserts::allows(Server, &answer);
    }
}

/// Without a body to misread an answer to `HEAD` says nothing; with one, the connection would be out of step.
#[tokio::test]
async fn a_question_without_a_body_gets_none() {
    let gateway = Service::gateway(Settings::new()).await;
    for (path, status) in [
        (REPORT, "200"),
        ("/callbackBeforeImportFriendsCommand", "405"),
    ] {
        let mut connection = RawConnection::open(gateway.http_address()).await;
        let head = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nOperationid: op\r\n");
        let head = head + "Connection: close\r\n\r\n";
        connection.send(head).await.unwrap();
        let said = connection.read_to_end().await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
        assert!(said.ends_with("\r\n\r\n"), "{said}");
    }
}
