//! The result: importguard as ratios to the two floors of the same run, beside what it must reach.

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
    let mut lines = Vec::new();
    for friends in [2, 1_000] {
        lines.extend(beside_the_floors(report, friends));
    }
    lines.extend(alone(report));
    result("traces 10 %, the shipped policy", &lines)
}

fn beside_the_floors(report: &Report, friends: usize) -> [Line; 6] {
    let at = format!("{friends} friends, {CONCURRENCY} connections");
    let throughput = |floor| {
        pairs(report, friends, floor, |ours, floor| {
            ours.per_second / floor.per_second
        })
    };
    let cpu = |floor| {
        pairs(report, friends, floor, |ours, floor| {
            pods(ours) - pods(floor)
        })
    };
    // What each friend costs more is in the throughput.
    let more = (friends == 2).then_some(Target::AtMost(25.0));
    let line = |what: String, measured, target, unit, digits| Line {
        what,
        measured,
        target,
        unit,
        digits,
    };
    let ratio = |what: String, measured, target| line(what, measured, Some(target), "", 3);
    let micros = |what: String, measured, target| line(what, measured, target, " µs", 1);
    let (plain, lean) = (SystemName::Floor, SystemName::Lean);
    [
        ratio(
            format!("throughput / floor, {at}"),
            throughput(plain),
            Target::AtLeast(1.0),
        ),
        ratio(
            format!("throughput / lean floor, {at}"),
            throughput(lean),
            Target::AtLeast(0.85),
        ),
        micros(
            format!("CPU of gateway and decider, {at}"),
            pairs(report, friends, IMPORTGUARD, |ours, _| pods(ours)),
            None,
        ),
        micros(format!("… over the floor's, {at}"), cpu(plain), more),
        micros(format!("… over the lean floor's, {at}"), cpu(lean), None),
        ratio(
            format!("p99 / floor's, {friends} friends, at half of the floor's capacity"),
            paced(report, friends),
            Target::AtMost(1.5),
        ),
    ]
}

fn alone(report: &Report) -> [Line; 5] {
    let rest = report.rest.as_ref();
    let single = |value: Option<f64>| value.and_then(|value| Spread::of(&[value]));
    let line = |what: &str, measured, most, unit| Line {
        what: what.to_owned(),
        measured,
        target: Some(Target::AtMost(most)),
        unit,
        digits: 1,
    };
    [
        line(
            "gateway at rest",
            single(rest.map(|rest| rest.gateway_mib)),
            40.0,
            " MiB",
        ),
        line(
            "decider at rest, without lists",
            single(rest.map(|rest| rest.decider_mib)),
            25.0,
            " MiB",
        ),
        line(
            "gateway's peak, 1000 friends, 256 connections",
            peak(report),
            150.0,
            " MiB",
        ),
        line(
            "gateway, start to ready",
            single(rest.map(|rest| rest.gateway_ready_ms)),
            100.0,
            " ms",
        ),
        line(
            "decider, start to ready, without lists",
            single(rest.map(|rest| rest.decider_ready_ms)),
            100.0,
            " ms",
        ),
    ]
}

/// Of each round's pair: neighbours in time, so that what else happens to the machine meets both.
fn pairs(
    report: &Report,
    friends: usize,
    other: SystemName,
    of: impl Fn(&Measured, &Measured) -> f64,
) -> Option<Spread> {
    let ours: &Row = report.row(IMPORTGUARD, friends, CONCURRENCY)?;
    let other = report.row(other, friends, CONCURRENCY)?;
    spread(&ours.rounds, &other.rounds, of)
}

fn paced(report: &Report, friends: usize) -> Option<Spread> {
    let paced = report.paced.iter().find(|paced| paced.friends == friends)?;
    let ours = paced.systems.get(&IMPORTGUARD)?;
    let floor = paced.systems.get(&SystemName::Floor)?;
    spread(ours, floor, |ours, floor| {
        ours.micros.p99 / floor.micros.p99
    })
}

fn spread(
    ours: &[Measured],
    others: &[Measured],
    of: impl Fn(&Measured, &Measured) -> f64,
) -> Option<Spread> {
    let each = ours.iter().zip(others);
    Spread::of(
        &each
            .map(|(ours, other)| of(ours, other))
            .collect::<Vec<_>>(),
    )
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
