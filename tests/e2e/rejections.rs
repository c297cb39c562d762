//! Requests that are not import callbacks get a refusing callback answer, on which no server version imports.

use std::time::{Duration, Instant};

use http::Method;
use importguard_core::Dialect::{self, Documented, Server};
use importguard_tests::{
    Call, Client, HeldCall, Line, OpenIm, OtlpReceiver, Reading, ServerVersion, Service, Settings,
    Spool, read_as_server, wait_for_count,
};

use crate::asserts;

const SERVER_COMMAND: &str = "/callbackBeforeImportFriendsCommand";
const DOCUMENTED_COMMAND: &str = "/?command=ImportFriendReqBeforeCommand&contenttype=json";

/// A gateway on its own: nothing here gets as far as a decider.
async fn gateway() -> Service {
    Service::gateway(Settings::new()).await
}

async fn refused(call: Call, dialect: Dialect, status: u16, code: i32) {
    let answer = Client::default().send(call).await;
    asserts::refuses(dialect, &answer, status, code);
}

fn callers(gateway: &Service) -> [OpenIm; 2] {
    [Documented, Server].map(|dialect| OpenIm::new(dialect, gateway.url()))
}

#[tokio::test]
async fn commands_that_are_not_importguards_are_unknown() {
    let gateway = gateway().await;
    for (target, dialect) in [
        ("/", Server),
        ("/favicon.ico", Server),
        ("//", Server),
        ("/callbackBeforeAddFriendCommand", Server),
        (
            "/callbackBeforeSendSingleMsgCommand?contenttype=json",
            Server,
        ),
        ("/callbackBeforeImportFriendsCommand/x", Server),
        ("/callbackbeforeimportfriendscommand", Server),
        ("/?command=callbackBeforeAddFriendCommand", Documented),
        ("/?command=", Documented),
        (
            "/somewhere?command=ImportFriendReqBeforeCommand",
            Documented,
        ),
    ] {
        let call = OpenIm::server(gateway.url())
            .before_import("op", "a", &["b"])
            .url(gateway.url() + target);
        refused(call, dialect, 404, 5901).await;
    }
}

#[tokio::test]
async fn another_callback_is_refused_with_the_setting_that_forwards_it() {
    let gateway = gateway().await;
    let call = OpenIm::server(gateway.url())
        .before_import("op", "a", &["b"])
        .url(gateway.url() + "/callbackBeforeAddFriendCommand");
    let answer = Client::default().send(call).await;
    let remedy = "set IMPORTGUARD_UPSTREAM";
    assert!(answer.text().contains(remedy), "{}", answer.text());
    gateway
        .wait_for_log(&["rejected: unknown command", remedy])
        .await;
}

#[tokio::test]
async fn the_admin_listeners_paths_are_not_on_the_public_one() {
    let gateway = gateway().await;
    for path in ["/livez", "/readyz", "/metrics"] {
        let call = Call::new(Method::GET, gateway.url() + path);
        refused(call, Server, 404, 5901).await;
    }
}

#[tokio::test]
async fn other_methods_than_post_are_not_allowed() {
    let gateway = gateway().await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let method: Method = method.parse().unwrap();
        for (target, dialect) in [(SERVER_COMMAND, Server), (DOCUMENTED_COMMAND, Documented)] {
            let call =
                Call::new(method.clone(), gateway.url() + target).header("operationID", "op");
            refused(call, dialect, 405, 5900).await;
        }
    }
}

#[tokio::test]
async fn a_body_that_is_no_request_is_malformed() {
    let gateway = gateway().await;
    for caller in callers(&gateway) {
        let good = caller.body("user123", &["user456"]);
        let without = |field: &str| {
            let mut value: serde_json::Value = serde_json::from_str(&good).unwrap();
            value.as_object_mut().unwrap().remove(field).unwrap();
            value.to_string()
        };
        for body in [
            String::new(),
            "{".to_owned(),
            "null".to_owned(),
            "[]".to_owned(),
            "\"text\"".to_owned(),
            "[".repeat(100_000),
            format!("{good} {good}"),
            good.replace("\"user123\"", "7"),
            good.replace("\"user123\"", "null"),
            good.replace("\"user123\"", "\"\""),
            good.replace("[\"user456\"]", "\"user456\""),
            good.replace("\"user456\"", "7"),
            good.replace("\"user456\"", "null"),
            good.replace("\"user456\"", "\"\""),
            without("callbackCommand"),
            without("ownerUserID"),
            without("friendUserIDs"),
        ] {
            let call = caller.with_body("op", &body);
            refused(call, caller.dialect(), 400, 5900).await;
        }
        let call = caller
            .before_import("op", "a", &[])
            .body(&b"\xff\xfe{}"[..]);
        refused(call, caller.dialect(), 400, 5900).await;
    }
}

