//! The users in `deploy/nats/nats-server.conf` have the permissions that they need, and no others.

use std::time::Duration;

use async_nats::{
    ConnectOptions,
    jetstream::{self, consumer::pull},
};
use futures_util::StreamExt;
use importguard_tests::{
    Detector, NatsServer, OpenIm, SOON, Service, Settings, Spool, eventually, workspace,
};
use serde_json::{Value, json};

use crate::asserts::{has, printed};

const PASSWORDS: [(&str, &str); 7] = [
    ("GATEWAY_PASSWORD", "gateway-secret"),
    ("ANALYTICS_PASSWORD", "analytics-secret"),
    ("SUPPORT_PASSWORD", "support-secret"),
    ("DECIDER_PASSWORD", "decider-secret"),
    ("MODERATOR_PASSWORD", "moderator-secret"),
    ("DETECTOR_PASSWORD", "detector-secret"),
    ("ADMIN_PASSWORD", "admin-secret"),
];

/// With that file's configuration; each user's password is its name with `-secret`.
pub(crate) async fn nats() -> NatsServer {
    let file = workspace().join("deploy/nats/nats-server.conf");
    NatsServer::configured(file, &PASSWORDS, "gateway:gateway-secret").await
}

/// A gateway that may publish has recorded one decision: without a decider, a refusal of `user123`.
pub(crate) async fn with_an_event(nats: &NatsServer) -> Service {
    let settings = Settings::new()
        .set("NATS_URL", nats.url_for("gateway:gateway-secret"))
        .set("NATS_INBOX_PREFIX", "_INBOX_gateway");
    let gateway = Service::gateway(settings).await;
    gateway.wait_for_recorder("streaming").await;
    OpenIm::server(gateway.url())
        .import("op-1", "user123", &["user456"])
        .await;
    gateway.settles().await;
    gateway
}

async fn connect(nats: &NatsServer, user: &str, password: &str) -> async_nats::Client {
    let inbox = match user {
        "analytics" | "admin" => "_INBOX".to_owned(),
        _ => format!("_INBOX_{user}"),
    };
    ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        .custom_inbox_prefix(inbox)
        .connect(nats.url())
        .await
        .unwrap()
}

fn durable(name: &str) -> pull::Config {
    pull::Config {
        durable_name: Some(name.to_owned()),
        ..pull::Config::default()
    }
}

#[tokio::test]
async fn a_team_reads_with_its_own_consumer_and_cannot_publish() {
    let nats = nats().await;
    let _gateway = with_an_event(&nats).await;
    let client = connect(&nats, "analytics", "analytics-secret").await;
    let jetstream = jetstream::new(client.clone());
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let consumer = stream
        .get_or_create_consumer("analytics", durable("analytics"))
        .await
        .unwrap();
    let mut messages = consumer.fetch().max_messages(1).messages().await.unwrap();
    let message = messages.next().await.unwrap().unwrap();
    assert_eq!(
        message
            .headers
            .as_ref()
            .unwrap()
            .get("operationID")
            .unwrap()
            .as_str(),
        "op-1"
    );
    message.double_ack().await.unwrap();

    let forged = jetstream.publish("importguard.v1.imported", "{}".into());
    let forged = tokio::time::timeout(Duration::from_secs(2), async { forged.await?.await }).await;
    assert!(!matches!(forged, Ok(Ok(_))), "a subscriber could publish");
    let others = stream.create_consumer(durable("somebody-else"));
    let others = tokio::time::timeout(Duration::from_secs(2), others).await;
    assert!(
        !matches!(others, Ok(Ok(_))),
        "a team could make another's consumer"
    );

    let gateways = jetstream::new(connect(&nats, "gateway", "gateway-secret").await);
    let mut stream = gateways.get_stream("IMPORTGUARD").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
    assert_eq!(stream.info().await.unwrap().state.consumer_count, 1);
}

#[tokio::test]
async fn a_gateway_may_look_up_what_the_stream_has_before_it_sends_its_spool() {
    let nats = nats().await;
    let gateway = with_an_event(&nats).await;
    nats.freeze().await;
    OpenIm::server(gateway.url())
        .import("op-2", "user123", &["user456"])
        .await;
    let spool = Spool::of(&gateway);
    assert_eq!(spool.operation_ids(), ["op-2"]);
    nats.thaw();
    eventually("the spool is drained", SOON, async || {
        let left = spool.operation_ids();
        if left.is_empty() {
            Ok(())
        } else {
            Err(gateway.output())
        }
    })
    .await;
    let client = connect(&nats, "gateway", "gateway-secret").await;
    let stream = jetstream::new(client)
        .get_stream("IMPORTGUARD")
        .await
        .unwrap();
    // The message that NATS took from the frozen connection, and not a second one from the spool.
    assert_eq!(stream.cached_info().state.messages, 2);
}

