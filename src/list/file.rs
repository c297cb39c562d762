//! Entries in a file: one ID per line, or JSON as printed by `importguard list export`.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

use anyhow::{Context, anyhow, bail};
use importguard_core::EventId;
use importguard_decider::lists::{MAX_LIST_BYTES, id_on_line, misfit};
use importguard_lists::{Addition, Author, Key, ListName, Reason};
use importguard_runtime::text::{self, RawLine};
use serde::Deserialize;
use time::OffsetDateTime;

/// Maximum number of invalid lines that are reported.
const MAX_REPORTED: usize = 10;

/// An entry in JSON.
#[derive(Deserialize)]
struct Exported {
    id: String,
    by: Option<String>,
    reason: Option<String>,
    #[serde(default, with = "time::serde::rfc3339::option")]
    until: Option<OffsetDateTime>,
}

/// Reads the entries of `list` from `file`, or from standard input for `-`. If an ID occurs several times, the last one counts. `standard`
/// has the values that a line does not specify.
///
/// # Errors
/// If the file cannot be read, or has invalid lines; the error names the first ones.
pub(crate) fn read(
    file: &Path,
    list: &ListName,
    standard: &Addition,
) -> anyhow::Result<Vec<(Key, Addition)>> {
    let content = content(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut entries = HashMap::new();
    let mut errors = Vec::new();
    let lines =
        text::raw_lines(&content).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    for line in lines {
        match on_line(line, list, standard) {
            Ok(Some((key, addition))) => drop(entries.insert(key, addition)),
            Ok(None) => {}
            Err(error) => errors.push(format!("{}:{}: {error:#}", file.display(), line.number)),
        }
    }
    if errors.is_empty() {
        return Ok(entries.into_iter().collect());
    }
    let count = match errors.len() {
        1 => "an invalid line".to_owned(),
        count => format!("{count} invalid lines"),
    };
    let more = match errors.len().saturating_sub(MAX_REPORTED) {
        0 => String::new(),
        more => format!("\nand {more} more"),
    };
    errors.truncate(MAX_REPORTED);
    bail!("{count}:\n{}{more}", errors.join("\n"))
}

fn content(file: &Path) -> io::Result<Vec<u8>> {
    // A pipe may be meant: <(grep …).
    let input: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(file)?),
    };
    let mut content = Vec::new();
    input.take(MAX_LIST_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_LIST_BYTES {
        let text = format!("more than {MAX_LIST_BYTES} bytes; split it");
        return Err(io::Error::new(ErrorKind::FileTooLarge, text));
    }
    Ok(content)
}

/// The entry on a line, if it has one.
fn on_line(
    line: RawLine<'_>,
    list: &ListName,
    standard: &Addition,
) -> anyhow::Result<Option<(Key, Addition)>> {
    let text = line.text().map_err(|error| {
        let (message, remedy) = (error.kind.message(), error.kind.remedy());
        anyhow!("column {}: {message}: {remedy}", error.column)
    })?;
    // As in the file of a policy's list.
    let id = id_on_line(text.text);
    id.map(|id| entry(id, list, standard)).transpose()
}

fn entry(line: &str, list: &ListName, standard: &Addition) -> anyhow::Result<(Key, Addition)> {
    let mut addition = Addition {
        event: EventId::new(),
        ..standard.clone()
    };
    // {1f0c…} is a GUID.
    if !line.starts_with('{') || !line.contains('"') {
        if let Some(misfit) = misfit(line) {
            bail!(
                "{}; an ID that is meant so can be written as JSON: {{\"id\":\"…\"}}",
                misfit.message
            );
        }
        return Ok((Key::new(list.clone(), line)?, addition));
    }
    let entry: Exported = serde_json::from_str(line).context("invalid JSON")?;
    if let Some(by) = entry.by.filter(|by| !by.is_empty()) {
        addition.by = Author::parse(&by).context("by")?;
    }
    if let Some(reason) = entry.reason.filter(|reason| !reason.is_empty()) {
        addition.reason = Some(Reason::parse(&reason).context("reason")?);
    }
    if let Some(until) = entry.until {
        // Whole seconds, as everywhere.
        addition.until = Some(until.replace_nanosecond(0)?);
    }
    Ok((Key::new(list.clone(), &entry.id)?, addition))
}
