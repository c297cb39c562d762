//! `explain --event`: decides recorded imports again.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::Path,
    process::ExitCode,
};

use importguard_decider::{policy::Policy, tabletest::parse_time};
use serde_json::{Deserializer, Value, json};

use super::{
    super::{FINDINGS, USAGE, print},
    comparison::Comparison,
    live::Live,
    report::Import,
};
use crate::events::{Event, friends, printable, to_the_millisecond};

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
    /// Of events that are no decisions.
    skipped: usize,
    /// Of events that cannot be decided again.
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

    /// Decides the events in a file, or in standard input.
    pub(super) fn run(mut self, file: &Path) -> anyhow::Result<ExitCode> {
        let (name, reader): (_, Box<dyn Read>) = if file == Path::new(STDIN) {
            ("standard input".to_owned(), Box::new(io::stdin().lock()))
        } else {
            let name = file.display().to_string();
            match File::open(file) {
                Ok(opened) => (name, Box::new(opened)),
                Err(error) => return Ok(failed(&format!("{name} cannot be read: {error}"))),
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
                    return Ok(failed(&format!("{name} cannot be read: {error}")));
                }
                Err(error) => {
                    return Ok(failed(&format!(
                        "{name} is not JSON: {error}; save events with importguard tail --json, or nats sub --raw"
                    )));
                }
            }
        }
        self.finish(&name)
    }

    fn event(&mut self, value: Value) -> anyhow::Result<()> {
        let event: Event = match serde_json::from_value(value) {
            Ok(event) => event,
            Err(error) => {
                self.decided.failed += 1;
                failed(&format!("this is not an event of importguard: {error}"));
                return Ok(());
            }
        };
        let id = printable(&event.id);
        if event.data.verdict.is_none() {
            self.decided.skipped += 1;
            report(&format!(
                "skipped event {id}: OpenIM reported a completed import, which is not a decision"
            ));
            return Ok(());
        }
        let now = match undecidable(&event) {
            Some(why) => Err(why.to_owned()),
            None => parse_time(&event.time)
                .ok_or_else(|| "its time is not an RFC 3339 timestamp".to_owned()),
        };
        let now = now.and_then(|now| match self.lacks_live_list(&event) {
            Some(why) => Err(why),
            None => Ok(now),
        });
        let now = match now {
            Ok(now) => now,
            Err(why) => {
                self.decided.failed += 1;
                failed(&format!("event {id} cannot be decided again: {why}"));
                return Ok(());
            }
        };
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

    /// Why the event cannot be decided again, if somebody was on a live list whose entries are not given.
    fn lacks_live_list(&self, event: &Event) -> Option<String> {
        let mut lists = event.data.lists.iter();
        lists.find_map(|list| {
            let live = list.revision.and(self.live.lacks(&list.name))?;
            (list.size > 0).then(|| {
                format!(
                    "it has revision {} of the live list {live}, but not its entries; give them with --live {live}=FILE, as `importguard list export {live}` prints them",
                    list.revision.unwrap_or_default()
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
            return Ok(failed(&match skipped {
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
            (0, 1..) => ExitCode::from(FINDINGS),
            (0, 0) => ExitCode::SUCCESS,
        })
    }
}

/// Why no policy can decide on what the event has.
fn undecidable(event: &Event) -> Option<&'static str> {
    let data = &event.data;
    if data.friend_count.is_some() {
        return Some(
            "it was too large for NATS and does not list its friends; with them, use --owner, --friends and --at",
        );
    }
    if is_pseudonym(&data.owner_user_id) {
        return Some(
            "it has pseudonyms, which no list, prefix or pattern matches; with the IDs, use --owner, --friends and --at",
        );
    }
    None
}

/// `pn_` and 32 hex digits, or `pn_redacted`.
fn is_pseudonym(id: &str) -> bool {
    id.strip_prefix("pn_").is_some_and(|rest| {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        rest == "redacted" || (rest.len() == 32 && rest.bytes().all(is_hex))
    })
}

fn failed(error: &str) -> ExitCode {
    report(&format!("error: {error}"));
    ExitCode::from(USAGE)
}

fn report(text: &str) {
    // If standard error is closed, the exit code suffices.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::is_pseudonym;

    #[test]
    fn a_pseudonym_is_known_by_its_form() {
        assert!(is_pseudonym("pn_15765ed1c7aef2755d0076c69c2cd411"));
        assert!(is_pseudonym("pn_redacted"));
        for id in [
            "user123",
            "pn_",
            "pn_15765ed1",
            "pn_15765ED1C7AEF2755D0076C69C2CD411",
        ] {
            assert!(!is_pseudonym(id), "{id}");
        }
    }
}
