//! A decision in words.

mod rules;

use std::fmt::{self, Display, Formatter};

use self::rules::rules;
use crate::{
    events::{Data, Event, friends, printable, to_the_millisecond},
    text::first_ids,
};

/// Maximum number of IDs that are listed; the others are only counted.
const LISTED: usize = 20;

/// Describes one event, over several lines.
pub(super) struct Words<'a> {
    pub(super) event: &'a Event,
    /// The owner's ID if known, even if the event has a pseudonym.
    pub(super) owner: Option<&'a str>,
    /// URL of a trace, with `{trace}` for its ID.
    pub(super) traces_url: Option<&'a str>,
}

impl Display for Words<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Event { time, data, .. } = self.event;
        let time = to_the_millisecond(time);
        let recorded = printable(&data.owner_user_id);
        let id = self.owner.map_or(recorded.clone(), printable);
        let owner = match id == recorded {
            true => recorded,
            false => format!("{id} ({recorded} in the event)"),
        };
        let operation = operation(data);
        if data.verdict.is_none() {
            writeln!(f, "{time}  OpenIM reported a completed import of {owner}")?;
            writeln!(f, "  operation  {operation}")?;
            return writeln!(f, "  imported   {}", requested(data));
        }
        writeln!(
            f,
            "{time}  {owner} asked to import friends: {}",
            outcome(data)
        )?;
        writeln!(f, "  operation  {operation}")?;
        writeln!(f, "  asked      {}", requested(data))?;
        writeln!(f, "  decided by {}", decided_by(data))?;
        for (index, line) in rules(data, &id).iter().enumerate() {
            let label = if index == 0 { "rules" } else { "" };
            writeln!(f, "  {label:10} {line}")?;
        }
        writeln!(f, "  answer     {}", answer(data))?;
        if let Some(gateway) = &data.gateway {
            writeln!(f, "  gateway    {}", printable(gateway))?;
        }
        if let Some(trace) = self.event.trace() {
            writeln!(f, "  trace      {}", printable(trace))?;
            if let Some(url) = self.traces_url {
                writeln!(
                    f,
                    "             {}",
                    url.replace("{trace}", &printable(trace))
                )?;
            }
        }
        writeln!(f, "  event      {}", printable(&self.event.id))
    }
}

/// The operationID, and the one that it replaces if it was generated.
fn operation(data: &Data) -> String {
    let id = printable(&data.operation_id);
    match &data.replaced_operation_id {
        Some(replaced) => format!("{id}, generated instead of \"{}\"", printable(replaced)),
        None => id,
    }
}

fn outcome(data: &Data) -> String {
    match data.verdict.as_deref() {
        Some("refuse") => "refused".to_owned(),
        Some("modify") => format!("{} of {} allowed", data.imported(), data.requested()),
        _ => "allowed".to_owned(),
    }
}

fn requested(data: &Data) -> String {
    if data.friend_count.is_some() {
        return format!(
            "{} friends; the event was too large to list them",
            data.requested()
        );
    }
    let ids: Vec<_> = data.friend_user_ids.iter().map(String::as_str).collect();
    format!("{}{}", friends(data.requested()), list(&ids))
}

/// Formats IDs as `: a, b and 3 more`; empty if there are none.
fn list(ids: &[&str]) -> String {
    match ids.is_empty() {
        true => String::new(),
        false => format!(": {}", first_ids(ids, LISTED)),
    }
}

fn decided_by(data: &Data) -> String {
    match (&data.policy, &data.cause) {
        (Some(policy), _) => format!(
            "policy {} ({})",
            printable(&policy.name),
            printable(&policy.digest)
        ),
        (None, Some(cause)) => format!(
            "the fallback for {}: no decider gave a verdict",
            printable(cause)
        ),
        (None, None) => "not recorded".to_owned(),
    }
}

fn answer(data: &Data) -> String {
    match (&data.refusal, data.verdict.as_deref()) {
        (Some(refusal), _) => format!(
            "refuse: errCode {}, errMsg \"{}\", errDlt \"{}\"",
            refusal.code,
            printable(&refusal.message),
            printable(refusal.detail.as_deref().unwrap_or_default())
        ),
        (None, Some("modify")) => format!("import only {}", friends(data.imported())),
        _ => "go on with the import as requested".to_owned(),
    }
}
