//! `explain --event`: decides recorded imports again.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    process::ExitCode,
    time::SystemTime,
};

use importguard_core::UserId;
use importguard_decider::{policy::Policy, tabletest::parse_time};
use serde_json::{Deserializer, Value, json};

use super::{comparison::Comparison, live::Live, report::Import};
use crate::{
    events::{Event, friends, printable, to_the_millisecond},
    output::{USAGE, print, report, usage_error},
};

/// The types of decisions and of completed imports begin with these; the version follows.
const DECISIONS: &str = "importguard.decision.";
const IMPORTS: &str = "importguard.imported.";
/// What an event without a verdict is.
const COMPLETED: &str = "OpenIM reported a completed import";
/// The name of standard input.
const STDIN: &str = "-";

/// Decides recorded imports again, with the current policy.
pub(super) struct Recorded<'a> {
    pub(super) policy: &'a Policy,
    live: &'a Live,
    pub(super) rollout: Option<u8>,
    pub(super) json: bool,
    decided: Tally,
}

#[derive(Default)]
struct Tally {
    same: usize,
    different: usize,
    /// Number of events that are not decisions.
    skipped: usize,
    /// Number of events that cannot be decided again.
    failed: usize,
}

impl<'a> Recorded<'a> {
    pub(super) fn new(
        (policy, live): (&'a Policy, &'a Live),
        rollout: Option<u8>,
        json: bool,
    ) -> Self {
        Self {
            policy,
            live,
            rollout,
            json,
            decided: Tally::default(),
        }
    }

    /// Decides the events in a file or in standard input again.
    pub(super) fn run(mut self, file: &Path) -> anyhow::Result<ExitCode> {
        let (name, reader): (_, Box<dyn Read>) = if file == Path::new(STDIN) {
            ("standard input".to_owned(), Box::new(io::stdin().lock()))
        } else {
            let name = file.display().to_string();
            match File::open(file) {
                Ok(opened) => (name, Box::new(opened)),
                Err(error) => {
                    return Ok(usage_error(format_args!("{name} cannot be read: {error}")));
                }
            }
        };
        let values = Deserializer::from_reader(BufReader::new(reader)).into_iter::<Value>();
        for value in values {
            match value {
                // As `jq --slurp` writes them.
                Ok(Value::Array(values)) => {
                    for value in values {
                        self.event(value)?;
                    }
                }
                Ok(value) => self.event(value)?,
                Err(error) if error.is_io() => {
                    return Ok(usage_error(format_args!("{name} cannot be read: {error}")));
                }
                Err(error) => {
                    return Ok(usage_error(format_args!(
                        "{name} is not JSON: {error}; save events with importguard tail --json, or nats sub --raw"
                    )));
                }
            }
        }
        self.finish(&name)
    }

    fn event(&mut self, value: Value) -> anyhow::Result<()> {
        if let Some(why) = no_decision(&value) {
            let id = value.get("id").and_then(Value::as_str);
            self.skip(id.unwrap_or_default(), &why);
            return Ok(());
        }
        let event: Event = match serde_json::from_value(value) {
            Ok(event) => event,
            Err(error) => {
                self.decided.failed += 1;
                usage_error(format_args!("this is not an event of importguard: {error}"));
                return Ok(());
            }
        };
        if event.data.verdict.is_none() {
            self.skip(&event.id, COMPLETED);
            return Ok(());
        }
        match self.time(&event) {
            Ok(now) => self.decide(&event, now),
            Err(why) => {
                self.decided.failed += 1;
                let id = printable(&event.id);
                usage_error(format_args!("event {id} cannot be decided again: {why}"));
                Ok(())
            }
        }
    }

    /// Counts an event that is not a decision.
    fn skip(&mut self, id: &str, why: &str) {
        self.decided.skipped += 1;
        let (id, why) = (printable(id), printable(why));
        report(format_args!(
            "skipped event {id}: {why}, which is not a decision"
        ));
    }

    /// The time of a decision, or why it cannot be made again.
    fn time(&self, event: &Event) -> Result<SystemTime, String> {
        if let Some(why) = undecidable(event) {
            return Err(why.to_owned());
        }
        let time = parse_time(&event.time)
            .ok_or_else(|| "its time is not an RFC 3339 timestamp".to_owned())?;
        self.lacks_live_list(event).map_or(Ok(time), Err)
    }

