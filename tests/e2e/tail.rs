//! `importguard tail` against a real gateway and a real nats-server.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::{Duration, SystemTime},
};

use importguard_tests::{
    Binary, Detector, Line, NatsServer, Process, SOON, Settings, eventually, load, stored,
    wait_for_count, workspace,
};
use tempfile::TempDir;

pub(crate) struct Tail {
    pub(crate) process: Process,
    _logs: TempDir,
}

impl Tail {
    pub(crate) fn start(nats: &NatsServer, arguments: &[&str]) -> Self {
        Self::of(&Settings::new().nats(nats), arguments)
    }

    pub(crate) fn of(settings: &Settings, arguments: &[&str]) -> Self {
        let mut command = settings.command(Binary::AllInOne.path());
        command.arg("tail").args(arguments);
        let logs = TempDir::new().unwrap();
        Self {
            process: Process::spawn("tail", command, logs.path()),
            _logs: logs,
        }
    }

    fn lines(&self) -> Vec<String> {
        self.process.stdout().lines().map(str::to_owned).collect()
    }

    pub(crate) async fn prints(&self, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines"), SOON, async || {
            let lines = self.lines();
            if lines.len() >= count {
                Ok(lines)
            } else {
                Err(self.process.output())
            }
        })
        .await
    }

    /// Its lines once it has ended by itself, and well.
    pub(crate) async fn ends(mut self) -> Vec<String> {
        let status = self.process.exit(SOON).await;
        assert_eq!(status.code(), Some(0), "{}", self.process.stderr());
        self.lines()
    }
}

async fn readers(nats: &NatsServer, count: usize) {
    let jetstream = async_nats::jetstream::new(nats.client().await);
    eventually(&format!("{count} consumers"), SOON, async || {
        let stream = jetstream.get_stream("IMPORTGUARD").await?;
        let found = stream.cached_info().state.consumer_count;
        anyhow::ensure!(found == count, "{found}");
        Ok(())
    })
    .await;
}

/// The operationIDs of events as JSON, in their order.
pub(crate) fn operation_ids(lines: &[String]) -> Vec<String> {
    lines
        .iter()
        .map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["data"]["operationID"].as_str().unwrap().to_owned()
        })
        .collect()
}

pub(crate) fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("op-{number}")).collect()
}

/// A line whose first events are `op-0`, `op-1`, …, in this order: none goes by way of the spool, where the next could overtake it.
pub(crate) async fn line_with(events: usize) -> Line {
    let line = Line::with(Settings::new().with_long_ack_timeout()).await;
    line.gateway.wait_for_recorder("streaming").await;
    import(&line, 0..events).await;
    line
}

pub(crate) async fn import(line: &Line, range: std::ops::Range<usize>) {
    let server = line.server();
    for number in range {
        server
            .import(&format!("op-{number}"), "user123", &["b"])
            .await;
    }
}

#[tokio::test]
async fn it_prints_what_happens_from_now_on_and_ctrl_c_ends_it_well() {
    let line = line_with(1).await;
    let tail = Tail::start(&line.nats, &[]);
    readers(&line.nats, 1).await;
    let server = line.server();
    server.import("op-a", "user123", &["b"]).await;
    server.import("op-r", "blocked_owner", &["b"]).await;
    server.import("op-m", "user123", &["b", "bot_1"]).await;
    server
        .send(server.after_import("op-i", "user123", &["b"]))
        .await;
    let lines = tail.prints(4).await;
    for (line, parts) in lines.iter().zip([
        ["  allow     user123 ", " 1/1  op-a"],
        [
            "  refuse    blocked_owner ",
            " 5001 blocked-owner: User not allowed to import friends (list blocked)",
        ],
        [
            "  modify    user123 ",
            " removed 1 by blocked-friends (prefix \"bot_\")",
        ],
        ["  imported  user123 ", " 1  op-i"],
    ]) {
        assert!(
            parts.iter().all(|part| line.contains(part)),
            "{line} has not {parts:?}"
        );
    }
    assert!(!tail.process.stdout().contains('\x1b'), "colours in a file");
    tail.process.sigint();
    assert_eq!(tail.ends().await.len(), 4);
}

