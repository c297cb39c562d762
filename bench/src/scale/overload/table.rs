use std::fmt::Write as _;

use super::{AT_CAPACITY, Memories, Pods, Round, TIMES};
use crate::{
    line::{Line, Target},
    measure::{Measured, MeasuredFlood},
    statistics::{Spread, median},
    system::Role,
    table::figure,
};

/// A line for each phase: medians of the rounds.
pub(super) fn figures(rounds: &[Round], streams: usize) -> String {
    let of = |value: &dyn Fn(&Round) -> f64| median(rounds.iter().map(value));
    let show = |value: &dyn Fn(&Round) -> f64| figure(Some(of(value)));
    let memory = |moment: fn(&Memories) -> Pods| {
        let gateway = show(&|round| moment(&round.memory).gateway);
        let decider = show(&|round| moment(&round.memory).decider);
        format!("{gateway} | {decider}")
    };
    let peak = |round: &Round, role| round.flood.accepted.peak_mib.get(&role).copied();
    let mut table = String::from(
        "| overload, 2 friends | streams | asked/s | accepted/s | p50 µs | p99 | refused/s | p50 µs | p99 | gateway CPU % | decider | nats | client | CPUs idle % | gateway MiB | decider |\n\
         |:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    // Writing to a String cannot fail.
    let _ = writeln!(
        table,
        "| at capacity | {AT_CAPACITY} | {0:.0} | {0:.0} | {1} | {2} | | | | {3} | {4:.0} | {5} |",
        of(&|round| round.before.per_second),
        show(&|round| round.before.micros.p50),
        show(&|round| round.before.micros.p99),
        busy(rounds, |round| &round.before),
        of(&|round| round.before.machine.idle),
        memory(|memory| memory.before),
    );
    let _ = writeln!(
        table,
        "| {TIMES} times that | {streams} | {:.0} | {:.0} | {} | {} | {:.0} | {} | {} | {} | {:.0} | {} at most | {} |",
        of(&|round| round.flood.asked_per_second()),
        of(&|round| round.flood.accepted.per_second),
        show(&|round| round.flood.accepted.micros.p50),
        show(&|round| round.flood.accepted.micros.p99),
        of(&|round| round.flood.overloaded_per_second),
        show(&|round| round.flood.overloaded_micros.p50),
        show(&|round| round.flood.overloaded_micros.p99),
        busy(rounds, |round| &round.flood.accepted),
        of(&|round| round.flood.accepted.machine.idle),
        show(&|round| peak(round, Role::Gateway).unwrap_or(f64::NAN)),
        show(&|round| peak(round, Role::Decider).unwrap_or(f64::NAN)),
    );
    let _ = writeln!(
        table,
        "| at capacity again | {AT_CAPACITY} | {0:.0} | {0:.0} | {1} | {2} | | | | | | | | | {3} |",
        of(&|round| round.after.per_second),
        show(&|round| round.after.micros.p50),
        show(&|round| round.after.micros.p99),
        memory(|memory| memory.after),
    );
    table
}

/// How much of one CPU each process took, in a hundred.
fn busy(rounds: &[Round], of: fn(&Round) -> &Measured) -> String {
    let share = |role| {
        let shares = rounds.iter().filter_map(|round| {
            let measured = of(round);
            let micros = measured.cpu_micros.get(&role)?;
            Some(micros * measured.per_second / 1e4)
        });
        format!("{:.0}", median(shares))
    };
    [Role::Gateway, Role::Decider, Role::Nats, Role::Client]
        .map(share)
        .join(" | ")
}

/// Against the capacity of the same round, and what must be reached.
pub(super) fn lines(rounds: &[Round]) -> Vec<Line> {
    let line = |what: &str, value: &dyn Fn(&Round) -> f64, target, unit, digits| {
        let values: Vec<f64> = rounds.iter().map(value).collect();
        Line {
            what: what.to_owned(),
            // A share of nothing, where nobody was refused.
            measured: Spread::of(&values).filter(|spread| !spread.median.is_nan()),
            target,
            unit,
            digits,
        }
    };
    let at_most = |value| Some(Target::AtMost(value));
    vec![
        line(
            "decided / capacity",
            &|round| round.flood.accepted.per_second / round.before.per_second,
            Some(Target::AtLeast(0.8)),
            "",
            2,
        ),
        line(
            "p99 of what the policy decided",
            &|round| round.flood.accepted.micros.p99 / 1e3,
            at_most(1_000.0),
            " ms",
            0,
        ),
        line(
            "… / p99 at capacity",
            &|round| round.flood.accepted.micros.p99 / round.before.micros.p99,
            None,
            "",
            2,
        ),
        line(
            "asked / capacity",
            &|round| round.flood.asked_per_second() / round.before.per_second,
            None,
            "",
            2,
        ),
        line(
            "questions due, and not put as no stream was free",
            &|round| round.flood.unput_percent,
            None,
            " %",
            1,
        ),
        line(
            "questions lost with their connection",
            &|round| round.flood.lost as f64,
            at_most(0.0),
            "",
            0,
        ),
        line(
            "refusals without an event",
            &|round| round.unrecorded_percent.unwrap_or(f64::NAN),
            None,
            " %",
            1,
        ),
        line(
            "fallbacks of another cause than the overload",
            &|round| round.flood.other_fallbacks as f64,
            None,
            "",
            0,
        ),
        line(
            "gateway's memory, end of the overload / half-way",
            &|round| round.memory.late.gateway / round.memory.half.gateway,
            at_most(1.1),
            "",
            2,
        ),
        line(
            "decider's, likewise",
            &|round| round.memory.late.decider / round.memory.half.decider,
            at_most(1.1),
            "",
            2,
        ),
        line(
            "gateway's memory after / before",
            &|round| round.memory.after.gateway / round.memory.before.gateway,
            at_most(1.1),
            "",
            2,
        ),
        line(
            "throughput after / before",
            &|round| round.after.per_second / round.before.per_second,
            None,
            "",
            2,
        ),
        line(
            "p99 after / before",
            &|round| round.after.micros.p99 / round.before.micros.p99,
            None,
            "",
            2,
        ),
        line(
            "refused after",
            &|round| round.after.refused as f64,
            at_most(0.0),
            "",
            0,
        ),
        line(
            "back at nine tenths of the capacity",
            &|round| {
                round
                    .after
                    .back
                    .map_or(f64::INFINITY, |back| back.as_secs_f64() * 1e3)
            },
            None,
            " ms",
            0,
        ),
    ]
}

impl MeasuredFlood {
    /// Questions that were put.
    fn asked_per_second(&self) -> f64 {
        self.accepted.per_second + self.overloaded_per_second
    }
}