    /// Decides an event again, and prints what differs.
    fn decide(&mut self, event: &Event, now: SystemTime) -> anyhow::Result<()> {
        let id = printable(&event.id);
        let import = Import {
            operation_id: &event.data.operation_id,
            owner: &event.data.owner_user_id,
            friends: &event.data.friend_user_ids,
            now,
            rollout: self.rollout,
        };
        let explanation = import.explain(self.policy, &self.live.lists);
        let comparison = Comparison::of(&event.data, self.policy, &explanation.evaluation);
        match comparison.is_same() {
            true => self.decided.same += 1,
            false => self.decided.different += 1,
        }
        if self.json {
            let mut output = import.json(self.policy, &explanation);
            output["event"] = json!({ "id": event.id, "time": event.time });
            output["then"] = json!({
                "verdict": event.data.verdict,
                "policy": event.data.policy.as_ref().map(|it| &it.digest),
                "cause": event.data.cause,
            });
            output["same"] = comparison.is_same().into();
            output["differences"] = comparison.differences_as_json();
            output["changed"] = comparison.changed_as_json();
            return Ok(print(output)?);
        }
        print(format_args!(
            "event {id}: {}, {}, operation {}, {}\n  then  {}\n  now   {}\n{comparison}\n{}",
            printable(&event.data.owner_user_id),
            friends(event.data.requested()),
            printable(&event.data.operation_id),
            to_the_millisecond(&event.time),
            comparison.then(),
            printable(&import.verdict(&explanation.evaluation)),
            import.steps(&explanation),
        ))?;
        Ok(())
    }

    /// Why the event cannot be decided again: somebody was on a live list, but its entries are not given.
    fn lacks_live_list(&self, event: &Event) -> Option<String> {
        event.data.lists.iter().find_map(|then| {
            let mut named = self.policy.live_lists();
            let (live, _) = named.find(|(_, list)| *list == then.name)?;
            // 0 stands for a list that never had an entry.
            let revision = then.revision.filter(|&revision| revision > 0)?;
            // Nobody was on it if the list had no IDs but those of its file, which is the same now.
            let mut lists = self.policy.lists();
            let same = lists.any(|now| now.digest == then.digest && now.size == then.size);
            (self.live.lacks(live) && then.size > 0 && !same).then(|| {
                format!(
                    "it has revision {revision} of the live list {live}, but not its entries; give them with --live {live}=FILE, as `importguard list export {live}` prints them"
                )
            })
        })
    }

    fn finish(self, name: &str) -> anyhow::Result<ExitCode> {
        let Tally {
            same,
            different,
            skipped,
            failed: undecided,
        } = self.decided;
        let decided = same + different;
        if decided == 0 && undecided == 0 {
            return Ok(usage_error(match skipped {
                0 => format!("no event in {name}"),
                _ => format!("no decision in {name}"),
            }));
        }
        if decided > 1 && !self.json {
            print(format_args!(
                "{decided} decisions: {same} as they were, {different} different"
            ))?;
        }
        Ok(match (undecided, different) {
            (1.., _) => ExitCode::from(USAGE),
            (0, 1..) => ExitCode::FAILURE,
            (0, 0) => ExitCode::SUCCESS,
        })
    }
}

/// What a value is, if it is no decision; `None` also if its type is unknown.
fn no_decision(value: &Value) -> Option<String> {
    let kind = value.get("type")?.as_str()?;
    match kind {
        _ if kind.starts_with(DECISIONS) => None,
        _ if kind.starts_with(IMPORTS) => Some(COMPLETED.to_owned()),
        _ => Some(format!("it is of type {kind}")),
    }
}

/// Why no policy can decide again from the data of the event.
fn undecidable(event: &Event) -> Option<&'static str> {
    let data = &event.data;
    if data.friend_count.is_some() {
        return Some(
            "it was too large for NATS and does not list its friends; with them, use --owner, --friends and --at",
        );
    }
    let owner = UserId::parse(data.owner_user_id.as_str());
    if owner.is_ok_and(|owner| owner.is_pseudonym()) {
        return Some(
            "it has pseudonyms, which no list, prefix or pattern matches; with the IDs, use --owner, --friends and --at",
        );
    }
    None
}