#[tokio::test]
async fn a_team_cannot_read_the_replies_to_the_gateway_and_to_support() {
    let nats = nats().await;
    for inbox in ["_INBOX_gateway.>", "_INBOX_support.>"] {
        let (events, mut received) = tokio::sync::mpsc::unbounded_channel();
        let client = ConnectOptions::with_user_and_password(
            "analytics".to_owned(),
            "analytics-secret".to_owned(),
        )
        .event_callback(move |event| {
            let _ = events.send(event.to_string().to_lowercase());
            std::future::ready(())
        })
        .connect(nats.url())
        .await
        .unwrap();
        let _replies = client.subscribe(inbox).await.unwrap();
        let refused = async {
            while let Some(event) = received.recv().await {
                if event.contains("permissions violation") {
                    return event;
                }
            }
            String::new()
        };
        let refused = tokio::time::timeout(SOON, refused).await.unwrap();
        assert!(refused.contains(&inbox.to_lowercase()), "{refused}");
    }
}

#[tokio::test]
async fn support_can_read_with_each_command_and_a_wrong_password_is_reported() {
    let nats = nats().await;
    let _gateway = with_an_event(&nats).await;
    let run = async |arguments: &str, password: &str, code| {
        let settings = Settings::new()
            .set("NATS_URL", nats.url_for(&format!("support:{password}")))
            .set("NATS_INBOX_PREFIX", "_INBOX_support");
        printed(&settings.run(arguments.split(' ')).await, code)
    };
    for (arguments, expected) in [
        ("tail --since 1h --count 1", "op-1"),
        ("tail --no-follow --durable archive", "op-1"),
        ("stats --by verdict", "1 decisions"),
        ("why --operation-id op-1", "op-1"),
    ] {
        let (stdout, stderr) = run(arguments, "support-secret", 0).await;
        assert!(stdout.contains(expected), "{stdout}{stderr}");
    }
    let (_, denied) = run("tail", "wrong", 1).await;
    assert!(denied.contains("rejected the credentials"), "{denied}");
    assert!(!denied.contains("wrong"), "{denied}");
}

#[tokio::test]
async fn moderators_change_live_lists_deciders_follow_them_and_nobody_else_writes_them() {
    let nats = nats().await;
    // Its gateway creates the stream for the events.
    let _gateway = with_an_event(&nats).await;
    let list = async |user: &str, arguments: &str| {
        let settings = Settings::new()
            .set("NATS_URL", nats.url_for(&format!("{user}:{user}-secret")))
            .set("NATS_INBOX_PREFIX", format!("_INBOX_{user}"))
            .set("IMPORTGUARD_LIST_BY", user);
        let output = settings
            .run(["list"].into_iter().chain(arguments.split(' ')))
            .await;
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(printed).unwrap())
    };
    for (arguments, printed) in [
        ("add bad u1 u2 --for 1h", "bad: added u1"),
        ("remove bad u2", "bad: removed u2"),
        ("show bad", "moderator"),
        ("history bad u2", "removed"),
        ("clear", "cleared 0"),
    ] {
        let (code, output) = list("moderator", arguments).await;
        assert_eq!(code, Some(0), "{arguments}: {output}");
        assert!(
            output.contains(printed) && !output.contains("warning"),
            "{arguments}: {output}"
        );
    }
    let policy = importguard_tests::PolicyDir::new(
        "apiVersion: importguard/v1\nname: live\nlists: { bad: { live: bad } }\nrules: []\n",
        &[],
    );
    let settings = Settings::new()
        .policy(&policy)
        .set("NATS_URL", nats.url_for("decider:decider-secret"))
        .set("NATS_INBOX_PREFIX", "_INBOX_decider");
    let decider = Service::decider(settings).await;
    let ready = decider.admin("/readyz").await.unwrap();
    assert!(ready.contains("\"current\":true"), "{ready}");
    assert!(ready.contains("\"entries\":1"), "{ready}");

    let (code, output) = list("decider", "add bad u3").await;
    assert_eq!(code, Some(1), "{output}");
    let before = entries(&nats).await;
    for user in ["decider", "gateway", "analytics", "support"] {
        let client = connect(&nats, user, &format!("{user}-secret")).await;
        let jetstream = jetstream::new(client);
        let forged = jetstream.publish("$KV.IMPORTGUARD_LISTS.bad.u3", "".into());
        let forged = tokio::time::timeout(Duration::from_secs(2), async { forged.await?.await });
        assert!(
            !matches!(forged.await, Ok(Ok(_))),
            "{user} could block somebody"
        );
    }
    assert_eq!(entries(&nats).await, before);
}