#[tokio::test]
async fn a_body_with_another_command_than_the_url_is_malformed() {
    let gateway = gateway().await;
    let [documented, server] = callers(&gateway);
    let other = documented.body("a", &["b"]);
    refused(server.with_body("op", &other), Server, 400, 5900).await;
    let other = server.body("a", &["b"]);
    refused(documented.with_body("op", &other), Documented, 400, 5900).await;
    let after = server
        .after_import("op", "a", &["b"])
        .body(server.body("a", &["b"]));
    // Nobody can refuse what has been done.
    asserts::allows(Server, &server.send(after).await);
}

#[tokio::test]
async fn a_body_in_another_form_than_json_is_unsupported() {
    let gateway = gateway().await;
    for caller in callers(&gateway) {
        for media_type in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "nonsense",
        ] {
            let call = caller
                .before_import("op", "a", &["b"])
                .header("Content-Type", media_type);
            refused(call, caller.dialect(), 415, 5900).await;
        }
        let call = caller
            .before_import("op", "a", &["b"])
            .header("Content-Encoding", "gzip");
        refused(call, caller.dialect(), 415, 5900).await;
    }
}

#[tokio::test]
async fn a_callback_without_a_usable_operation_id_is_refused() {
    let gateway = gateway().await;
    for caller in callers(&gateway) {
        let call = caller.before_import("op", "a", &["b"]);
        let missing = call.clone().without_header("operationID");
        refused(missing, caller.dialect(), 400, 5904).await;
        let too_long = "x".repeat(257);
        for unusable in ["", "a b", "ä", "a\tb", &too_long] {
            let call = call.clone().header("operationID", unusable);
            refused(call, caller.dialect(), 400, 5904).await;
        }
    }
    let longest = "x".repeat(256);
    let answer = OpenIm::server(gateway.url())
        .import(&longest, "a", &["b"])
        .await;
    assert_eq!(asserts::code(&answer), 5910);
}

#[tokio::test]
async fn or_gets_one_if_so_configured() {
    let settings = Settings::new().set("IMPORTGUARD_OPERATION_ID", "generate");
    let gateway = Service::gateway(settings).await;
    for caller in callers(&gateway) {
        let call = caller.before_import("given", "a", &["b"]);
        let call = call.without_header("operationID");
        let answer = caller.send(call).await;
        asserts::refuses(caller.dialect(), &answer, 200, 5910);
    }
    OpenIm::server(gateway.url())
        .import("given", "a", &["b"])
        .await;

    let ids = Spool::of(&gateway).operation_ids();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(ids[..2].iter().all(|id| !id.is_empty()), "{ids:?}");
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[2], "given");
}

#[tokio::test]
async fn what_a_generated_operation_id_replaces_is_kept_in_event_log_and_span() {
    let receiver = OtlpReceiver::start().await;
    let settings = Settings::new().set("IMPORTGUARD_OPERATION_ID", "generate");
    let line = Line::with(settings.traces_to(&receiver)).await;
    let caller = line.server();
    let call = caller.before_import("no usable one", "a", &["b"]);
    assert_eq!(asserts::code(&caller.send(call).await), 0);
    caller.import("usable", "a", &["b"]).await;
    let events = wait_for_count(&line.nats, 2).await;
    // The first may have gone by way of the spool, where the second can overtake it.
    let (usable, replaced): (Vec<_>, Vec<_>) = events
        .iter()
        .map(|event| &event.decision().data)
        .partition(|data| data.operation_id.as_str() == "usable");
    let [data] = replaced[..] else {
        panic!("{events:#?}");
    };
    assert_eq!(data.replaced_operation_id.as_deref(), Some("no usable one"));
    let generated = data.operation_id.as_str();
    assert!(generated.starts_with("importguard-"), "{generated}");
    assert_eq!(usable[0].replaced_operation_id, None);

    let log = line.gateway.wait_for_log(&["no usable one"]).await;
    let decided = log.lines().find(|line| line.contains("no usable one"));
    let decided = decided.unwrap();
    assert!(
        decided.contains("decided") && decided.contains(generated),
        "{log}"
    );
    let span = receiver.callback(generated).await;
    assert_eq!(
        span.attributes["openim.replaced_operation_id"],
        "no usable one"
    );
}

