//! What a person reads: progress on standard error, tables in Markdown on standard output.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use crate::load::Load;

/// Prints on standard error what is being done.
pub(crate) fn progress(what: impl Display) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(io::stderr(), "… {what}");
}

/// Prints a result on standard output, with an empty line after it.
pub(crate) fn print(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{text}\n")
}

/// The middle of `values`; of two in the middle, their mean. Not a number where there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let (lower, upper) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    let middle = values.get(lower).zip(values.get(upper));
    middle.map_or(f64::NAN, |(lower, upper)| f64::midpoint(*lower, *upper))
}

/// What was measured, once or, by the medians, several times: columns of the table, not a number where a system has no such thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured(pub(crate) Vec<(String, f64)>);

impl Measured {
    /// Not a number where there is none.
    pub(crate) fn get(&self, column: &str) -> f64 {
        let found = self.0.iter().find(|(name, _)| name == column);
        found.map_or(f64::NAN, |(_, value)| *value)
    }

    /// CPU microseconds of gateway and decider for each right response.
    pub(crate) fn pods(&self) -> f64 {
        self.get("gateway CPU µs") + self.get("decider CPU µs")
    }

    /// The medians of several measurements.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let columns = rounds.iter().take(1).flat_map(|round| &round.0);
        let of = |column: &str| median(rounds.iter().map(|round| round.get(column)));
        let medians = columns.map(|(column, _)| (column.clone(), of(column)));
        Self(medians.collect())
    }
}

/// A line of the table of figures, and the rounds that it is the median of.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) system: String,
    pub(crate) friends: usize,
    pub(crate) load: Load,
    pub(crate) rounds: Vec<Measured>,
}

impl Row {
    /// One without rounds.
    pub(crate) fn new(system: &str, friends: usize, load: Load) -> Self {
        Self {
            system: system.to_owned(),
            friends,
            load,
            rounds: Vec::new(),
        }
    }
}

/// The table of figures: medians of the rounds.
pub(crate) fn figures(rows: &[Row]) -> String {
    let median = |row: &Row| Measured::median(&row.rounds);
    let medians: Vec<Measured> = rows.iter().map(median).collect();
    let columns = medians.iter().take(1).flat_map(|median| &median.0);
    let columns = columns.map(|(name, _)| name);
    let known = |name: &&String| medians.iter().any(|median| !median.get(name).is_nan());
    let columns: Vec<&String> = columns.filter(known).collect();
    let titles = columns.iter().map(|column| format!(" {column} |"));
    let mut table = format!(
        "| friends | load | system |{}\n|--:|--:|:--|{}",
        titles.collect::<String>(),
        "--:|".repeat(columns.len())
    );
    for (row, median) in rows.iter().zip(&medians) {
        let (friends, load, system) = (row.friends, row.load, &row.system);
        table.push_str(&format!("\n| {friends} | {load} | {system} |"));
        let values = columns.iter().map(|column| figure(median.get(column)));
        table.extend(values.map(|value| format!(" {value} |")));
    }
    table
}

/// Three digits are all that is ever certain.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size.is_nan() => String::new(),
        0.0 => "0".to_owned(),
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// What a figure must not fall below or exceed. Without a target the figure is there to be known.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    None,
    AtLeast(f64),
    AtMost(f64),
}

/// A line of the table of results.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    what: String,
    target: Target,
    rounds: Vec<f64>,
}

/// Lines of what was found in each round.
pub(crate) fn lines<const COUNT: usize>(
    titles: [(impl Into<String>, Target); COUNT],
    rounds: &[[f64; COUNT]],
) -> Vec<Line> {
    let titles = titles.into_iter().enumerate();
    let lines = titles.map(|(place, (what, target))| Line {
        what: what.into(),
        target,
        rounds: rounds.iter().map(|round| round[place]).collect(),
    });
    lines.collect()
}

/// The table of results: the median of the rounds with their least and greatest, beside the target.
pub(crate) fn results(title: &str, lines: &[Line]) -> String {
    let lines = lines.iter().map(|line| format!("\n{line}"));
    format!(
        "| {title} | measured | rounds from, to | target | met |\n|:--|--:|--:|--:|:--|{}",
        lines.collect::<String>()
    )
}

impl Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rounds = self.rounds.clone();
        rounds.retain(|value| !value.is_nan());
        rounds.sort_unstable_by(f64::total_cmp);
        let value = median(rounds.iter().copied());
        let spread = match rounds[..] {
            [least, .., greatest] => format!("{}, {}", figure(least), figure(greatest)),
            _ => String::new(),
        };
        let yes = |met| if met { "yes" } else { "**no**" };
        let (target, met) = match self.target {
            Target::None => (String::new(), ""),
            Target::AtLeast(least) => (format!("at least {least}"), yes(value >= least)),
            Target::AtMost(most) => (format!("at most {most}"), yes(value <= most)),
        };
        let (what, measured) = (&self.what, figure(value));
        if value.is_nan() {
            return write!(f, "| {what} | not measured |  | {target} |  |");
        }
        write!(f, "| {what} | {measured} | {spread} | {target} | {met} |")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_a_median_with_its_spread_beside_its_target() {
        let text = |rounds: &[[f64; 1]], target| lines([("ratio", target)], rounds)[0].to_string();
        assert_eq!(
            text(&[[3.0], [1.0], [2.5]], Target::AtMost(2.5)),
            "| ratio | 2.50 | 1.00, 3.00 | at most 2.5 | yes |"
        );
        assert_eq!(
            text(&[[0.5]], Target::AtLeast(1.0)),
            "| ratio | 0.500 |  | at least 1 | **no** |"
        );
        assert_eq!(
            text(&[[f64::NAN]], Target::None),
            "| ratio | not measured |  |  |  |"
        );
    }
}
