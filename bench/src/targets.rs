//! The result: importguard as ratios to the floor of the same run, beside what it must reach.

use crate::{
    cli::Traces,
    line::{Line, Target, result},
    matrix::{Report, Row},
    measure::Measured,
    statistics::Spread,
    system::{Role, SystemName},
};

/// Where throughput and CPU are compared.
pub(crate) const CONCURRENCY: usize = 32;

/// Where memory under load is read: many callbacks at once, each with many friends.
const CROWD: usize = 256;

/// The one that has targets.
pub(crate) const IMPORTGUARD: SystemName = SystemName::Importguard(Traces::Sampled);

/// The table of targets; what was not measured is left open.
pub(crate) fn table(report: &Report) -> String {
    result("traces 10 %, the shipped policy", &lines(report))
}

fn lines(report: &Report) -> Vec<Line> {
    let throughput = |one: &Measured| one.per_second;
    let rest = report.rest.as_ref();
    let single = |value: Option<f64>| value.and_then(|value| Spread::of(&[value]));
    let line = |what: &str, measured, target, unit, digits| Line {
        what: what.to_owned(),
        measured,
        target: Some(target),
        unit,
        digits,
    };
    vec![
        line(
            "throughput / floor, 2 friends, 32 connections",
            pairs(report, 2, |ours, floor| {
                throughput(ours) / throughput(floor)
            }),
            Target::AtLeast(0.85),
            "",
            3,
        ),
        line(
            "throughput / floor, 1,000 friends, 32 connections",
            pairs(report, 1_000, |ours, floor| {
                throughput(ours) / throughput(floor)
            }),
            Target::AtLeast(0.9),
            "",
            3,
        ),
        line(
            "p99 / floor's, 2 friends, at 80 % of the floor's capacity",
            paced(report, 2),
            Target::AtMost(1.3),
            "",
            2,
        ),
        line(
            "p99 / floor's, 1,000 friends, at 80 % of the floor's capacity",
            paced(report, 1_000),
            Target::AtMost(1.3),
            "",
            2,
        ),
        line(
            "CPU over the floor's, gateway and decider, 2 friends, 32 connections",
            pairs(report, 2, |ours, floor| pods(ours) - pods(floor)),
            Target::AtMost(25.0),
            " µs",
            1,
        ),
        line(
            "gateway at rest",
            single(rest.map(|rest| rest.gateway_mib)),
            Target::AtMost(40.0),
            " MiB",
            1,
        ),
        line(
            "decider at rest, without lists",
            single(rest.map(|rest| rest.decider_mib)),
            Target::AtMost(25.0),
            " MiB",
            1,
        ),
        line(
            "gateway's peak, 1,000 friends, 256 connections",
            peak(report),
            Target::AtMost(150.0),
            " MiB",
            1,
        ),
        line(
            "gateway, start to ready",
            single(rest.map(|rest| rest.gateway_ready_ms)),
            Target::AtMost(100.0),
            " ms",
            1,
        ),
        line(
            "decider, start to ready, without lists",
            single(rest.map(|rest| rest.decider_ready_ms)),
            Target::AtMost(100.0),
            " ms",
            1,
        ),
    ]
}

/// Of each round's pair: neighbours in time, so that what else happens to the machine meets both.
fn pairs(
    report: &Report,
    friends: usize,
    of: impl Fn(&Measured, &Measured) -> f64,
) -> Option<Spread> {
    let ours: &Row = report.row(IMPORTGUARD, friends, CONCURRENCY)?;
    let floor = report.row(SystemName::Floor, friends, CONCURRENCY)?;
    let each = ours.rounds.iter().zip(&floor.rounds);
    Spread::of(
        &each
            .map(|(ours, floor)| of(ours, floor))
            .collect::<Vec<_>>(),
    )
}

fn paced(report: &Report, friends: usize) -> Option<Spread> {
    let wanted = (SystemName::Floor, friends);
    let mut paced = report.paced.iter();
    let paced = paced.find(|paced| (paced.of, paced.friends) == wanted)?;
    let each = paced.importguard.iter().zip(&paced.floor);
    let ratios: Vec<_> = each
        .map(|(ours, floor)| ours.micros.p99 / floor.micros.p99)
        .collect();
    Spread::of(&ratios)
}

fn pods(one: &Measured) -> f64 {
    let of = |role| one.cpu_micros.get(&role).copied().unwrap_or(f64::NAN);
    of(Role::Gateway) + of(Role::Decider)
}

fn peak(report: &Report) -> Option<Spread> {
    let row = report.row(IMPORTGUARD, 1_000, CROWD)?;
    let peaks = row
        .rounds
        .iter()
        .filter_map(|one| one.peak_mib.get(&Role::Gateway));
    Spread::of(&peaks.copied().collect::<Vec<_>>())
}
