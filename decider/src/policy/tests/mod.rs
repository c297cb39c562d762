//! What a policy file means, and the errors of an invalid one.

mod changes;
mod cost;
mod diagnostics;
mod evaluation;
mod guards;
mod hostile;
mod live;
mod matched;
mod properties;
mod rollouts;
mod rules;
mod schema;

use super::{Diagnostics, Draft, ListFiles, Policy};
use crate::lists;

/// A policy with these lines after its name, and the list files `blocked.txt` (bad1, bad2) and `known.txt` (a to e).
fn compile(rest: &str) -> Result<Policy, Diagnostics> {
    compile_source(&with_head(rest))
}

fn compile_source(source: &str) -> Result<Policy, Diagnostics> {
    let mut files = ListFiles::new();
    files.insert(
        "blocked.txt".to_owned(),
        Ok(lists::parse(b"bad1\nbad2\n").unwrap()),
    );
    files.insert(
        "known.txt".to_owned(),
        Ok(lists::parse(b"a\nb\nc\nd\ne\n").unwrap()),
    );
    Draft::read("policy.yaml", source).compile(&files)
}

fn with_head(rest: &str) -> String {
    format!("apiVersion: importguard/v1\nname: test\n{rest}\n")
}

fn policy(rest: &str) -> Policy {
    compile(rest).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}
