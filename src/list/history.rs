use std::{collections::HashSet, io::Write, process::ExitCode, time::SystemTime};

use clap::Args;
use importguard_core::UserId;
use importguard_gateway::events::PseudonymSettings;
use importguard_lists::{CHANGED_SUBJECT, ChangeMade, ListChangedEvent, ListName};
use importguard_nats::NatsSettings;
use importguard_runtime::signals;

use super::CONSOLE;
use crate::{
    events::{Begin, Range, Source, list_change, past, printable, printable_json},
    output,
};

/// Show who changed a list, when and why, from the events in the stream IMPORTGUARD
#[derive(Args)]
pub(crate) struct History {
    /// The list's name in the bucket
    #[arg(value_name = "LIST")]
    list: ListName,

    /// Only changes of this user
    #[arg(value_name = "ID")]
    id: Option<String>,

    /// Only changes since TIME: a duration before now (30s, 1h, 7d), or for example 2026-11-27T14:00 [default: all that the stream
    /// has]
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<SystemTime>,

    /// Print each event as one line of JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    nats: NatsSettings,

    #[command(flatten)]
    pseudonyms: PseudonymSettings,
}

impl History {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let shutdown = signals::shutdown()?;
        let pseudonyms = self.pseudonyms.pseudonyms()?;
        let id = self.id.as_deref().map(UserId::parse).transpose()?;
        let range = Range {
            begin: self.since.map_or(Begin::First, Begin::At),
            until: None,
            follow: false,
        };
        let mut source = Source::connect(&self.nats, range, None, CONSOLE, &shutdown).await?;
        source.only(&[CHANGED_SUBJECT]);
        let list = self.list.as_str();
        // A writer that is not sure publishes its event again, perhaps after the stream's duplicate window.
        let mut shown = HashSet::new();
        source
            .follow(shutdown.clone(), None, |delivered| {
                let event = serde_json::from_slice::<ListChangedEvent>(delivered.payload);
                let Ok(event) = event else {
                    return Ok(None);
                };
                let user = &event.data.user_id;
                let is_meant = id
                    .as_ref()
                    .is_none_or(|id| user == id || *user == *pseudonyms.of(id));
                if event.data.list != list || !is_meant || !shown.insert(event.id.clone()) {
                    return Ok(None);
                }
                let mut out = output::stdout();
                if self.json {
                    let event = String::from_utf8_lossy(delivered.payload);
                    writeln!(out, "{}", printable_json(&event))?;
                } else {
                    writeln!(out, "{}", line(&event))?;
                }
                Ok(None)
            })
            .await?;
        if shutdown.is_cancelled() {
            CONSOLE.report("interrupted: these are not all changes");
            return Ok(ExitCode::FAILURE);
        }
        if shown.is_empty() {
            let whom = self
                .id
                .as_deref()
                .map(|id| format!(" about {}", printable(id)));
            let whom = whom.unwrap_or_default();
            CONSOLE.report(&format!("the stream has no change of {list}{whom}"));
        }
        if let Some(gap) = source.gap(self.since.unwrap_or(SystemTime::UNIX_EPOCH)) {
            CONSOLE.report(&gap);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Formats an event: `2026-11-23T18:04:05.123Z  added    user123  by alice: #4711, until 2026-11-30T18:04:05Z`
fn line(event: &ListChangedEvent) -> String {
    let change = match event.data.change {
        ChangeMade::Added => "added",
        ChangeMade::Removed => "removed",
    };
    let (time, user, rest) = list_change(event);
    format!("{time}  {change:7}  {user:18}  {rest}")
}
