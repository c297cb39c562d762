use std::{process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::Args;
use importguard_gateway::{
    recorder::{RecordSettings, Recorder, RecorderStatus, StartError, State, StreamSettings},
    spool::{SpoolOpenError, SpoolReader, SpoolState, SpoolSummary},
};
use importguard_nats::NatsSettings;
use importguard_runtime::{Runtime, settings::duration, signals};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::{Directory, events};
use crate::events::Console;

const CONSOLE: Console = Console::new("spool drain");

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// How long the end may take: acks that are on their way, and the spool's last commit.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

const HELP: &str = r#"For the spool of a gateway that will not start again, and for a copy made by `importguard spool copy`. The rules are the
gateway's: in order, an event leaves the spool when JetStream has acknowledged it, and what NATS refuses while it takes other events stays
parked, with its reason. Events that may have been published before are looked up in the stream. So it can be interrupted at any
moment, even by SIGKILL, and run again: no event is lost, and none is published twice.

A spool that a gateway has in use is left alone: that gateway publishes it.

Example:
  NATS_URL=nats://nats:4222 importguard spool drain /var/lib/importguard/spool

Exit codes: 0 if NATS has all events; 1 if some are left: NATS does not take them, or the command was interrupted; 2 on usage errors."#;

/// Publish the events in a spool to NATS, and empty it
#[derive(Args)]
#[command(after_help = HELP)]
pub(crate) struct Drain {
    #[command(flatten)]
    directory: Directory,

    /// How long NATS may be unreachable, or the spool unusable, before the command gives up
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    wait: Duration,

    #[command(flatten)]
    nats: NatsSettings,

    #[command(flatten)]
    stream: StreamSettings,
}

/// Why publishing came to its end.
enum End {
    /// Nothing is left to try.
    Complete,
    Interrupted,
    /// It cannot go on for this reason.
    Stuck(String),
}

impl Drain {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let shutdown = signals::shutdown()?;
        let before = self.look()?;
        for file in &before.set_aside {
            CONSOLE.report(&format!(
                "not published: {}, a corrupt spool that was set aside and may hold events",
                file.display()
            ));
        }
        if before.events == 0 {
            CONSOLE.report("the spool is empty");
            return Ok(ExitCode::SUCCESS);
        }
        let settings = RecordSettings {
            spool: self.directory.dir,
            nats: self.nats,
            stream: self.stream,
            ..RecordSettings::default()
        };
        let mut runtime = Runtime::new(shutdown.clone())?;
        let recorder = match Recorder::empty(settings, &mut runtime).await {
            Err(StartError::Spool(SpoolOpenError::Held { holder, .. })) => bail!(in_use(&holder)),
            recorder => recorder?,
        };
        let mut files = runtime.files;
        tokio::spawn(async move { files.run_without_sighup().await });
        let end = follow(&recorder, &before, self.wait, &shutdown).await;
        recorder.close(CLOSE_TIMEOUT).await;
        Ok(report(&recorder.status(), &before, &end))
    }

    /// What is to be published. An error if it cannot, or should not.
    fn look(&self) -> anyhow::Result<SpoolSummary> {
        let dir = &self.directory.dir;
        ensure!(
            !dir.is_file(),
            "{} is no directory: make a spool of it with `importguard spool copy`, and drain that",
            dir.display()
        );
        let reader = SpoolReader::open(dir)?;
        // A gateway would set it aside and go on; here it is all there is.
        reader.check().context("nothing was published")?;
        let summary = reader.summary()?;
        if summary.in_use {
            let holder = summary.in_use_by.map(|pid| format!(" (process {pid})"));
            bail!(in_use(&holder.unwrap_or_default()));
        }
        Ok(summary)
    }
}

fn in_use(holder: &str) -> String {
    format!(
        "a gateway{holder} has this spool in use and publishes it by itself: `importguard spool status` shows how far it is; \
         nothing was changed"
    )
}

async fn follow(
    recorder: &Recorder,
    before: &SpoolSummary,
    patience: Duration,
    shutdown: &CancellationToken,
) -> End {
    let ended = recorder.ended();
    let mut progress = CONSOLE.progress_of("published");
    let mut tick = interval(LOOK);
    let mut stuck_since = None;
    loop {
        tokio::select! {
            () = ended.cancelled() => return End::Complete,
            () = shutdown.cancelled() => return End::Interrupted,
            _ = tick.tick() => {}
        }
        let status = recorder.status();
        let left = status.spooled_events;
        let done = before.events.saturating_sub(left);
        progress.show(done as u64, left as u64);
        match obstacle(&status) {
            None => stuck_since = None,
            Some(why) => {
                let since = *stuck_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= patience {
                    return End::Stuck(why);
                }
            }
        }
    }
}

/// What keeps events from being published.
fn obstacle(status: &RecorderStatus) -> Option<String> {
    if status.spool.state == SpoolState::Broken {
        return status.spool.last_error.clone();
    }
    let error = status.last_error.clone();
    error.filter(|_| status.state == State::Spooling)
}

fn report(status: &RecorderStatus, before: &SpoolSummary, end: &End) -> ExitCode {
    let left = status.spooled_events;
    let done = before.events.saturating_sub(left);
    let parked: usize = status.parked.iter().map(|parked| parked.events).sum();
    if left == 0 {
        CONSOLE.report(&format!("{} published; the spool is empty", events(done)));
        return ExitCode::SUCCESS;
    }
    let why = match end {
        End::Complete if left == parked => "NATS refuses these".to_owned(),
        End::Complete => "the spool or the connection to NATS ended unexpectedly".to_owned(),
        End::Interrupted => "interrupted".to_owned(),
        End::Stuck(why) => why.clone(),
    };
    CONSOLE.report(&format!(
        "{} published, {left} left: {why}; run it again to go on",
        events(done)
    ));
    for parked in &status.parked {
        let detail = parked.detail.as_deref().unwrap_or("not tried yet");
        CONSOLE.report(&format!(
            "{} parked, {}: {detail}",
            events(parked.events),
            parked.reason
        ));
    }
    ExitCode::FAILURE
}