#[tokio::test]
async fn it_finds_what_is_looked_for_in_the_past() {
    // An event from the spool could be overtaken by the next.
    let line = line_with(0).await;
    let server = line.server();
    server.import("op-1", "alice", &["x"]).await;
    server.import("op-2", "blocked_owner", &["x"]).await;
    server.import("op-3", "alice", &["x", "bot_1"]).await;
    server.import("op-4", "bob", &["bot_1"]).await;
    wait_for_count(&line.nats, 4).await;
    for (filter, expected) in [
        (&["--verdict", "refuse"][..], &["op-2", "op-4"][..]),
        (&["--verdict", "allow,modify"], &["op-1", "op-3"]),
        (&["--rule", "blocked-friends"], &["op-3", "op-4"]),
        (&["--owner", "alice"], &["op-1", "op-3"]),
        (&["--operation-id", "op-3"], &["op-3"]),
        (&["--owner", "alice", "--verdict", "modify"], &["op-3"]),
    ] {
        let count = expected.len().to_string();
        let mut arguments = vec!["--json", "--since", "1h", "--count", &count];
        arguments.extend(filter);
        let lines = Tail::start(&line.nats, &arguments).ends().await;
        assert_eq!(operation_ids(&lines), expected, "{filter:?}");
    }
}

#[tokio::test]
async fn json_lines_are_the_events_as_they_are() {
    let line = line_with(5).await;
    let arguments = ["--json", "--since", "1h", "--count", "5"];
    let lines = Tail::start(&line.nats, &arguments).ends().await;
    let events = stored(&line.nats).await;
    assert_eq!(lines.len(), events.len());
    for (line, event) in lines.iter().zip(events) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line, event.json);
    }
}

#[tokio::test]
async fn a_durable_tail_continues_where_it_ended() {
    let line = line_with(10).await;
    let tail = |count: &str| {
        let arguments = [
            "--json",
            "--since",
            "1h",
            "--durable",
            "archive",
            "--count",
            count,
        ];
        Tail::start(&line.nats, &arguments)
    };
    assert_eq!(operation_ids(&tail("4").ends().await), numbered(0..4));
    import(&line, 10..12).await;
    assert_eq!(operation_ids(&tail("3").ends().await), numbered(4..7));
    let rest = operation_ids(&tail("5").ends().await);
    assert_eq!(rest, numbered(7..12));
}

#[tokio::test]
async fn a_durable_tail_goes_on_only_with_the_filters_it_was_made_with() {
    let line = line_with(30).await;
    let tail = |arguments: &[&str]| {
        let durable = ["--json", "--since", "1h", "--durable", "archive", "--count"];
        Tail::start(&line.nats, &[&durable[..], arguments].concat())
    };
    let filtered = ["--owner", "user123", "--verdict", "allow,modify"];
    let first = tail(&[&["6"][..], &filtered].concat()).ends().await;
    assert_eq!(operation_ids(&first), numbered(0..6));
    for (filters, reported) in [
        (&[][..], "this command has no filters"),
        (&["--verdict", "refuse"], "has the filters --verdict refuse"),
    ] {
        let mut other = tail(&[&["1"][..], filters].concat());
        let status = other.process.exit(SOON).await;
        assert_eq!(status.code(), Some(1), "{}", other.process.output());
        for part in [
            reported,
            "--verdict allow,modify --owner user123",
            "another name",
        ] {
            other.process.wait_for_log(&[part]).await;
        }
        assert_eq!(other.lines().len(), 0);
    }
    let reordered = ["24", "--verdict", "modify,allow", "--owner", "user123"];
    let rest = tail(&reordered).ends().await;
    assert_eq!(operation_ids(&rest), numbered(6..30));
}

#[tokio::test]
async fn a_durable_tail_takes_no_events_from_another_program() {
    let line = line_with(1).await;
    let rules = workspace().join("policy/detector.yaml");
    let detector = Detector::start_with(&rules, Settings::new().nats(&line.nats)).await;
    let mut tail = Tail::start(&line.nats, &["--durable", "detector", "--no-follow"]);
    let status = tail.process.exit(SOON).await;
    assert_eq!(status.code(), Some(1), "{}", tail.process.output());
    let expected = "the durable consumer detector was not made by tail, importguard detect";
    assert!(
        tail.process.stderr().contains(expected),
        "{}",
        tail.process.output()
    );
    drop(detector);
}

#[tokio::test]
async fn without_following_it_prints_what_is_stored_and_ends() {
    let line = line_with(5).await;
    let tail = |arguments: &[&str]| {
        let arguments = [&["--json"][..], arguments].concat();
        Tail::start(&line.nats, &arguments).ends()
    };
    assert_eq!(operation_ids(&tail(&["--no-follow"]).await), numbered(0..5));
    assert_eq!(tail(&["--no-follow", "--since", "0s"]).await.len(), 0);
    let durable = ["--no-follow", "--since", "1h", "--durable", "archive"];
    assert_eq!(operation_ids(&tail(&durable).await), numbered(0..5));
    assert_eq!(tail(&durable).await.len(), 0);
    import(&line, 5..7).await;
    assert_eq!(operation_ids(&tail(&durable).await), numbered(5..7));
}

