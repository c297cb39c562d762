use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::Args;
use importguard_gateway::{
    recorder::{Drained, RecordSettings, Recorder, RecorderStatus, StartError, StreamSettings},
    spool::{SpoolOpenError, SpoolReader, SpoolState, SpoolSummary, set_aside_files},
};
use importguard_nats::NatsSettings;
use importguard_runtime::{Runtime, environment::parse_arguments, settings::duration, signals};
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::{Directory, events, exit_code, report_set_aside};
use crate::events::Console;

const CONSOLE: Console = Console::new("spool drain");

/// The interval at which progress is checked.
const LOOK: Duration = Duration::from_millis(200);

/// Timeout of closing: pending acks, and the last commit of the spool.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

const HELP: &str = r#"For the spool of a gateway that will not start again, and for a copy made by `importguard spool copy`. The rules are the gateway's: in order, an event leaves the spool when JetStream has acknowledged it, and what NATS refuses while it takes other events stays parked, with its reason. Events that may have been published before are looked up in the stream. So it can be interrupted at any moment, even by SIGKILL, and run again: no event is lost, and none is published twice unless the lookup fails.

A database that is found corrupt meanwhile is set aside, and the events that can still be read are published. As long as the directory has a corrupt spool that was set aside, then or by a gateway, the command fails and says how to publish what is in it.

A spool that a gateway has in use is left alone: that gateway publishes it.

Example:
  NATS_URL=nats://nats:4222 importguard spool drain /var/lib/importguard/spool

Exit codes: 0 if NATS has all events; 1 if some are left or could not be read: NATS does not take them, the spool is corrupt, one that was set aside may hold some, or the command was interrupted; 2 on usage errors."#;

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

/// Why publishing ended.
enum End {
    /// Nothing is left to try.
    Complete,
    Interrupted,
    /// It cannot continue, for this reason.
    Stuck(String),
}

impl Drain {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let shutdown = signals::shutdown()?;
        let before = self.look()?;
        if before.events == 0 {
            CONSOLE.report("the spool is empty");
            report_set_aside(CONSOLE, "published", &before.set_aside);
            return Ok(exit_code(before.set_aside.is_empty()));
        }
        let dir = self.directory.dir.clone();
        let settings = RecordSettings {
            spool: self.directory.dir,
            nats: self.nats,
            stream: self.stream,
            ..parse_arguments([""; 0])?
        };
        let mut runtime = Runtime::new(shutdown.clone())?;
        let recorder = match Recorder::empty(settings, &mut runtime).await {
            Err(StartError::Spool(SpoolOpenError::Held { holder, .. })) => bail!(in_use(&holder)),
            recorder => recorder?,
        };
        let mut files = runtime.files;
        tokio::spawn(async move { files.run_without_sighup().await });
        let end = follow(&recorder, self.wait, &shutdown).await;
        recorder.close(CLOSE_TIMEOUT).await;
        let outcome = Outcome {
            status: recorder.status(),
            drained: recorder.drained(),
            expected: before.events,
            set_aside: set_aside_files(&dir).context("cannot look at the spool again")?,
            end,
        };
        Ok(outcome.report())
    }

    /// Returns what is to be published, or an error if it cannot or should not be.
    fn look(&self) -> anyhow::Result<SpoolSummary> {
        let dir = &self.directory.dir;
        ensure!(
            !dir.is_file(),
            "{} is no directory: make a spool of it with `importguard spool copy`, and drain that",
            dir.display()
        );
        let reader = SpoolReader::open(dir)?;
        // A gateway would set a corrupt spool aside and continue. This command has nothing else to publish.
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

async fn follow(recorder: &Recorder, patience: Duration, shutdown: &CancellationToken) -> End {
    let ended = recorder.ended();
    let mut progress = CONSOLE.progress("published", "events");
    let mut tick = interval(LOOK);
    let (mut reached, mut since) = (None, Instant::now());
    loop {
        tokio::select! {
            () = ended.cancelled() => return End::Complete,
            () = shutdown.cancelled() => return End::Interrupted,
            _ = tick.tick() => {}
        }
        let status = recorder.status();
        let drained = recorder.drained();
        progress.show(drained.published as u64, status.spooled_events as u64);
        let now = Some((drained, parked(&status)));
        match obstacle(&status) {
            Some(why) if now == reached => {
                if since.elapsed() >= patience {
                    return End::Stuck(why);
                }
            }
            _ => (reached, since) = (now, Instant::now()),
        }
    }
}

/// What may keep events from being published, in any state of the recorder.
fn obstacle(status: &RecorderStatus) -> Option<String> {
    match status.spool.state {
        SpoolState::Broken => status.spool.last_error.as_ref().map(|error| {
            format!(
                "{error} (a spool that its own disk has no room for can be copied to another one with `importguard spool copy DIR --to DIR`, \
                 and that copy be drained)"
            )
        }),
        SpoolState::Healthy | SpoolState::Degraded => status.last_error.clone(),
    }
}

fn parked(status: &RecorderStatus) -> usize {
    status.parked.iter().map(|parked| parked.events).sum()
}

/// What publishing came to.
struct Outcome {
    status: RecorderStatus,
    drained: Drained,
    /// The number of events that there were.
    expected: usize,
    /// Corrupt databases beside the spool, set aside now or earlier.
    set_aside: Vec<PathBuf>,
    end: End,
}

impl Outcome {
    fn report(&self) -> ExitCode {
        let left = self.status.spooled_events;
        let drained = self.drained();
        match left {
            0 => CONSOLE.report(&format!("{drained}; the spool is empty")),
            _ => CONSOLE.report(&format!(
                "{drained}, {left} left: {}; run it again to go on",
                self.why()
            )),
        }
        for parked in &self.status.parked {
            let detail = parked.detail.as_deref().unwrap_or("not tried yet");
            CONSOLE.report(&format!(
                "{} parked, {}: {detail}",
                events(parked.events),
                parked.reason
            ));
        }
        report_set_aside(CONSOLE, "published", &self.set_aside);
        let lost = self.report_lost();
        exit_code(left == 0 && self.set_aside.is_empty() && !lost)
    }

    /// What has left the spool, such as `3 events published, 2 that NATS already had`.
    fn drained(&self) -> String {
        let published = events(self.drained.published);
        match self.drained.stored_before {
            0 => format!("{published} published"),
            before => format!("{published} published, {before} that NATS already had"),
        }
    }

    /// Why events are left.
    fn why(&self) -> String {
        let left = self.status.spooled_events;
        match &self.end {
            End::Complete if left == parked(&self.status) => "NATS refuses these".to_owned(),
            End::Complete => "the spool or the connection to NATS ended unexpectedly".to_owned(),
            End::Interrupted => "interrupted".to_owned(),
            End::Stuck(why) => why.clone(),
        }
    }

    /// Reports events that are neither published nor left. Returns whether there are any.
    fn report_lost(&self) -> bool {
        let known = self.drained.total() + self.status.spooled_events;
        let lost = self.expected.saturating_sub(known);
        // If the drain was interrupted, its last events may have left the spool without being counted.
        let is_exact = matches!(self.end, End::Complete) || self.status.spooled_events == 0;
        if lost == 0 || !is_exact {
            return false;
        }
        let why = match self.set_aside.is_empty() {
            true => ": another program has changed the spool meanwhile",
            false => "",
        };
        CONSOLE.report(&format!(
            "{} could no longer be read, and are not published{why}",
            events(lost)
        ));
        true
    }
}
