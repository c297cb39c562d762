//! Support sees why somebody is on a live list and until when, wherever it looks.

use importguard_tests::{
    NatsServer, OpenIm, OtlpReceiver, PolicyDir, SOON, Service, Settings, TraceParent, eventually,
};
use serde_json::Value;
use tempfile::TempDir;

use super::{decides, listed, policy};
use crate::asserts::printed;

/// An operation whose owner was on the live list `bad` for a reason until a time, and where its gateway's spans go.
struct Blocked {
    nats: NatsServer,
    service: Service,
    receiver: OtlpReceiver,
    parent: TraceParent,
    policy: PolicyDir,
}

impl Blocked {
    async fn start(settings: impl FnOnce(Settings) -> Settings) -> Self {
        let (nats, policy) = (NatsServer::start().await, policy());
        let receiver = OtlpReceiver::start().await;
        let base = Settings::new()
            .policy(&policy)
            .nats(&nats)
            .traces_to(&receiver)
            .set("IMPORTGUARD_LOG_FORMAT", "json");
        let service = Service::all_in_one(settings(base)).await;
        service.wait_for_recorder("streaming").await;
        let entry = ["--because", "#4711", "--until", "2099-12-25T18:00Z"];
        listed(&nats, &[&["add", "bad", "u1"][..], &entry].concat()).await;
        decides(&service, &["u1"], &[]).await;
        let parent = TraceParent::numbered(4711);
        let server = OpenIm::server(service.url());
        let call = server.before_import("op-1", "u1", &["friend"]);
        server
            .send(call.header("traceparent", parent.to_string()))
            .await;
        let this = Self {
            nats,
            service,
            receiver,
            parent,
            policy,
        };
        eventually("the event is stored", SOON, async || {
            let tail = this.run(&["tail", "--no-follow"], 0).await.0;
            anyhow::ensure!(tail.lines().count() == 2, "{tail}");
            Ok(())
        })
        .await;
        this
    }

    /// What a command prints, which exits with this code.
    async fn run(&self, arguments: &[&str], code: i32) -> (String, String) {
        let settings = Settings::new().nats(&self.nats);
        printed(&settings.run(arguments).await, code)
    }

    /// The attributes of the callback's events about entries of lists.
    async fn traced(&self) -> Vec<[String; 4]> {
        let called = "POST callbackBeforeImportFriendsCommand";
        let id = &self.parent.trace_id;
        let spans = self.receiver.wait_for(id, SOON, |spans| {
            spans.iter().any(|span| span.name == called)
        });
        let spans = spans.await;
        let span = spans.iter().find(|span| span.name == called).unwrap();
        let events = span.events.iter();
        let events = events.filter(|(name, _)| name == "importguard.list");
        let values = events.map(|(_, attributes)| {
            ["rule.id", "list.name", "list.reason", "list.until"].map(|name| {
                let value = attributes.get(&format!("importguard.{name}"));
                value.cloned().unwrap_or_default()
            })
        });
        values.collect()
    }
}

#[tokio::test]
async fn in_commands_log_and_trace() {
    let blocked = Blocked::start(|settings| settings).await;
    let (tail, _) = blocked.run(&["tail", "--no-follow"], 0).await;
    let (change, decision) = tail.split_once('\n').unwrap();
    assert!(
        change.contains("list")
            && change.ends_with("added to bad by alice: #4711, until 2099-12-25T18:00:00Z"),
        "{change}"
    );
    let why = ["why", "--operation-id", "op-1"];
    for told in [decision, &blocked.run(&why, 0).await.0] {
        assert!(
            told.contains("#4711") && told.contains("until 2099-12-25T18:00:00Z"),
            "{told}"
        );
    }
    let stats = ["stats", "--by", "verdict"];
    assert!(blocked.run(&stats, 0).await.0.contains("1 decisions"));

    let log = blocked.service.wait_for_log(&["decided"]).await;
    let mut lines = log.lines();
    let line = lines.find(|line| line.contains("decided")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(
        line["matched"], "list blocked until 2099-12-25T18:00:00Z",
        "{line}"
    );
    let expected = ["blocked-owner", "blocked", "#4711", "2099-12-25T18:00:00Z"];
    assert_eq!(blocked.traced().await, [expected.map(str::to_owned)]);

    let json = ["tail", "--no-follow", "--json", "--operation-id", "op-1"];
    let event = blocked.run(&json, 0).await.0;
    let event: Value = serde_json::from_str(event.trim()).unwrap();
    let list = &event["data"]["lists"][0];
    assert_eq!(
        (list["name"].as_str(), list["size"].as_u64()),
        (Some("blocked"), Some(1))
    );
    assert_eq!(list["revision"].as_u64(), Some(1), "{event}");
}

#[tokio::test]
async fn but_not_why_in_the_trace_if_events_have_pseudonyms() {
    let redacted =
        |settings: Settings| settings.set("IMPORTGUARD_PSEUDONYM_KEY", "0123456789abcdef");
    let blocked = Blocked::start(redacted).await;
    let expected = ["blocked-owner", "blocked", "", "2099-12-25T18:00:00Z"];
    assert_eq!(blocked.traced().await, [expected.map(str::to_owned)]);
}

#[tokio::test]
async fn a_recorded_decision_is_explained_with_the_entries_it_depended_on() {
    let blocked = Blocked::start(|settings| settings).await;
    let directory = TempDir::new().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let json = ["tail", "--no-follow", "--json", "--operation-id", "op-1"];
    let event = file("event.json", &blocked.run(&json, 0).await.0);
    let exported = listed(&blocked.nats, &["export", "bad"]).await;
    let live = format!("bad={}", file("bad.jsonl", &exported));
    let policy = blocked.policy.path().display().to_string();
    let explain = ["policy", "explain", "--policy", &policy];
    let explained =
        async |more: &[&str], code| blocked.run(&[&explain[..], more].concat(), code).await;

    let (_, without) = explained(&["--event", &event], 2).await;
    assert!(
        without.contains("cannot be decided again: somebody was on the live list bad")
            && without.contains("--live bad=FILE"),
        "{without}"
    );
    let (same, _) = explained(&["--event", &event, "--live", &live], 0).await;
    let reason = "is in blocked: #4711, until 2099-12-25T18:00:00Z";
    assert!(
        same.contains("  same decision") && same.contains(reason),
        "{same}"
    );
    let (allowed, note) = explained(&["--owner", "u1"], 0).await;
    assert!(
        allowed.contains("allow: ") && note.contains("nobody is on the live list bad here"),
        "{allowed}{note}"
    );
    let (refused, note) = explained(&["--owner", "u1", "--live", &live], 0).await;
    assert!(
        refused.contains(reason) && note.is_empty(),
        "{refused}{note}"
    );

    for (wrong, expected) in [
        ("bad", "must be NAME=FILE"),
        ("worse=x", "the policy has no such live list; it has bad"),
        ("bad=/nowhere", "cannot read /nowhere"),
    ] {
        let (_, error) = explained(&["--owner", "u1", "--live", wrong], 2).await;
        assert!(error.contains(expected), "{error}");
    }
}
