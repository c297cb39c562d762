use std::fmt::Write as _;

use super::{Attack, BACK, Round, honest::COUNT};
use crate::{
    line::{Line, Target},
    statistics::{Spread, median},
    table::figure,
};

/// A line for each attack: medians of the rounds.
pub(super) fn figures(found: &[(Attack, Vec<Round>)]) -> String {
    let mut table = String::from(
        "| attack | connections held at its end | opened again | p50 ms without it | p99 | p50 ms beside it | p99 | gateway MiB at rest | at most | back after s |\n\
         |:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (attack, rounds) in found {
        let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value));
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {} | {:.1} |",
            attack.name(),
            of(|round| round.held),
            of(|round| round.again),
            of(|round| round.calm.micros.p50 / 1e3),
            of(|round| round.calm.micros.p99 / 1e3),
            of(|round| round.beside.micros.p50 / 1e3),
            of(|round| round.beside.micros.p99 / 1e3),
            figure(Some(of(|round| round.rest))),
            figure(Some(of(|round| round.rest + round.over))),
            of(|round| {
                let back = round.back.map(|back| back.as_secs_f64());
                back.unwrap_or(f64::INFINITY)
            }),
        );
    }
    table
}

/// What must be reached.
pub(super) fn lines(found: &[(Attack, Vec<Round>)]) -> Vec<Line> {
    let each = found.iter().flat_map(|(attack, rounds)| {
        let line = |what: &str, value: fn(&Round) -> f64, target, unit, digits| {
            let values: Vec<f64> = rounds.iter().map(value).collect();
            Line {
                what: format!("{}: {what}", attack.name()),
                measured: Spread::of(&values),
                target: Some(target),
                unit,
                digits,
            }
        };
        let right = |round: &Round| round.beside.right as f64;
        // One callback without its verdict is one too many, in whichever round.
        let fewest = rounds.iter().map(right).fold(f64::INFINITY, f64::min);
        let verdicts = Line {
            measured: Spread::of(&[fewest]),
            ..line(
                "honest callbacks with the policy's verdict, of 1,000",
                right,
                Target::AtLeast(COUNT as f64),
                "",
                0,
            )
        };
        [
            verdicts,
            line(
                "p99 / without it",
                |round| round.beside.micros.p99 / round.calm.micros.p99,
                Target::AtMost(3.0),
                "",
                2,
            ),
            line(
                "gateway's memory over that at rest",
                |round| round.over,
                Target::AtMost(64.0),
                " MiB",
                1,
            ),
            line(
                "gateway's memory up to 30 s after it / at rest",
                |round| round.after,
                Target::AtMost(BACK),
                "",
                2,
            ),
        ]
    });
    each.collect()
}
