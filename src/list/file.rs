//! Entries in a file: an ID a line, or JSON as from `importguard list export`.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use anyhow::{Context, bail};
use importguard_core::EventId;
use importguard_lists::{Addition, Author, Key, ListName, Reason};
use serde::Deserialize;
use time::OffsetDateTime;

/// How many invalid lines are reported.
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

/// What `file`, or standard input for `-`, says of `list`, without duplicates: the last one counts. What a line does not say is as in
/// `standard`.
///
/// # Errors
/// If the file cannot be read, or has invalid lines; the first ones are named.
pub(crate) fn read(
    file: &Path,
    list: &ListName,
    standard: &Addition,
) -> anyhow::Result<Vec<(Key, Addition)>> {
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let opened = File::open(file);
        Box::new(opened.with_context(|| format!("cannot read {}", file.display()))?)
    };
    let mut entries = HashMap::new();
    let mut errors = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(input).lines()) {
        let line = line.with_context(|| format!("{}:{number}", file.display()))?;
        let line = line.trim_start_matches('\u{feff}').trim_end_matches('\r');
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match entry(line, list, standard) {
            Ok((key, addition)) => drop(entries.insert(key, addition)),
            Err(error) => errors.push(format!("{}:{number}: {error:#}", file.display())),
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

fn entry(line: &str, list: &ListName, standard: &Addition) -> anyhow::Result<(Key, Addition)> {
    let mut addition = Addition {
        event: EventId::new(),
        ..standard.clone()
    };
    if !line.starts_with('{') {
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
