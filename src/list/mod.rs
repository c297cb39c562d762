//! `importguard list`: changes and shows live lists.

mod change;
mod connection;
pub(crate) mod file;
mod history;
mod import;
mod read;
mod who;

use std::{io::Write, process::ExitCode};

use clap::{Args, Subcommand};
use importguard_lists::{Bucket, BucketError, ListName, RETENTION};
use importguard_nats::NatsSettings;

use self::{
    change::{Add, Remove},
    connection::{Denials, connect},
    history::History,
    import::Import,
    read::{Export, Show},
};
use crate::{
    events::Console,
    output::{self, usage_error},
    text::counted,
};

const CONSOLE: Console = Console::new("list");

/// A command that cannot be executed as given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UsageError(String);

const EXAMPLES: &str = r##"Examples:
  importguard list add blocked user123 --for 7d --because "#4711"
      block user123 for a week, on every decider whose policy has { live: blocked }
  importguard list remove blocked user123 --because "appeal"
      and no longer
  importguard list show blocked
      who is on the list, until when and why
  importguard list history blocked user123
      who added and removed user123, when and why
  importguard list import blocked blocked.txt --because "known spammers"
      everybody in a file: an ID a line, or JSON as from export

Exit codes: 0 on success; 1 when NATS or a file cannot be used, or the ID that was asked for is not on the list; 2 on usage errors."##;

/// Change and show live lists, which policies refer to as { live: NAME }
#[derive(Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum ListCommand {
    Add(Box<Add>),
    Remove(Box<Remove>),
    Show(Box<Show>),
    Import(Box<Import>),
    Export(Box<Export>),
    History(Box<History>),
    Create(Box<Create>),
    Clear(Box<Clear>),
}

/// Says that a change has made a list: its name may be misspelt.
fn report_new(list: &ListName) {
    CONSOLE.report(&format!(
        "note: these are the first entries of {list}, which deciders use only where a policy has {{ live: {list} }}"
    ));
}

impl ListCommand {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let denials = Denials::new();
        let ran = tokio::select! {
            ran = self.run_with(&denials) => ran,
            denied = denials.first() => Err(denied),
        };
        match ran {
            Err(error) if error.is::<UsageError>() => Ok(usage_error(error)),
            ran => ran,
        }
    }

    async fn run_with(self, denials: &Denials) -> anyhow::Result<ExitCode> {
        match self {
            Self::Add(add) => add.run(denials).await,
            Self::Remove(remove) => remove.run(denials).await,
            Self::Show(show) => show.run(denials).await,
            Self::Import(import) => import.run(denials).await,
            Self::Export(export) => export.run(denials).await,
            Self::History(history) => history.run().await,
            Self::Create(create) => create.run(denials).await,
            Self::Clear(clear) => clear.run(denials).await,
        }
    }
}

/// Create the bucket of live lists if there is none. The commands that change a list do so as well, with one replica
#[derive(Args)]
pub(crate) struct Create {
    /// Number of replicas of the bucket in a NATS cluster: 1, 3 or 5
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = replicas)]
    replicas: u8,

    #[command(flatten)]
    nats: NatsSettings,
}

/// Parses a number of replicas. An even number tolerates no more failures than the odd one below it.
fn replicas(text: &str) -> Result<u8, &'static str> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        _ => Err("must be 1, 3 or 5"),
    }
}

impl Create {
    async fn run(self, denials: &Denials) -> anyhow::Result<ExitCode> {
        let jetstream = connect(&self.nats, denials).await?;
        let (bucket, existed) = match Bucket::open(&jetstream).await {
            Err(BucketError::Missing) => {
                let created = Bucket::open_or_create(&jetstream, self.replicas);
                (created.await?, false)
            }
            opened => (opened?, true),
        };
        let replicas = bucket.replicas();
        if replicas != usize::from(self.replicas) {
            anyhow::bail!(
                "the bucket exists with {}: `nats stream edit KV_IMPORTGUARD_LISTS --replicas {}`",
                counted(replicas, "replica", "replicas"),
                self.replicas
            );
        }
        let replicas = counted(replicas, "replica", "replicas");
        let mut out = output::stdout();
        match existed {
            true => writeln!(
                out,
                "the bucket of live lists exists already, with {replicas}: nothing was changed"
            )?,
            false => writeln!(out, "created the bucket of live lists, with {replicas}")?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Clear away entries that expired or were removed more than a day ago. The commands that change a list also clear some
#[derive(Args)]
pub(crate) struct Clear {
    #[command(flatten)]
    nats: NatsSettings,
}

impl Clear {
    async fn run(self, denials: &Denials) -> anyhow::Result<ExitCode> {
        let bucket = Bucket::open(&connect(&self.nats, denials).await?).await?;
        let (mut cleared, mut unpublished) = (0, 0);
        let mut left = bucket.state_when_opened().keys;
        loop {
            let now = bucket.clear(left.max(1), RETENTION).await?;
            cleared += now.cleared;
            unpublished += now.unpublished;
            left = left.saturating_sub(now.read);
            if now.read == 0 || left == 0 {
                break;
            }
        }
        CONSOLE.report(&format!("cleared {cleared} entries away"));
        if unpublished > 0 {
            let are_left = match unpublished {
                1 => "1 is left because the event about it is".to_owned(),
                more => format!("{more} are left because the events about them are"),
            };
            CONSOLE.report(&format!(
                "{are_left} not published yet: the next command that changes a list does that, a minute after the change at the earliest"
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}
