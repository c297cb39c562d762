//! Authentication: passwords and tokens from files, rotated at run time and never printed.

use importguard_core::Dialect;
use importguard_tests::{
    Call, Client, MountedSecret, OpenIm, OtlpReceiver, RawConnection, Response, SOON, Service,
    Settings, eventually, post,
};

use crate::asserts;

/// `openim:s3cret` and `next:s3cret` as HTTP has them.
const OPENIM: &str = "Basic b3BlbmltOnMzY3JldA==";
const NEXT: &str = "Basic bmV4dDpzM2NyZXQ=";

const PATH: &str = "/callbackBeforeImportFriendsCommand";

fn locked(secret: &MountedSecret) -> Settings {
    Settings::new()
        .set("IMPORTGUARD_BASIC_AUTH_FILE", secret.setting("basic"))
        .set("IMPORTGUARD_BEARER_TOKEN_FILE", secret.setting("tokens"))
}

fn secret() -> MountedSecret {
    MountedSecret::new(&[
        ("basic", "openim:s3cret\n"),
        ("tokens", "t0ken-one\nt0ken-two\n"),
    ])
}

async fn ask(caller: &OpenIm, authorization: &str) -> Response {
    let call = caller.before_import("op", "user1", &["user2"]);
    let call = if authorization.is_empty() {
        call
    } else {
        call.header("Authorization", authorization)
    };
    caller.send(call).await
}

#[tokio::test]
async fn a_password_or_a_token_opens_and_nothing_else_does() {
    let secret = secret();
    let gateway = Service::gateway(locked(&secret)).await;
    for dialect in [Dialect::Documented, Dialect::Server] {
        let caller = OpenIm::new(dialect, gateway.url());
        for key in [
            OPENIM,
            "basic b3BlbmltOnMzY3JldA==",
            "Bearer t0ken-one",
            "Bearer t0ken-two",
        ] {
            asserts::refuses(dialect, &ask(&caller, key).await, 200, 5910);
        }
        for key in [
            "",
            "Basic",
            "Basic ",
            NEXT,
            "Basic openim:s3cret",
            "Bearer b3BlbmltOnMzY3JldA==",
            "Basic t0ken-one",
            "Bearer t0ken-on",
            "Bearer t0ken-one,t0ken-two",
            "t0ken-one",
        ] {
            let answer = ask(&caller, key).await;
            asserts::refuses(dialect, &answer, 401, 5902);
            let challenges = answer.headers.get_all("www-authenticate").iter();
            let challenges: Vec<_> = challenges.map(|value| value.to_str().unwrap()).collect();
            assert!(challenges[0].starts_with("Basic realm="), "{challenges:?}");
            assert!(challenges[1].starts_with("Bearer realm="), "{challenges:?}");
        }
    }
}

#[tokio::test]
async fn two_credentials_in_a_request_open_nothing() {
    let secret = secret();
    let gateway = Service::gateway(locked(&secret)).await;
    let server = OpenIm::server(gateway.url());
    for pair in [[OPENIM, NEXT], [NEXT, OPENIM], [OPENIM, OPENIM]] {
        let [one, other] = pair.map(|key| format!("Authorization: {key}\r\n"));
        let request = post(PATH, "op", &server.body("user1", &["user2"]));
        let request = request.replacen("\r\n", &format!("\r\n{one}{other}"), 1);
        let mut connection = RawConnection::open(gateway.http_address()).await;
        connection.send(&request).await.unwrap();
        let answer = connection.answer().await;
        asserts::refuses(Dialect::Server, &answer, 401, 5902);
    }
}

#[tokio::test]
async fn without_credentials_no_path_is_disclosed() {
    let secret = secret();
    let gateway = Service::gateway(locked(&secret)).await;
    for path in ["/", "/metrics", "/callbackBeforeAddFriendCommand", "/x"] {
        let call = Call::new(http::Method::GET, gateway.url() + path);
        asserts::refuses(
            Dialect::Server,
            &Client::default().send(call).await,
            401,
            5902,
        );
    }
}