#[tokio::test]
async fn without_following_it_does_not_wait_for_a_stream_or_a_server() {
    let refuses = async |nats: &NatsServer, reported: &str| {
        let mut tail = Tail::start(nats, &["--no-follow"]);
        let status = tail.process.exit(SOON).await;
        assert_eq!(status.code(), Some(1), "{}", tail.process.output());
        tail.process.wait_for_log(&[reported]).await;
    };
    let mut nats = NatsServer::start().await;
    refuses(&nats, "no stream IMPORTGUARD").await;
    nats.kill9();
    refuses(&nats, "NATS at 127.0.0.1").await;
}

#[tokio::test]
async fn it_ends_before_what_is_stored_after_a_time() {
    let line = line_with(3).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let between = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    tokio::time::sleep(Duration::from_millis(500)).await;
    import(&line, 3..5).await;
    let tail = |arguments: &[&str]| Tail::start(&line.nats, &[&["--json"][..], arguments].concat());
    let before = tail(&["--until", &between]).ends().await;
    assert_eq!(operation_ids(&before), numbered(0..3));
    let after = tail(&["--since", &between, "--no-follow"]).ends().await;
    assert_eq!(operation_ids(&after), numbered(3..5));
    // A durable one leaves the rest to the next.
    let durable = ["--since", "1h", "--durable", "archive"];
    let first = tail(&[&durable[..], &["--until", &between]].concat());
    assert_eq!(operation_ids(&first.ends().await), numbered(0..3));
    let rest = tail(&[&durable[..], &["--count", "2"]].concat());
    assert_eq!(operation_ids(&rest.ends().await), numbered(3..5));

    let soon = SystemTime::now() + Duration::from_secs(30);
    let soon = humantime::format_rfc3339_millis(soon).to_string();
    let following = tail(&["--until", &soon]);
    // With the durable one, and two that ended: NATS keeps those for some minutes.
    readers(&line.nats, 4).await;
    import(&line, 5..6).await;
    assert_eq!(operation_ids(&following.ends().await), numbered(5..6));
}

#[tokio::test]
async fn it_finds_a_friend_and_a_trace() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let line = line_with(1).await;
    let server = line.server();
    server
        .import("op-f", "user123", &["x", "rare_friend"])
        .await;
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let traced = server
        .before_import("op-t", "user123", &["b"])
        .header("traceparent", &traceparent);
    server.send(traced).await;
    wait_for_count(&line.nats, 3).await;
    for (filter, expected) in [
        (["--friend", "rare_friend"], "op-f"),
        (["--trace", TRACE], "op-t"),
        (["--trace", &traceparent], "op-t"),
    ] {
        let arguments = [&["--json", "--no-follow"][..], &filter].concat();
        let lines = Tail::start(&line.nats, &arguments).ends().await;
        assert_eq!(operation_ids(&lines), [expected], "{filter:?}");
    }
}

#[tokio::test]
async fn a_rule_that_no_event_had_is_reported_with_those_seen() {
    let line = line_with(1).await;
    line.server().import("op-r", "blocked_owner", &["b"]).await;
    wait_for_count(&line.nats, 2).await;
    let hint = "no event had the rule blocked-ownr; rules seen: blocked-owner";
    let arguments = ["--since", "1h", "--rule", "blocked-ownr"];
    let following = Tail::start(&line.nats, &arguments);
    following.process.wait_for_log(&[hint]).await;
    following.process.sigint();
    assert_eq!(following.ends().await.len(), 0);
    let verdicts = ["--since", "1h", "--verdict", "modify", "--no-follow"];
    let ending = Tail::start(&line.nats, &verdicts);
    ending
        .process
        .wait_for_log(&["no event had the verdict modify; verdicts seen: allow, refuse"])
        .await;
    assert_eq!(ending.ends().await.len(), 0);
}

#[tokio::test]
async fn it_waits_for_nats_and_for_the_stream_and_reports_it() {
    let mut line = Line::without_nats(Settings::new()).await;
    import(&line, 0..3).await;
    let tail = Tail::start(&line.nats, &["--json", "--since", "1h", "--count", "3"]);
    tail.process.wait_for_log(&["NATS at 127.0.0.1"]).await;
    line.nats.restart().await;
    assert_eq!(operation_ids(&tail.ends().await), numbered(0..3));

    let empty = NatsServer::start().await;
    let waiting = Tail::start(&empty, &[]);
    waiting
        .process
        .wait_for_log(&["no stream IMPORTGUARD yet"])
        .await;
    waiting.process.sigint();
    assert_eq!(waiting.ends().await.len(), 0);
}

