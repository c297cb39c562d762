//! The callbacks sent, the verdicts and the recorded events, and whether they agree.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use super::imports::{Import, Kind};
use crate::events::Event;

/// The verdicts, in the order of the table's columns.
const VERDICTS: [&str; 3] = ["allow", "modify", "refuse"];

/// The callbacks and events of one run.
#[derive(Default)]
pub(super) struct Ledger {
    asked: Vec<Asked>,
    /// Verdicts in the stream, by operationID.
    recorded: HashMap<String, Vec<String>>,
    /// IDs of the events that were read, to skip duplicates: delivery is at least once.
    seen: HashSet<String>,
    /// How many imports each shadow rule would have refused or shortened.
    shadow: BTreeMap<String, usize>,
}

/// An import for which a callback was sent.
struct Asked {
    kind: Kind,
    operation_id: String,
    /// The verdict that OpenIM received, or why it received none.
    answer: Result<&'static str, String>,
    while_nats_was_down: bool,
}

impl Ledger {
    /// Records the answer to `import`.
    pub(super) fn answered(
        &mut self,
        import: Import,
        answer: Result<&'static str, String>,
        while_nats_was_down: bool,
    ) {
        self.asked.push(Asked {
            kind: import.kind,
            operation_id: import.operation_id,
            answer,
            while_nats_was_down,
        });
    }

    /// Records an event that was read back.
    pub(super) fn recorded(&mut self, event: &Event) {
        if !self.seen.insert(event.id.clone()) {
            return;
        }
        let verdict = event.data.verdict.clone().unwrap_or_default();
        let operation_id = event.data.operation_id.clone();
        self.recorded.entry(operation_id).or_default().push(verdict);
        for rule in &event.data.rules {
            if rule.mode == "shadow" && rule.outcome != "skipped" {
                *self.shadow.entry(rule.id.clone()).or_default() += 1;
            }
        }
    }

    /// The number of callbacks sent.
    pub(super) fn asked(&self) -> usize {
        self.asked.len()
    }

    /// The number of callbacks sent while NATS was down.
    pub(super) fn asked_while_nats_was_down(&self) -> usize {
        let down = self.asked.iter().filter(|asked| asked.while_nats_was_down);
        down.count()
    }

    /// The disagreements, one line each; empty if every import was answered, and recorded once with the verdict of its answer.
    pub(super) fn disagreements(&self) -> Vec<String> {
        let mut found = Vec::new();
        for asked in &self.asked {
            let id = &asked.operation_id;
            let recorded = self.recorded.get(id).map_or(&[][..], Vec::as_slice);
            match (&asked.answer, recorded) {
                (Ok(answer), [verdict]) if verdict == answer => {}
                (Err(error), _) => found.push(format!("{id}: not answered ({error})")),
                (Ok(answer), []) => found.push(format!("{id}: answered {answer}, but LOST")),
                (Ok(answer), [verdict]) => {
                    found.push(format!("{id}: answered {answer}, but recorded {verdict}"));
                }
                (Ok(_), more) => found.push(format!("{id}: recorded {} times", more.len())),
            }
        }
        found
    }

    /// The rows of the table, by kind of import.
    fn rows(&self) -> BTreeMap<Kind, Row> {
        let mut rows: BTreeMap<Kind, Row> = BTreeMap::new();
        for asked in &self.asked {
            rows.entry(asked.kind)
                .or_default()
                .add(asked, &self.recorded);
        }
        rows
    }
}

/// Counts of imports.
#[derive(Clone, Copy, Default)]
struct Row {
    asked: usize,
    decided: [usize; VERDICTS.len()],
    recorded: usize,
}

impl Row {
    fn add(&mut self, asked: &Asked, recorded: &HashMap<String, Vec<String>>) {
        self.asked += 1;
        for (count, verdict) in self.decided.iter_mut().zip(VERDICTS) {
            *count += usize::from(asked.answer.as_deref() == Ok(verdict));
        }
        self.recorded += recorded.get(&asked.operation_id).map_or(0, Vec::len);
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, name: impl fmt::Display) -> fmt::Result {
        let [allow, modify, refuse] = self.decided;
        writeln!(
            f,
            "{name:<26}  {:>5}  {allow:>5}  {modify:>6}  {refuse:>6}  {:>8}",
            self.asked, self.recorded
        )
    }
}

/// The closing table.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [asked, allow, modify, refuse, recorded] =
            ["ASKED", "ALLOW", "MODIFY", "REFUSE", "RECORDED"];
        let name = "IMPORTS";
        writeln!(
            f,
            "{name:<26}  {asked:>5}  {allow:>5}  {modify:>6}  {refuse:>6}  {recorded:>8}"
        )?;
        let mut total = Row::default();
        for (kind, row) in self.rows() {
            row.write(f, kind)?;
            total.asked += row.asked;
            total.recorded += row.recorded;
            for (sum, count) in total.decided.iter_mut().zip(row.decided) {
                *sum += count;
            }
        }
        total.write(f, "all")?;
        for (rule, count) in &self.shadow {
            writeln!(
                f,
                "The shadow rule {rule} would have changed {count} of these decisions."
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: usize, operation_id: &str, verdict: &str) -> Event {
        let data = json!({"operationID": operation_id, "ownerUserID": "a", "verdict": verdict});
        serde_json::from_value(
            json!({"id": id.to_string(), "time": "2026-11-23T18:04:05Z", "data": data}),
        )
        .unwrap()
    }

    /// A ledger of four answered imports, with these events.
    fn ledger(events: &[(&str, &str)]) -> Ledger {
        let mut ledger = Ledger::default();
        for number in 0..4 {
            ledger.answered(Import::new(number), Ok("allow"), false);
        }
        for (id, (operation_id, verdict)) in events.iter().enumerate() {
            let event = event(id, operation_id, verdict);
            ledger.recorded(&event);
            // As if it were delivered again.
            ledger.recorded(&event);
        }
        ledger
    }

    #[test]
    fn answers_that_are_recorded_once_agree() {
        let all = ["demo-0001", "demo-0002", "demo-0003", "demo-0004"].map(|id| (id, "allow"));
        assert_eq!(ledger(&all).disagreements(), [""; 0]);
    }

    #[test]
    fn a_lost_a_repeated_and_another_decision_are_reported() {
        let found = ledger(&[
            ("demo-0001", "allow"),
            ("demo-0002", "refuse"),
            ("demo-0003", "allow"),
            ("demo-0003", "allow"),
        ])
        .disagreements();
        let expected = [
            "demo-0002: answered allow, but recorded refuse",
            "demo-0003: recorded 2 times",
            "demo-0004: answered allow, but LOST",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_import_without_an_answer_is_reported() {
        let mut ledger = Ledger::default();
        ledger.answered(Import::new(0), Err("no answer".to_owned()), true);
        ledger.recorded(&event(0, "demo-0001", "allow"));
        assert_eq!(
            ledger.disagreements(),
            ["demo-0001: not answered (no answer)"]
        );
    }
}
