//! The recorder's thread and its task must not end. When one does all the same, by a panic that nobody foresaw, the gateway
//! ends too, for its supervisor to start it again: on its own it would answer and record nothing.

use importguard_gateway::{Gateway, RunError, Settings, recorder::RecordError};
use tokio::{net::TcpListener, time::timeout};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::NoSubscriber,
};

use super::*;

/// A payload whose end is the end of the thread that it happens on.
struct Fatal;

impl AsRef<[u8]> for Fatal {
    fn as_ref(&self) -> &[u8] {
        b"{}"
    }
}

impl Drop for Fatal {
    fn drop(&mut self) {
        panic!("the test's own panic");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorder_says_that_it_has_ended_when_the_spools_thread_dies() {
    let (nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
    let recording = Recording::start(&nats, &spool).await;
    recording.record(0).await;
    let mut fatal = event(1);
    fatal.payload = Bytes::from_owner(Fatal);
    let deadline = Instant::now() + SOON;
    // The thread lets go of an event when it has committed it, so this one is safe.
    let recorded = recording.recorder.record(fatal, deadline).await;
    assert_eq!(recorded, Ok(Recorded::Spooled));
    let ended = recording.recorder.ended();
    timeout(SOON, ended.cancelled()).await.unwrap();
    let later = recording.recorder.record(event(2), deadline).await;
    assert_eq!(later, Err(RecordError::Closed));
    assert_eq!(rows(&spool), 2);
}

fn rows(spool: &TempDir) -> i64 {
    let file = rusqlite::Connection::open(spool.path().join("spool.db")).unwrap();
    let count = file.query_row("SELECT COUNT(*) FROM event", [], |row| row.get(0));
    count.unwrap()
}

/// A log that is the end of the task that writes `self.0` to it.
struct FatalLog(&'static str);

impl Subscriber for FatalLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut FatalLog(self.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl Visit for FatalLog {
    fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
        assert_ne!(format!("{value:?}"), self.0, "the test's own panic");
    }
}

// With one thread the log is the log of the drain's task too.
#[tokio::test]
async fn the_gateway_ends_with_an_error_when_the_drains_task_dies() {
    // With one dispatcher alone, tracing asks whichever thread reaches a callsite first, and another test's thread has none.
    let _second = tracing::Dispatch::new(NoSubscriber::default());
    let _log = tracing::subscriber::set_default(FatalLog("streaming events to NATS"));
    let (mut nats, spool) = (NatsServer::not_started(), TempDir::new().unwrap());
    let mut settings: Settings = parse_arguments([""; 0]).unwrap();
    settings.record = super::settings(&nats, &spool);
    let gateway = Gateway::start(&settings, &mut runtime()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut serving = Box::pin(gateway.serve(listener, CancellationToken::new()));
    let early = timeout(Duration::from_millis(300), &mut serving).await;
    assert!(early.is_err(), "it ended before its task did: {early:?}");
    nats.restart().await;
    let ended = timeout(SOON, serving).await.unwrap();
    assert!(matches!(ended, Err(RunError::Recorder)), "{ended:?}");
}
