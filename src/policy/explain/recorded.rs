//! `explain --event`: decides recorded imports again.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
    process::ExitCode,
    time::SystemTime,
};

use importguard_decider::{policy::Policy, tabletest::parse_time};
use serde_json::{Deserializer, Value, json};

use super::{comparison::Comparison, live::Live, report::Import};
use crate::{
    events::{Event, friends, printable, printable_json, to_the_millisecond},
    output::{USAGE, print, report, usage_error},
    text::counted,
};

/// The types of decisions begin with this; the version follows.
const DECISIONS: &str = "importguard.decision.";
/// The name of standard input.
const STDIN: &str = "-";
/// What one event, or an array of events, may take, as it is kept in memory: NATS's largest message. A file may have any number of them.
const MAX_VALUE_BYTES: u64 = 64 << 20;

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
    /// The explanation of the first decision that is the same.
    first_same: String,
    /// Number of events that are not decisions, by what distinguishes them.
    skipped: BTreeMap<String, usize>,
    /// Number of values that are not events.
    invalid: usize,
    /// Events that cannot be decided again, by the reason.
    undecided: BTreeMap<String, Undecided>,
}

/// Events that cannot be decided again for the same reason.
struct Undecided {
    first_id: String,
    count: usize,
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
        let left = Cell::new(MAX_VALUE_BYTES);
        let reader = BufReader::new(Bounded {
            reader,
            left: &left,
        });
        let values = Deserializer::from_reader(reader).into_iter::<Value>();
        for value in values {
            left.set(MAX_VALUE_BYTES);
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
        if let Some(kind) = other_type(&value) {
            self.skip(&format!("of type {kind}"));
            return Ok(());
        }
        let event: Event = match serde_json::from_value(value) {
            Ok(event) => event,
            Err(error) => {
                self.decided.invalid += 1;
                usage_error(format_args!("this is not an event of importguard: {error}"));
                return Ok(());
            }
        };
        if event.data.verdict.is_none() {
            self.skip("without a verdict");
            return Ok(());
        }
        match self.time(&event) {
            Ok(now) => self.decide(&event, now),
            Err(why) => {
                let undecided = self.decided.undecided.entry(why);
                let undecided = undecided.or_insert_with(|| Undecided {
                    first_id: event.id.clone(),
                    count: 0,
                });
                undecided.count += 1;
                Ok(())
            }
        }
    }

    /// Counts an event that is not a decision.
    fn skip(&mut self, what: &str) {
        let count = self.decided.skipped.entry(printable(what)).or_default();
        *count += 1;
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

    /// Decides an event again. A decision that differs is printed; the others are only counted.
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
            return Ok(print(printable_json(&output.to_string()))?);
        }
        let text = format!(
            "event {id}: {}, {}, operation {}, {}\n  then  {}\n  now   {}\n{comparison}\n{}",
            printable(&event.data.owner_user_id),
            friends(event.data.requested()),
            printable(&event.data.operation_id),
            to_the_millisecond(&event.time),
            comparison.then(),
            printable(&import.verdict(&explanation.evaluation)),
            import.steps(&explanation),
        );
        if !comparison.is_same() {
            print(text)?;
        } else if self.decided.same == 1 {
            self.decided.first_same = text;
        }
        Ok(())
    }

    /// Why the event cannot be decided again: somebody was on a live list, but its entries are not given.
    fn lacks_live_list(&self, event: &Event) -> Option<String> {
        event.data.lists.iter().find_map(|then| {
            let mut named = self.policy.live_lists();
            let (live, _) = named.find(|(_, list)| *list == then.name)?;
            // 0 stands for a list that never had an entry.
            then.revision.filter(|&revision| revision > 0)?;
            // Nobody was on it if the list had no IDs but those of its file, which is the same now.
            let mut lists = self.policy.lists();
            let same = lists.any(|now| now.digest == then.digest && now.size == then.size);
            (self.live.lacks(live) && then.size > 0 && !same).then(|| {
                format!(
                    "somebody was on the live list {live}, but events do not have its entries; give them with --live {live}=FILE, as `importguard list export {live}` prints them"
                )
            })
        })
    }

    fn finish(self, name: &str) -> anyhow::Result<ExitCode> {
        let decided = self.decided;
        decided.report_others();
        let is_complete = decided.invalid == 0 && decided.undecided.is_empty();
        let (same, different) = (decided.same, decided.different);
        if same + different == 0 && is_complete {
            return Ok(usage_error(match decided.skipped.is_empty() {
                true => format!("no event in {name}"),
                false => format!("no decision in {name}"),
            }));
        }
        if !self.json {
            if (same, different) == (1, 0) {
                print(decided.first_same)?;
            }
            let decisions = counted(same + different, "decision", "decisions");
            print(format_args!(
                "{decisions}: {same} as before, {different} different"
            ))?;
        }
        Ok(match (is_complete, different) {
            (false, _) => ExitCode::from(USAGE),
            (true, 1..) => ExitCode::FAILURE,
            (true, 0) => ExitCode::SUCCESS,
        })
    }
}

/// Fails when no bytes are left.
struct Bounded<'a, R> {
    reader: R,
    left: &'a Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::Error::other(
                "an event or an array of events is larger than 64 MiB; give large arrays as one event a line (jq -c '.[]')",
            ));
        }
        let read = self.reader.read(bytes)?;
        self.left.set(self.left.get().saturating_sub(read as u64));
        Ok(read)
    }
}

impl Tally {
    /// Prints a line for each kind of events that were not decided again.
    fn report_others(&self) {
        for (what, &count) in &self.skipped {
            let events = counted(count, "event", "events");
            report(format_args!("skipped {events} {what}: not a decision"));
        }
        for (why, Undecided { first_id, count }) in &self.undecided {
            let id = printable(first_id);
            let more = match count - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            usage_error(format_args!(
                "event {id}{more} cannot be decided again: {why}"
            ));
        }
    }
}

/// The type of a value, if it has one that no decision has.
fn other_type(value: &Value) -> Option<&str> {
    let kind = value.get("type")?.as_str()?;
    (!kind.starts_with(DECISIONS)).then_some(kind)
}

/// Why no policy can decide again from the data of the event.
fn undecidable(event: &Event) -> Option<&'static str> {
    let data = &event.data;
    if data.friend_count.is_some() {
        return Some(
            "it was too large for NATS and does not list its friends; with them, use --owner, --friends and --at",
        );
    }
    if event.pseudonymised {
        return Some(
            "it has pseudonyms, which no list, prefix or pattern matches; with the IDs, use --owner, --friends and --at",
        );
    }
    None
}
