//! Table tests of a policy in YAML: a request and its expected decision.
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
pub use read::{parse_rollout, parse_time};
pub use run::{FindError, run};

use std::fmt;

use crate::policy::Diagnostics;

/// The results of running test files.
#[derive(Debug)]
pub struct Report {
    /// The results by file, at least one.
    pub suites: Vec<Suite>,
}

/// The results of one test file.
#[derive(Debug)]
pub struct Suite {
    /// The file.
    pub file: String,
    /// The results in file order, or the errors in the file or its policy.
    pub result: Result<Vec<Case>, Diagnostics>,
}

/// The result of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// The line on which it starts.
    pub line: u32,
    /// The differences from the expected decision; empty if the test passed.
    pub differences: Vec<Difference>,
    /// For a failed test: the effect of each rule.
    pub explanation: Vec<String>,
}

/// One difference from the expected decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key under `expect`.
    pub what: &'static str,
    /// The expected value.
    pub expected: String,
    /// The actual value.
    pub got: String,
}

impl Report {
    /// The number of tests that were run.
    pub fn tests(&self) -> usize {
        let tests = |suite: &Suite| suite.result.as_ref().map_or(0, Vec::len);
        self.suites.iter().map(tests).sum()
    }

    /// The number of failed tests.
    pub fn failures(&self) -> usize {
        let failed = |cases: &Vec<Case>| cases.iter().filter(|case| !case.passed()).count();
        let failures = |suite: &Suite| suite.result.as_ref().map_or(0, failed);
        self.suites.iter().map(failures).sum()
    }

    /// The number of files whose tests could not be run.
    pub fn invalid_files(&self) -> usize {
        let invalid = self.suites.iter().filter(|suite| suite.result.is_err());
        invalid.count()
    }

    /// Whether every test was run and passed.
    pub fn passed(&self) -> bool {
        self.failures() == 0 && self.invalid_files() == 0
    }
}

impl Case {
    /// Whether the decision was as expected.
    pub fn passed(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Report {
    /// For a terminal: one line per test; below a failed one the differences and the effect of each rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for suite in &self.suites {
            writeln!(f, "{}", suite.file)?;
            match &suite.result {
                Ok(cases) => cases.iter().try_for_each(|case| case.fmt(f))?,
                Err(diagnostics) => writeln!(f, "{diagnostics}")?,
            }
            writeln!(f)?;
        }
        let (tests, failures) = (self.tests(), self.failures());
        let plural = if tests == 1 { "" } else { "s" };
        write!(f, "{tests} test{plural}, {failures} failed")?;
        match self.invalid_files() {
            0 => Ok(()),
            1 => write!(f, "; 1 file cannot be run"),
            files => write!(f, "; {files} files cannot be run"),
        }
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