#[tokio::test]
async fn moderators_read_no_decisions() {
    let nats = nats().await;
    let _gateway = with_an_event(&nats).await;
    let analytics = jetstream::new(connect(&nats, "analytics", "analytics-secret").await);
    let stream = analytics.get_stream("IMPORTGUARD").await.unwrap();
    let created = stream.create_consumer(durable("analytics")).await;
    created.unwrap();

    let client = connect(&nats, "moderator", "moderator-secret").await;
    let api = "$JS.API.CONSUMER.CREATE.IMPORTGUARD.spy";
    let answer = async |subject: &str, request: Value| {
        let answer = client.request(subject.to_owned(), request.to_string().into());
        let answer = tokio::time::timeout(Duration::from_secs(1), answer).await;
        match answer {
            Ok(Ok(message)) => String::from_utf8_lossy(&message.payload).into_owned(),
            _ => String::new(),
        }
    };
    let request = |filter: Option<&str>| {
        let config = json!({ "name": "spy", "ack_policy": "none", "filter_subject": filter });
        json!({ "stream_name": "IMPORTGUARD", "config": config })
    };
    let changes = "importguard.v1.list.changed";
    for (suffix, filter) in [
        ("", None),
        (
            ".importguard.v1.decision.allow",
            Some("importguard.v1.decision.allow"),
        ),
        (".importguard.v1.>", Some("importguard.v1.>")),
        // NATS compares the two.
        (".importguard.v1.list.changed", Some("importguard.v1.>")),
        (".importguard.v1.list.changed", None),
    ] {
        let answer = answer(&format!("{api}{suffix}"), request(filter)).await;
        let refused = answer.is_empty() || answer.contains("\"error\"");
        assert!(refused, "{suffix} {filter:?}: {answer}");
    }
    let own = answer(&format!("{api}.{changes}"), request(Some(changes))).await;
    assert!(own.contains("\"num_pending\":0"), "{own}");
    // Nor those of a consumer that another user made.
    let next = "$JS.API.CONSUMER.MSG.NEXT.IMPORTGUARD.analytics";
    let fetched = answer(next, json!({ "batch": 1, "no_wait": true })).await;
    assert_eq!(fetched, "");
}

#[tokio::test]
async fn the_detector_reads_decisions_and_writes_lists_and_may_do_nothing_else() {
    let nats = nats().await;
    let gateway = with_an_event(&nats).await;
    let settings = Settings::new()
        .set("NATS_URL", nats.url_for("detector:detector-secret"))
        .set("NATS_INBOX_PREFIX", "_INBOX_detector");
    let rules = "[{ id: two, refusals: 2, within: 1m, only: { causes: [deciderUnavailable] }, list: bad, for: 1h }]";
    let mut detector = Detector::start(rules, settings).await;
    // Without a decider, all of them are refused; the first came before the detector.
    let caller = OpenIm::server(gateway.url());
    caller.import("op-2", "user123", &["user456"]).await;
    eventually(
        "the owner is on the list and the event is acknowledged",
        SOON,
        async || {
            let client = connect(&nats, "moderator", "moderator-secret").await;
            let jetstream = jetstream::new(client);
            let stream = jetstream.get_stream("IMPORTGUARD").await?;
            // Three: two decisions, and the change of the list.
            anyhow::ensure!(
                stream.cached_info().state.messages == 3,
                "{}",
                detector.stderr()
            );
            let support = jetstream::new(connect(&nats, "support", "support-secret").await);
            let stream = support.get_stream("IMPORTGUARD").await?;
            let mut consumer = stream
                .get_consumer::<pull::Config>("detector")
                .await
                .map_err(|error| anyhow::anyhow!("{error}"))?;
            let floor = consumer.info().await?.ack_floor.stream_sequence;
            anyhow::ensure!(floor >= 2, "acknowledged up to {floor}");
            Ok(())
        },
    )
    .await;
    assert!(entries(&nats).await >= 1);
    // Clearing away and the end need their permissions, too.
    detector.terminate(SOON).await;
    let log = detector.stderr();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");

    let client = connect(&nats, "detector", "detector-secret").await;
    let jetstream = jetstream::new(client);
    let refused = async |subject: &'static str| {
        let sent = jetstream.publish(subject, "{}".into());
        let sent = tokio::time::timeout(Duration::from_secs(2), async { sent.await?.await });
        assert!(!matches!(sent.await, Ok(Ok(_))), "{subject}");
    };
    refused("importguard.v1.decision.allow").await;
    refused("importguard.v1.imported").await;
    let stream = jetstream.get_stream("IMPORTGUARD").await.unwrap();
    let others = stream.create_consumer(durable("analytics"));
    let others = tokio::time::timeout(Duration::from_secs(2), others).await;
    assert!(
        !matches!(others, Ok(Ok(_))),
        "it could make another's consumer"
    );
}

