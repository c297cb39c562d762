//! The phases of the demonstration, and the comparison at its end.

use std::{cell::Cell, net::SocketAddr, process::ExitCode, time::Duration};

use importguard_gateway::recorder::Recorder;
use importguard_nats::NatsSettings;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    CONSOLE,
    caller::Caller,
    imports::Import,
    ledger::Ledger,
    nats::NatsServer,
    screen::{Decisions, Screen},
};
use crate::events::{Begin, Event, Range, Source};

/// The interval between imports, slow enough to read along.
const INTERVAL: Duration = Duration::from_millis(125);

/// When NATS is killed, and when it is restarted, in percent of the duration.
const KILLED: u32 = 35;
const STARTED_AGAIN: u32 = 60;

/// Timeout of draining the spool once NATS is back. The gateway reconnects within seconds.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Timeout of showing the last events.
const SHOW_TIMEOUT: Duration = Duration::from_secs(5);

const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Maximum number of disagreements that are printed.
const SHOWN: usize = 10;

/// What the demonstration runs with.
pub(super) struct Stage<'a> {
    /// The gateway's address.
    pub(super) callbacks: SocketAddr,
    pub(super) nats: &'a NatsSettings,
    pub(super) recorder: Recorder,
    /// How long imports are sent.
    pub(super) duration: Duration,
    pub(super) screen: Screen,
    /// Cancelled when no more imports should be sent.
    pub(super) asking: &'a CancellationToken,
}

impl Stage<'_> {
    /// Runs all phases. The exit code says whether every import was answered and recorded.
    ///
    /// # Errors
    /// If nats-server cannot be restarted or be read from, or standard output is closed.
    pub(super) async fn play(&self, nats: &mut NatsServer) -> anyhow::Result<ExitCode> {
        let shown = Cell::new(0);
        let mut decisions = Decisions::new(self.screen, &shown);
        let following = Range {
            begin: Begin::First,
            until: None,
            follow: true,
        };
        // Never cancelled: reading is dropped with the last phase.
        let forever = CancellationToken::new();
        let mut source = Source::connect(self.nats, following, None, CONSOLE, &forever).await?;
        let mut ledger = tokio::select! {
            acted = self.act(nats, &shown) => acted?,
            ended = source.follow(forever, None, |event| decisions.show(event)) => {
                ended?;
                anyhow::bail!("reading from NATS ended early");
            }
        };
        self.read_back(&mut ledger).await?;
        self.conclude(&ledger)
    }

    /// Sends imports, and kills and restarts NATS meanwhile. Returns the answers.
    async fn act(&self, nats: &mut NatsServer, shown: &Cell<usize>) -> anyhow::Result<Ledger> {
        let mut ledger = Ledger::default();
        let caller = Caller::new(self.callbacks);
        let start = Instant::now();
        let at = |hundredths| start + self.duration * hundredths / 100;

        self.screen
            .announce("OpenIM asks about imports. Subscribers on NATS see:")?;
        self.ask_until(at(KILLED), &caller, &mut ledger, false)
            .await?;

        if !self.asking.is_cancelled() {
            self.screen
                .announce("NATS is killed. Callbacks are answered all the same:")?;
            nats.kill();
            self.ask_until(at(STARTED_AGAIN), &caller, &mut ledger, true)
                .await?;
            let waiting = self.recorder.status().spooled_events;
            self.screen.announce(&format!(
                "NATS is started again; {waiting} events waited in the spool and follow now:"
            ))?;
            nats.restart().await?;
        }

        self.ask_until(at(100), &caller, &mut ledger, false).await?;
        self.settle(ledger.asked(), shown).await?;
        Ok(ledger)
    }

    /// Sends imports until `end`, or until no more should be sent.
    async fn ask_until(
        &self,
        end: Instant,
        caller: &Caller,
        ledger: &mut Ledger,
        nats_is_down: bool,
    ) -> anyhow::Result<()> {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = self.asking.cancelled() => return Ok(()),
                () = sleep_until(end) => return Ok(()),
                _ = ticks.tick() => {}
            }
            let import = Import::new(ledger.asked());
            let answer = caller.ask(&import).await;
            let answer = answer.map_err(|error| format!("{error:#}"));
            if nats_is_down {
                self.screen.spooled(&import, answer.as_ref().copied())?;
            }
            ledger.answered(import, answer, nats_is_down);
        }
    }

    /// Waits until the spool is empty and all of `asked` were shown, each up to a timeout.
    async fn settle(&self, asked: usize, shown: &Cell<usize>) -> anyhow::Result<()> {
        let deadline = Instant::now() + DRAIN_TIMEOUT;
        while self.recorder.status().spooled_events > 0 && Instant::now() < deadline {
            sleep(POLL_INTERVAL).await;
        }
        let left = self.recorder.status().spooled_events;
        if left > 0 {
            self.screen
                .announce(&format!("{left} events are still in the spool"))?;
        }
        let deadline = Instant::now() + SHOW_TIMEOUT;
        while shown.get() < asked && Instant::now() < deadline {
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Reads every event in the stream.
    async fn read_back(&self, ledger: &mut Ledger) -> anyhow::Result<()> {
        self.screen.announce("The stream is read back:")?;
        let stored = Range {
            begin: Begin::First,
            until: None,
            follow: false,
        };
        let forever = CancellationToken::new();
        let mut source = Source::connect(self.nats, stored, None, CONSOLE, &forever).await?;
        source
            .follow(forever, None, |delivered| {
                let event: Event = serde_json::from_slice(delivered.payload)?;
                ledger.recorded(&event);
                Ok(None)
            })
            .await
    }

    fn conclude(&self, ledger: &Ledger) -> anyhow::Result<ExitCode> {
        self.screen.print(&format!("\n{ledger}"))?;
        let disagreements = ledger.disagreements();
        let asked = ledger.asked();
        if disagreements.is_empty() {
            let down = ledger.asked_while_nats_was_down();
            self.screen.conclude(
                true,
                &format!(
                    "Nothing was lost: {asked} imports were answered and recorded, {down} of them while NATS was down."
                ),
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        for line in disagreements.iter().take(SHOWN) {
            self.screen.print(line)?;
        }
        if disagreements.len() > SHOWN {
            self.screen.print("…")?;
        }
        self.screen.conclude(
            false,
            &format!(
                "{} of {asked} imports are not as they should be; --keep keeps the files.",
                disagreements.len()
            ),
        )?;
        Ok(ExitCode::FAILURE)
    }
}