#[tokio::test]
async fn it_misses_nothing_while_nats_is_away() {
    let mut line = line_with(1).await;
    let tail = Tail::start(&line.nats, &["--json", "--count", "20"]);
    readers(&line.nats, 1).await;
    import(&line, 1..6).await;
    tail.prints(5).await;
    line.nats.kill9();
    tail.process
        .wait_for_log(&["lost the connection to NATS"])
        .await;
    import(&line, 6..16).await;
    line.nats.restart().await;
    tail.prints(15).await;
    import(&line, 16..21).await;
    assert_eq!(operation_ids(&tail.ends().await), numbered(1..21));
}

#[tokio::test]
async fn it_reads_a_stream_that_is_created_again_from_its_start() {
    for durable in [&[][..], &["--durable", "archive"]] {
        let line = line_with(1).await;
        let arguments = [&["--json", "--count", "8"][..], durable].concat();
        let tail = Tail::start(&line.nats, &arguments);
        readers(&line.nats, 1).await;
        import(&line, 1..4).await;
        tail.prints(3).await;
        // It sees the new stream only when that has more events than the old one had.
        tail.process.freeze().await;
        let jetstream = async_nats::jetstream::new(line.nats.client().await);
        jetstream.delete_stream("IMPORTGUARD").await.unwrap();
        import(&line, 4..9).await;
        wait_for_count(&line.nats, 5).await;
        tail.process.thaw();
        let mut ids = operation_ids(&tail.ends().await);
        // The gateway spools the first of them.
        ids.sort();
        assert_eq!(ids, numbered(1..9), "{durable:?}");
    }
}

#[tokio::test]
async fn it_keeps_up_and_ends_when_its_reader_has_gone() {
    const EVENTS: usize = 500;
    let line = Line::start().await;
    let server = line.server();
    load(EVENTS, 32, async |number| {
        server
            .import(&format!("op-{number}"), "user123", &["b"])
            .await;
    })
    .await;
    let count = EVENTS.to_string();
    let arguments = ["--json", "--since", "1h", "--count", &count];
    let mut printed = operation_ids(&Tail::start(&line.nats, &arguments).ends().await);
    printed.sort_unstable();
    printed.dedup();
    assert_eq!(printed.len(), EVENTS);

    let settings = Settings::new().nats(&line.nats);
    let mut command = settings.command(Binary::AllInOne.path());
    command
        .args(["tail", "--since", "1h"])
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut first).unwrap();
    assert!(first.contains("allow"), "{first}");
    drop(reader);
    server.import("one-more", "user123", &["b"]).await;
    let status = eventually("tail ends", SOON, async || {
        child
            .try_wait()
            .map_err(|error| error.to_string())?
            .ok_or_else(|| "it runs".to_owned())
    })
    .await;
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_usage_error_exits_with_2_and_names_the_error() {
    for (arguments, word) in [
        (&["--verdict", "perhaps"][..], "allow, refuse, modify"),
        (
            &["--since", "tomorrow"],
            "30s, 1h or 7d, or a time such as 2026-11-27T14:00",
        ),
        (&["--until", "2026-13-01"], "not a time"),
        (&["--since", "1h", "--until", "2h"], "later than --since"),
        (&["--trace", "4bf92f"], "32 hexadecimal digits"),
        (&["--durable", "a.b"], "letters, digits"),
        (&["--count", "0"], "--count"),
        (&["--nothing"], "--nothing"),
    ] {
        let mut command = Settings::new().command(Binary::AllInOne.path());
        let output = command.arg("tail").args(arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
}

#[tokio::test]
async fn it_says_when_the_stream_begins_if_that_is_later_than_what_is_asked_for() {
    let line = line_with(1).await;
    let said = "tail: the stream begins at ";
    let mut tail = Tail::start(&line.nats, &["--since", "30d", "--until", "29d"]);
    assert_eq!(tail.process.exit(SOON).await.code(), Some(0));
    assert!(
        tail.process.stderr().contains(said),
        "{}",
        tail.process.output()
    );
    let mut later = Tail::start(&line.nats, &["--since", "0s", "--no-follow"]);
    assert_eq!(later.process.exit(SOON).await.code(), Some(0));
    assert!(!later.process.stderr().contains(said));
}