/// The number of changes of live lists so far.
async fn entries(nats: &NatsServer) -> u64 {
    let client = connect(nats, "moderator", "moderator-secret").await;
    let stream = jetstream::new(client)
        .get_stream("KV_IMPORTGUARD_LISTS")
        .await;
    stream.unwrap().cached_info().state.last_sequence
}

#[tokio::test]
async fn what_may_not_be_read_ends_a_command_that_is_to_end() {
    let nats = nats().await;
    let _gateway = with_an_event(&nats).await;
    let settings = Settings::new().set("NATS_URL", nats.url_for("analytics:analytics-secret"));
    let (_, told) = printed(&settings.run(["stats", "--by", "verdict"]).await, 1);
    has(
        &told,
        &["NATS does not let this user publish to $JS.API.CONSUMER.CREATE.IMPORTGUARD."],
    );
}

#[tokio::test]
async fn a_wrong_prefix_of_responses_is_reported_with_its_remedy() {
    let nats = nats().await;
    let _gateway = with_an_event(&nats).await;
    let settings = Settings::new().set("NATS_URL", nats.url_for("support:support-secret"));
    let (_, told) = printed(&settings.run(["stats"]).await, 1);
    has(&told, &["set NATS_INBOX_PREFIX to the prefix"]);
}

/// What JetStream responds to a request of the user `admin`, with the requests of the nats CLI.
async fn ask(admin: &async_nats::Client, subject: String, request: Vec<u8>) -> Value {
    let response = tokio::time::timeout(SOON, admin.request(subject, request.into()));
    let response = response.await.unwrap().unwrap().payload;
    let response: Value = serde_json::from_slice(&response).unwrap_or_default();
    let error = &response["error"];
    assert!(error.is_null(), "{error}");
    response
}

#[tokio::test]
async fn administrators_edit_back_up_and_restore_the_stream_and_nobody_else_does() {
    let nats = nats().await;
    drop(with_an_event(&nats).await);
    let admin = connect(&nats, "admin", "admin-secret").await;
    let api = |operation: &str| format!("$JS.API.STREAM.{operation}.IMPORTGUARD");
    let edit = "$JS.API.STREAM.UPDATE.IMPORTGUARD";

    let info = ask(&admin, api("INFO"), Vec::new()).await;
    assert_eq!(info["state"]["messages"], 1, "{info}");
    let mut config = info["config"].clone();
    config["max_bytes"] = json!(64 << 20);
    for user in ["gateway", "detector", "moderator", "analytics", "support"] {
        let client = connect(&nats, user, &format!("{user}-secret")).await;
        let edited = client.request(edit, config.to_string().into());
        let edited = tokio::time::timeout(Duration::from_secs(1), edited).await;
        assert!(
            !matches!(edited, Ok(Ok(_))),
            "{user} could change the stream"
        );
    }
    let edited = ask(&admin, edit.to_owned(), config.to_string().into()).await;
    assert_eq!(edited["config"]["max_bytes"], 64 << 20, "{edited}");

    let inbox = admin.new_inbox();
    let mut chunks = admin.subscribe(inbox.clone()).await.unwrap();
    let request = json!({ "deliver_subject": inbox, "chunk_size": 1024 }).to_string();
    let head = ask(&admin, api("SNAPSHOT"), request.into()).await;
    let mut backup = Vec::new();
    loop {
        let chunk = tokio::time::timeout(SOON, chunks.next()).await.unwrap();
        let chunk = chunk.unwrap();
        if chunk.payload.is_empty() {
            break;
        }
        backup.push(chunk.payload);
        // NATS waits for some of these.
        admin
            .publish(chunk.reply.unwrap(), "".into())
            .await
            .unwrap();
    }
    assert!(!backup.is_empty());

    ask(&admin, api("DELETE"), Vec::new()).await;
    let request = json!({ "config": head["config"], "state": head["state"] }).to_string();
    let restore = ask(&admin, api("RESTORE"), request.into()).await;
    let place = restore["deliver_subject"].as_str().unwrap();
    for chunk in &backup {
        ask(&admin, place.to_owned(), chunk.to_vec()).await;
    }
    let restored = ask(&admin, place.to_owned(), Vec::new()).await;
    assert_eq!(restored["state"]["messages"], 1, "{restored}");
    assert_eq!(restored["config"]["max_bytes"], 64 << 20, "{restored}");

    // But it cannot publish decisions that nobody made.
    let jetstream = jetstream::new(admin);
    let forged = jetstream.publish("importguard.v1.decision.allow", "{}".into());
    let forged = tokio::time::timeout(Duration::from_secs(1), async { forged.await?.await }).await;
    assert!(!matches!(forged, Ok(Ok(_))), "it could publish a decision");
}
