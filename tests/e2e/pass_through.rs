//! What is never forwarded to the backend: the import callback in any spelling that another server might accept, proxy methods, and
//! importguard's credentials.

use http::Method;
use importguard_core::Dialect::Server;
use importguard_tests::{
    Backend, Call, Client, MountedSecret, RawConnection, Reading, Response, ServerVersion, Service,
    Settings, read_as_documented, read_as_server,
};

use crate::asserts;

const OTHER: &str = "/callbackBeforeAddFriendCommand";

fn upstream(backend: &Backend) -> Settings {
    Settings::new().set(
        "IMPORTGUARD_UPSTREAM",
        format!("http://{}", backend.address()),
    )
}

/// Whether every reader of one of the dialects takes `answer` for a refusal; which dialect a strange spelling speaks is anybody's
/// guess.
fn is_refusal(answer: &Response) -> bool {
    let refuses = |reading| {
        matches!(
            reading,
            Reading::Refuses {
                code: 5900..=5904,
                ..
            }
        )
    };
    let by_server = ServerVersion::ALL.map(|version| read_as_server(version, &answer.body));
    answer.status.is_client_error()
        && (by_server.into_iter().all(refuses) || refuses(read_as_documented(&answer.body)))
}

#[tokio::test]
async fn an_import_in_another_spelling_is_refused_and_not_forwarded() {
    let backend = Backend::start().await;
    let gateway = Service::gateway(upstream(&backend)).await;
    let mut wrong = Vec::new();
    for target in [
        // One dialect's command where the other one has its own.
        "/?command=callbackBeforeImportFriendsCommand",
        "/ImportFriendReqBeforeCommand",
        // Twice, in either order: some readers take the first one, some the last.
        "/?command=x&command=ImportFriendReqBeforeCommand",
        "/?command=ImportFriendReqBeforeCommand&command=x",
        "/?command=x&command=callbackBeforeImportFriendsCommand",
        // Percent-encoded, once and twice.
        "/callback%42eforeImportFriendsCommand",
        "/callback%2542eforeImportFriendsCommand",
        "/callbackBefore%49mportFriends%43ommand",
        "/?command=ImportFriendReq%42eforeCommand",
        "/?command=ImportFriendReq%2542eforeCommand",
        "/?%63ommand=ImportFriendReqBeforeCommand",
        "/?command=x&%63ommand=ImportFriendReqBeforeCommand",
        // In another case.
        "/callbackbeforeimportfriendscommand",
        "/callbackBeforeIMPORTFriendsCommand",
        "/?command=importfriendreqbeforecommand",
        "/?Command=importfriendreqbeforecommand",
        "/?command=x&Command=ImportFriendReqBeforeCommand",
        // With something behind it that some readers leave out.
        "/callbackBeforeImportFriendsCommand;x",
        "/callbackBeforeImportFriendsCommand%20",
        "/callbackBeforeImportFriendsCommand%00",
        "/callbackBeforeImportFriendsCommand/",
        "/?command=ImportFriendReqBeforeCommand%20",
        "/?command=ImportFriendReqBeforeCommand;x",
        // In the query of another callback.
        "/callbackBeforeAddFriendCommand?command=ImportFriendReqBeforeCommand",
        "/callbackBeforeAddFriendCommand?command=importFriendReq%42eforeCommand",
        "/callbackBeforeAddFriendCommand?command=callbackBeforeImportFriendsCommand",
    ] {
        let call = Call::new(Method::POST, gateway.url() + target)
            .header("Content-Type", "application/json")
            .header("Operationid", "op")
            .body("{}");
        let answer = Client::default().send(call).await;
        if !is_refusal(&answer) {
            wrong.push(format!("{target}: {} {}", answer.status, answer.text()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(backend.requests().is_empty(), "{:#?}", backend.requests());
}

#[tokio::test]
async fn what_only_looks_a_little_like_it_is_passed_on() {
    let backend = Backend::start().await;
    let gateway = Service::gateway(upstream(&backend)).await;
    for target in [
        "/callbackBeforeAddFriendCommand?contenttype=json",
        "/?command=BeforeAddFriendCommand&contenttype=json",
        "/callbackBeforeAddFriendCommand?x=%2F&y=100%25",
    ] {
        let call = Call::new(Method::POST, gateway.url() + target);
        assert_eq!(Client::default().send(call).await.status, 203, "{target}");
        let asked = backend.requests().pop().unwrap();
        assert_eq!(asked.uri.to_string(), target);
    }
}

/// Some servers decode a path before they resolve it, and some take a backslash for a slash.
#[tokio::test]
async fn no_other_path_is_passed_on_behind_a_callbacks_name() {
    let backend = Backend::start().await;
    let gateway = Service::gateway(upstream(&backend)).await;
    for target in [
        "/callbackX/../admin",
        "/callbackX%2f..%2f..%2fadmin",
        "/callbackX%252f..%252fadmin",
        "/callbackX%5c..%5cadmin",
        "/callback%2e%2e%2fadmin",
        "/callbackX%00",
        "/callbackX%0d%0a",
        "/callbackX;/../admin",
    ] {
        let call = Call::new(Method::POST, gateway.url() + target);
        asserts::refuses(Server, &Client::default().send(call).await, 404, 5901);
    }
    assert!(backend.requests().is_empty(), "{:#?}", backend.requests());
}

#[tokio::test]
async fn methods_that_are_for_proxies_are_not_passed_on() {
    let backend = Backend::start().await;
    let gateway = Service::gateway(upstream(&backend)).await;
    let trace = Call::new(Method::TRACE, gateway.url() + OTHER).header("Operationid", "op");
    asserts::refuses(Server, &Client::default().send(trace).await, 405, 5900);

    let after = "/callbackAfterAddFriendCommand".to_owned();
    for target in [OTHER.to_owned(), after, backend.address()] {
        let mut connection = RawConnection::open(gateway.http_address()).await;
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: x\r\nOperationid: op\r\n");
        let head = head + "Connection: close\r\n\r\n";
        connection.send(head).await.unwrap();
        // A refusal, or a path that is no authority is no HTTP.
        let said = connection.read_to_end().await;
        assert!(said.starts_with("HTTP/1.1 4") || said.is_empty(), "{said}");
        assert!(!said.contains(r#""nextCode":0"#), "{said}");
    }
    assert!(backend.requests().is_empty(), "{:#?}", backend.requests());
}

/// `openim:s3cret` as HTTP has it.
const OPENIM: &str = "Basic b3BlbmltOnMzY3JldA==";

#[tokio::test]
async fn credentials_for_importguard_are_not_forwarded_unless_configured() {
    let backend = Backend::start().await;
    let secret = MountedSecret::new(&[("basic", "openim:s3cret\n")]);
    let locked = || upstream(&backend).set("IMPORTGUARD_BASIC_AUTH_FILE", secret.setting("basic"));
    let forward = "IMPORTGUARD_UPSTREAM_FORWARD_AUTHORIZATION";
    for (settings, passed) in [
        (locked().set(forward, "true"), true),
        (locked().set(forward, "false"), false),
        (locked(), false),
        // Where there is no lock, what comes is the backend's own.
        (upstream(&backend), true),
    ] {
        let gateway = Service::gateway(settings).await;
        let call = Call::new(Method::POST, gateway.url() + OTHER).header("Authorization", OPENIM);
        assert_eq!(Client::default().send(call).await.status, 203);
        let asked = backend.requests().pop().unwrap();
        let found = asked.headers.get("authorization");
        assert_eq!(found.is_some(), passed, "{:?}", asked.headers);
    }
}