#[tokio::test]
async fn credentials_are_rotated_at_run_time_and_an_invalid_file_keeps_the_last_good_ones() {
    let mut secret = secret();
    let gateway = Service::gateway(locked(&secret)).await;
    let server = OpenIm::server(gateway.url());
    let becomes = async |key: &'static str, status: u16| {
        eventually("the keys change", SOON, async || {
            let found = ask(&server, key).await.status.as_u16();
            if found == status { Ok(()) } else { Err(found) }
        })
        .await;
    };
    becomes(OPENIM, 200).await;
    becomes(NEXT, 401).await;

    // Both hold while callers change over.
    secret.replace(&[
        ("basic", "openim:s3cret\nnext:s3cret\n"),
        ("tokens", "t0ken-one"),
    ]);
    becomes(NEXT, 200).await;
    becomes(OPENIM, 200).await;

    secret.replace(&[("basic", "no colon here"), ("tokens", "t0ken-one")]);
    eventually("the trouble is told", SOON, async || {
        let ready = gateway.admin("/readyz").await?;
        anyhow::ensure!(ready.contains("lastGood"), "{ready}");
        anyhow::Ok(())
    })
    .await;
    becomes(NEXT, 200).await;
    eventually("the metrics tell of it too", SOON, async || {
        let metrics = gateway.admin("/metrics").await?;
        for line in [
            "importguard_file_valid{setting=\"IMPORTGUARD_BASIC_AUTH_FILE\"} 0\n",
            "importguard_file_valid{setting=\"IMPORTGUARD_BEARER_TOKEN_FILE\"} 1\n",
            "importguard_file_reloads_total{outcome=\"failed\",setting=\"IMPORTGUARD_BASIC_AUTH_FILE\"} 1\n",
        ] {
            anyhow::ensure!(metrics.contains(line), "no {line} in {metrics}");
        }
        Ok(())
    })
    .await;

    secret.replace(&[("basic", "next:s3cret\n"), ("tokens", "t0ken-one")]);
    becomes(OPENIM, 401).await;
    becomes(NEXT, 200).await;
}

#[tokio::test]
async fn a_file_that_lets_nobody_in_or_anybody_is_an_error_at_startup() {
    for (content, text) in [
        ("", "no credentials"),
        ("no colon here\n", "line 1 has no colon"),
        ("openim:s3cret\n:\n", "line 2 has an empty user or password"),
        ("openim:\n", "line 1 has an empty user or password"),
        (":s3cret\n", "line 1 has an empty user or password"),
        (
            "openim:$apr1$Jk1ZSbbn$2V1MoDm8RwkcHZ9bkgmPh1\n",
            "compares the password itself; write user:password",
        ),
        (
            "openim:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n",
            "line 1 has the hash",
        ),
        ("openim:s3cret\rnext:s3cret\r", "carriage return"),
        ("openim:s3cret\u{200b}\n", "invisible character"),
        ("openim:s3cret\0\n", "NUL byte"),
        ("openim:s3cret\t\n", "control character"),
    ] {
        let secret = MountedSecret::new(&[("basic", content)]);
        let settings = Settings::new().set("IMPORTGUARD_BASIC_AUTH_FILE", secret.setting("basic"));
        let mut gateway = Service::spawn(importguard_tests::Binary::Gateway, settings);
        assert!(!gateway.exit(SOON).await.success(), "{content:?}");
        let said = gateway.stderr();
        assert!(said.contains("IMPORTGUARD_BASIC_AUTH_FILE"), "{said}");
        assert!(said.contains(text), "{content:?}: {said}");
        for part in ["no colon here", "s3cret", "apr1", "5en6"] {
            assert!(!said.contains(part), "{content:?}: {said}");
        }
    }
}

#[tokio::test]
async fn a_mark_at_the_front_is_no_part_of_the_user_and_a_space_at_the_end_is_told() {
    let secret = MountedSecret::new(&[("basic", "\u{feff}openim:s3cret\r\nnext:s3cret \n")]);
    let settings = Settings::new().set("IMPORTGUARD_BASIC_AUTH_FILE", secret.setting("basic"));
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url());
    asserts::refuses(Dialect::Server, &ask(&server, OPENIM).await, 200, 5910);
    let said = gateway
        .wait_for_log(&[
            "IMPORTGUARD_BASIC_AUTH_FILE",
            "line 2",
            "begins or ends with a space",
        ])
        .await;
    assert!(!said.contains("in line 1"), "{said}");
    asserts::refuses(Dialect::Server, &ask(&server, NEXT).await, 401, 5902);
}

#[tokio::test]
async fn no_secret_is_ever_printed() {
    let secret = secret();
    let receiver = OtlpReceiver::start().await;
    let settings = locked(&secret)
        .set("IMPORTGUARD_BASE_PATH", "/s3cret-path")
        .set("RUST_LOG", "trace")
        .traces_to(&receiver);
    let gateway = Service::gateway(settings).await;
    let server = OpenIm::server(gateway.url() + "/s3cret-path");
    for key in [OPENIM, "Bearer t0ken-one", "Bearer t0ken-wrong", ""] {
        ask(&server, key).await;
    }
    let outside = OpenIm::server(gateway.url() + "/s3cret-path-no");
    let answer = ask(&outside, OPENIM).await;
    asserts::refuses(Dialect::Server, &answer, 404, 5901);

    let spans = eventually("the spans arrive", SOON, async || {
        let spans = receiver.all();
        let callbacks = spans.iter().filter(|span| span.name.starts_with("POST "));
        if callbacks.count() == 5 {
            Ok(spans)
        } else {
            Err("not yet")
        }
    })
    .await;
    let told = [
        gateway.output(),
        gateway.admin("/metrics").await.unwrap(),
        gateway.admin("/readyz").await.unwrap(),
        answer.text().to_owned(),
        format!("{:?}", spans),
    ];
    for secret in ["s3cret", "t0ken", "b3BlbmltOnMzY3JldA"] {
        for text in &told {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret}");
        }
    }
}
