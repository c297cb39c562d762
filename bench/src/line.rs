//! A result: a figure, and beside it what it must reach.

use std::fmt::Write as _;

use crate::statistics::Spread;

/// What a figure must not fall below or exceed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// A line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) measured: Option<Spread>,
    /// Without one the figure is there to be known.
    pub(crate) target: Option<Target>,
    /// With the space before it.
    pub(crate) unit: &'static str,
    pub(crate) digits: usize,
}

/// The table of `lines`; what was not measured is left open.
pub(crate) fn result(title: &str, lines: &[Line]) -> String {
    let mut table = format!(
        "| {title} | measured | rounds from, to | must reach | reached |\n|:--|--:|--:|--:|:--|\n"
    );
    for line in lines {
        line.write(&mut table);
    }
    table
}

impl Target {
    fn reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl Line {
    fn write(&self, table: &mut String) {
        let (digits, unit) = (self.digits, self.unit);
        let target = match self.target {
            None => String::new(),
            Some(Target::AtLeast(value)) => format!("at least {value}{unit}"),
            Some(Target::AtMost(value)) => format!("at most {value}{unit}"),
        };
        let (measured, rounds, reached) = match &self.measured {
            None => ("not measured".to_owned(), String::new(), ""),
            Some(Spread {
                median,
                least,
                greatest,
            }) => (
                format!("{median:.digits$}{unit}"),
                if least < greatest {
                    format!("{least:.digits$}, {greatest:.digits$}")
                } else {
                    String::new()
                },
                match self.target.map(|target| target.reached(*median)) {
                    None => "",
                    Some(true) => "yes",
                    Some(false) => "**no**",
                },
            ),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {measured} | {rounds} | {target} | {reached} |",
            self.what
        );
    }
}
