//! Tests of a policy, written as a table in YAML next to it: a request, and what is to come of it.
//!
//! ```yaml
//! policy: policy.yaml
//! tests:
//!   - name: a banned owner imports nobody
//!     owner: blocked_user
//!     friends: [user456]
//!     expect: { verdict: refuse, code: 5001, rules: [blocked-owner] }
//! ```

mod junit;
mod read;
mod run;

pub use junit::junit;
pub use run::{FindError, run};

use std::fmt;

use crate::policy::Diagnostics;

/// What came of running test files.
#[derive(Debug)]
pub struct Report {
    /// One for each file, by name; at least one.
    pub suites: Vec<Suite>,
}

/// What came of one test file.
#[derive(Debug)]
pub struct Suite {
    /// The file.
    pub file: String,
    /// The tests in its order, or what is wrong with the file or its policy.
    pub result: Result<Vec<Case>, Diagnostics>,
}

/// What came of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it is called.
    pub name: String,
    /// The line it starts on.
    pub line: u32,
    /// Where the decision was another one than expected; nowhere if the test passed.
    pub differences: Vec<Difference>,
    /// For a test that failed: rule by rule what happened.
    pub explanation: Vec<String>,
}

/// One thing about a decision that was expected otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is about: the key under `expect`.
    pub what: &'static str,
    /// What the test says.
    pub expected: String,
    /// What the policy said.
    pub got: String,
}

impl Report {
    /// How many tests there are. A file that cannot be run counts as one.
    pub fn tests(&self) -> usize {
        let tests = |suite: &Suite| suite.result.as_ref().map_or(1, Vec::len);
        self.suites.iter().map(tests).sum()
    }

    /// How many of them failed.
    pub fn failures(&self) -> usize {
        let failed = |cases: &Vec<Case>| cases.iter().filter(|case| !case.passed()).count();
        let failures = |suite: &Suite| suite.result.as_ref().map_or(1, failed);
        self.suites.iter().map(failures).sum()
    }
}

impl Case {
    /// Whether the decision was the expected one.
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Report {
    /// For a terminal: each test on a line, and under one that failed the differences and what happened.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for suite in &self.suites {
            writeln!(f, "{}", suite.file)?;
            match &suite.result {
                Ok(cases) => cases.iter().try_for_each(|case| case.fmt(f))?,
                Err(diagnostics) => writeln!(f, "{diagnostics}")?,
            }
            writeln!(f)?;
        }
        write!(f, "{} tests, {} failed", self.tests(), self.failures())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.passed() {
            return writeln!(f, "  ok    {}", self.name);
        }
        writeln!(f, "  FAIL  {} (line {})", self.name, self.line)?;
        for difference in &self.differences {
            writeln!(
                f,
                "          {:<8} expected  {}",
                difference.what, difference.expected
            )?;
            writeln!(f, "          {:<8} got       {}", "", difference.got)?;
        }
        for line in &self.explanation {
            writeln!(f, "          | {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod docs;
#[cfg(test)]
mod tests;
