use std::process::ExitCode;

use clap::Args;
use importguard_core::EventId;
use importguard_decider::lists::misfit;
use importguard_gateway::events::PseudonymSettings;
use importguard_lists::{Addition, BucketError, Key, ListName, Written};
use importguard_nats::NatsSettings;
use serde_json::json;

use strum::IntoStaticStr;

use super::{
    CONSOLE, UsageError,
    connection::{Denials, connect, tidy, writer},
    report_new,
    who::{Until, Who},
};
use crate::{
    events::{exact_rfc3339, printable, printable_json},
    output,
};

/// Add users to a list, or change until when and why they are on it
#[derive(Args)]
pub(crate) struct Add {
    #[command(flatten)]
    what: What,

    #[command(flatten)]
    until: Until,
}

/// Remove users from a list
#[derive(Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    what: What,
}

#[derive(Args)]
struct What {
    /// The list's name in the bucket, as in { live: NAME }
    #[arg(value_name = "LIST")]
    list: ListName,

    /// User IDs in OpenIM
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,

    #[command(flatten)]
    who: Who,

    /// Print each change as one line of JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    nats: NatsSettings,

    #[command(flatten)]
    pseudonyms: PseudonymSettings,
}

impl Add {
    pub(super) async fn run(self, denials: &Denials) -> anyhow::Result<ExitCode> {
        let addition = self.what.who.addition(self.until.time()?)?;
        self.what.run(&addition, denials).await
    }
}

impl Remove {
    pub(super) async fn run(self, denials: &Denials) -> anyhow::Result<ExitCode> {
        let addition = Addition {
            removed: true,
            ..self.what.who.addition(None)?
        };
        self.what.run(&addition, denials).await
    }
}

impl What {
    async fn run(self, addition: &Addition, denials: &Denials) -> anyhow::Result<ExitCode> {
        // All IDs are validated before the first entry is changed.
        let keys = self.keys(addition.removed)?;
        let jetstream = connect(&self.nats, denials).await?;
        let writer = writer(&jetstream, &self.pseudonyms, denials).await?;
        let is_new = !addition.removed && !writer.bucket().has_list(&self.list).await?;
        let mut own = Vec::new();
        let mut code = ExitCode::SUCCESS;
        let mut printed = Ok(());
        for key in &keys {
            let addition = Addition {
                event: EventId::new(),
                ..addition.clone()
            };
            let written = match writer.write(key, &addition).await {
                // The entry is written; only its event is not published yet.
                Err(
                    error @ BucketError::Unpublished {
                        revision, existed, ..
                    },
                ) => {
                    CONSOLE.report(&format!("warning: {error}"));
                    Some(Written { revision, existed })
                }
                written => {
                    let written = written?;
                    own.extend(written.map(|written| written.revision));
                    written
                }
            };
            let done = Done::of(written, &addition);
            if done == Done::Absent {
                code = ExitCode::FAILURE;
            }
            // The other changes are made even if this one cannot be printed.
            printed = printed.and(output::print(match self.json {
                true => json(key, &addition, done, written),
                false => line(key, &addition, done),
            }));
        }
        if is_new {
            report_new(&self.list);
        }
        tidy(&writer, &own, denials).await;
        printed?;
        Ok(code)
    }

    /// The keys of the entries to change.
    ///
    /// # Errors
    /// If an ID cannot be on a list, or would be added though it looks like something else.
    fn keys(&self, removes: bool) -> Result<Vec<Key>, UsageError> {
        let keys = self.ids.iter().map(|id| {
            let key = Key::new(self.list.clone(), id);
            let key =
                key.map_err(|error| UsageError(format!("\"{}\": {error}", printable(id))))?;
            match misfit(id) {
                Some(misfit) if !removes => Err(UsageError(format!(
                    "\"{}\": {}. An ID that really is like this can be imported as JSON: {{\"id\": …}}",
                    printable(id),
                    misfit.message
                ))),
                _ => Ok(key),
            }
        });
        keys.collect()
    }
}

/// Formats a change as JSON.
fn json(key: &Key, addition: &Addition, done: Done, written: Option<Written>) -> String {
    let line = json!({
        "list": key.list.as_str(),
        "userID": key.id,
        "change": done.into_str(),
        "by": addition.by.as_str(),
        "reason": addition.reason.as_ref().map(|reason| reason.as_str()),
        "until": addition.until.map(exact_rfc3339),
        "revision": written.map(|written| written.revision),
    });
    printable_json(&line.to_string()).into_owned()
}

/// Formats a change as text.
fn line(key: &Key, addition: &Addition, done: Done) -> String {
    let until = addition
        .until
        .map(|until| format!(" until {}", exact_rfc3339(until)));
    let until = until.unwrap_or_default();
    let (id, list) = (printable(key.id.as_str()), &key.list);
    match done {
        Done::Absent => format!("{id} is not on {list}"),
        Done::Removed | Done::Changed | Done::Added => {
            format!("{list}: {} {id}{until}", done.into_str())
        }
    }
}

/// What a command did about an ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "camelCase", const_into_str)]
enum Done {
    /// It was to be removed, and was not on the list.
    Absent,
    Removed,
    /// It was on the list, and has another end, reason or author now.
    Changed,
    Added,
}

impl Done {
    fn of(written: Option<Written>, addition: &Addition) -> Self {
        match written {
            None => Self::Absent,
            Some(_) if addition.removed => Self::Removed,
            Some(written) if written.existed => Self::Changed,
            Some(_) => Self::Added,
        }
    }
}
