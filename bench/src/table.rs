//! What a person reads: progress on standard error, tables in Markdown on standard output.

use std::{
    fmt::{Display, Write as _},
    io::{self, Write as _},
};

use crate::{
    matrix::{Paced, Report, Row},
    measure::Measured,
    system::Role,
};

/// Says on standard error what is being done.
pub(crate) fn progress(what: impl Display) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(io::stderr(), "… {what}");
}

/// Prints a result on standard output, with an empty line after it.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}\n")
}

/// The table of all closed loops.
pub(crate) fn rows(report: &Report) -> String {
    let mut table = String::from(
        "| friends | connections | system | decisions/s | p50 µs | p90 | p99 | p99.9 | gateway CPU µs | decider | nats | sink | client | gateway peak MiB | decider | nats | fallbacks % | CPUs idle % | others % |\n\
         |--:|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for row in &report.rows {
        line(&mut table, row);
    }
    table
}

fn line(table: &mut String, row: &Row) {
    let Measured {
        per_second,
        micros,
        fallback_percent,
        machine,
        ..
    } = &row.median;
    let cpu = |role| figure(row.median.cpu_micros.get(&role).copied());
    let peak = |role| figure(row.median.peak_mib.get(&role).copied());
    // Writing to a String cannot fail.
    let _ = writeln!(
        table,
        "| {} | {} | {} | {per_second:.0} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {fallback_percent:.1} | {:.0} | {:.0} |",
        row.friends,
        row.concurrency,
        row.system,
        figure(Some(micros.p50)),
        figure(Some(micros.p90)),
        figure(Some(micros.p99)),
        figure(Some(micros.p999)),
        cpu(Role::Gateway),
        cpu(Role::Decider),
        cpu(Role::Nats),
        cpu(Role::Sink),
        cpu(Role::Client),
        peak(Role::Gateway),
        peak(Role::Decider),
        peak(Role::Nats),
        machine.idle,
        machine.others,
    );
}

/// Three digits are all that is ever sure.
pub(crate) fn figure(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(value) if value < 100.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// The open loops; empty where none was run.
pub(crate) fn paced(report: &Report) -> String {
    if report.paced.is_empty() {
        return String::new();
    }
    let mut table = String::from(
        "| friends | pace, decisions/s | system | p50 µs | p90 | p99 | p99.9 | gateway CPU µs | decider | nats | client | fallbacks % | CPUs idle % | others % |\n\
         |--:|--:|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for Paced {
        friends,
        rate,
        systems,
    } in &report.paced
    {
        for (system, rounds) in systems {
            let median = Measured::median(rounds);
            let cpu = |role| figure(median.cpu_micros.get(&role).copied());
            // Writing to a String cannot fail.
            let _ = writeln!(
                table,
                "| {friends} | {rate:.0} | {system} | {} | {} | {} | {} | {} | {} | {} | {} | {:.1} | {:.0} | {:.0} |",
                figure(Some(median.micros.p50)),
                figure(Some(median.micros.p90)),
                figure(Some(median.micros.p99)),
                figure(Some(median.micros.p999)),
                cpu(Role::Gateway),
                cpu(Role::Decider),
                cpu(Role::Nats),
                cpu(Role::Client),
                median.fallback_percent,
                median.machine.idle,
                median.machine.others,
            );
        }
    }
    table
}