#[tokio::test]
async fn what_is_over_a_limit_is_too_large() {
    for (limit, value) in [
        ("IMPORTGUARD_MAX_BODY_BYTES", "180"),
        ("IMPORTGUARD_MAX_FRIENDS", "2"),
    ] {
        let gateway = Service::gateway(Settings::new().set(limit, value)).await;
        let friends = ["f".repeat(31), "g".repeat(31), "h".repeat(31)];
        let friends = friends.each_ref().map(String::as_str);
        for caller in callers(&gateway) {
            let call = caller.before_import("op", "a", &friends);
            refused(call, caller.dialect(), 413, 5903).await;
            // One byte, or one friend, less each.
            let answer = caller
                .import("op", "a", &[&friends[0][1..], &friends[1][1..]])
                .await;
            asserts::refuses(caller.dialect(), &answer, 200, 5910);
        }
    }
}

#[tokio::test]
async fn so_is_an_id_that_no_column_of_openim_holds() {
    let gateway = gateway().await;
    let (longest, longer) = ("f".repeat(256), "f".repeat(257));
    for caller in callers(&gateway) {
        let call = caller.before_import("op", "a", &[&longer]);
        refused(call, caller.dialect(), 413, 5903).await;
        let answer = caller.import("op", "a", &[&longest]).await;
        asserts::refuses(caller.dialect(), &answer, 200, 5910);
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up_within_the_budget() {
    let settings = Settings::new()
        .set("IMPORTGUARD_REQUEST_BUDGET", "300ms")
        .set("IMPORTGUARD_BODY_READ_TIMEOUT", "60s");
    let gateway = Service::gateway(settings).await;
    let body = OpenIm::server(gateway.url()).body("a", &["b"]);
    let held = HeldCall::begin(gateway.http_address(), "op", &body).await;
    let began = Instant::now();
    let answer = held.answer().await;
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(answer.status, 408);
    for version in ServerVersion::ALL {
        let reading = read_as_server(version, &answer.body);
        assert!(
            matches!(reading, Reading::Refuses { code: 5900, .. }),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn outside_the_base_path_everything_is_unknown() {
    let settings = Settings::new().set("IMPORTGUARD_BASE_PATH", "/secret");
    let gateway = Service::gateway(settings).await;
    let call = OpenIm::server(gateway.url()).before_import("op", "a", &["b"]);
    for (target, dialect) in [
        (SERVER_COMMAND.to_owned(), Server),
        (DOCUMENTED_COMMAND.to_owned(), Documented),
        (format!("/secrets{SERVER_COMMAND}"), Server),
        (format!("/other{SERVER_COMMAND}"), Server),
        (format!("/other{DOCUMENTED_COMMAND}"), Documented),
        (format!("/secret/x{SERVER_COMMAND}"), Server),
    ] {
        let call = call.clone().url(gateway.url() + &target);
        refused(call, dialect, 404, 5901).await;
    }
    let inside = OpenIm::server(gateway.url() + "/secret")
        .import("op", "a", &["b"])
        .await;
    assert_eq!(asserts::code(&inside), 5910);
}

#[tokio::test]
async fn a_secret_base_path_is_not_logged_even_if_it_begins_as_callbacks_do() {
    let settings = Settings::new().set("IMPORTGUARD_BASE_PATH", "/callbacks3cret");
    let gateway = Service::gateway(settings).await;
    for path in ["/callbacks3cret", "/callbacks3cretx"] {
        let host = gateway.http_address();
        let target = format!("http://{host}{path}?command=ImportFriendReqBeforeCommand");
        Client::default()
            .send(Call::new(Method::POST, target))
            .await;
    }
    let log = gateway.wait_for_log(&["5904", "5901"]).await;
    assert!(!log.contains("s3cret"), "{log}");
}
