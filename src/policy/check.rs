use std::{cmp::Reverse, path::PathBuf, process::ExitCode};

use clap::Args;
use importguard_core::Mode;
use importguard_decider::{
    load::load,
    policy::{MAX_COST, NANOS_PER_UNIT, Policy, PolicyCost, SHADOW_BUDGET, number_of_ids},
};

use super::{LargestImport, input_file};
use crate::{events::friends, output::print, text::counted};

#[derive(Args)]
pub(crate) struct Check {
    /// Policy files; the paths of their lists are relative to them
    #[arg(
        value_name = "FILE",
        env = "IMPORTGUARD_POLICY",
        default_value = "policy/policy.yaml",
        value_parser = input_file()
    )]
    files: Vec<PathBuf>,

    #[command(flatten)]
    largest: LargestImport,
}

impl Check {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let mut exit = ExitCode::SUCCESS;
        for file in &self.files {
            match load(file, self.largest.max_friends) {
                Ok(policy) => {
                    print(format_args!("{}: {}", file.display(), summary(&policy)))?;
                    print(format_args!("{}: {}", file.display(), cost(policy.cost())))?;
                    for (list, count) in policy.ids_with_spaces() {
                        let file = file.display();
                        let ids = counted(count, "ID", "IDs");
                        print(format_args!(
                            "{file}: hint: the list {list} has {ids} with spaces; if that is not meant, write one ID per line"
                        ))?;
                    }
                    for list in policy.unused_lists() {
                        let file = file.display();
                        print(format_args!(
                            "{file}: hint: no rule uses the list {list}; use it or remove it"
                        ))?;
                    }
                    for rule in policy.mixed_rules() {
                        let file = file.display();
                        print(format_args!(
                            "{file}: hint: the rule {rule} matches IDs that fit any of its keys, and nearly every ID fits a negative one; for \"and\", use an expression"
                        ))?;
                    }
                    for (list, minimum) in policy.suggested_minimums() {
                        let file = file.display();
                        print(format_args!(
                            "{file}: hint: add atLeast: {minimum} to the list {list}, so that no decider starts with a truncated file"
                        ))?;
                    }
                }
                Err(diagnostics) => {
                    print(&diagnostics)?;
                    let errors = counted(diagnostics.count(), "error", "errors");
                    print(format_args!("\n{}: {errors}", file.display()))?;
                    exit = ExitCode::FAILURE;
                }
            }
        }
        Ok(exit)
    }
}

fn summary(policy: &Policy) -> String {
    let lists: Vec<_> = policy
        .lists()
        .map(|list| {
            let live = policy.live_lists().find(|(_, name)| *name == list.name);
            match live {
                Some((live, _)) if list.size == 0 => format!("{} (live list {live})", list.name),
                Some((live, _)) => {
                    format!(
                        "{} ({} and the live list {live})",
                        list.name,
                        number_of_ids(list.size)
                    )
                }
                None => format!("{} ({})", list.name, number_of_ids(list.size)),
            }
        })
        .collect();
    let lists = match lists.as_slice() {
        [] => "no lists".to_owned(),
        lists => format!("lists {}", lists.join(", ")),
    };
    format!("OK: policy {}, {lists}, {}", policy.name(), policy.digest())
}

/// Describes the cost of the largest import: of enforced rules, which must not exceed the limit, and of shadow rules, which may.
fn cost(cost: &PolicyCost) -> String {
    let shadow = cost.units(Mode::Shadow);
    let skipped = if shadow > SHADOW_BUDGET {
        " (some are skipped on the largest imports)"
    } else {
        ""
    };
    format!(
        "cost of an import of {}, in units of about {NANOS_PER_UNIT} ns: at most {} of {MAX_COST}; shadow rules: {shadow} of {SHADOW_BUDGET}{skipped}{}",
        friends(cost.friends),
        cost.units(Mode::Enforce),
        shares(cost)
    )
}

/// Maximum number of the most expensive rules that are named.
const NAMED: usize = 5;

fn shares(cost: &PolicyCost) -> String {
    let mut rules: Vec<_> = cost.rules.iter().collect();
    rules.sort_by_key(|rule| Reverse(rule.units));
    let named = rules.iter().take(NAMED).map(|rule| {
        let mode = match rule.mode {
            Mode::Enforce => "",
            Mode::Shadow => " (shadow)",
        };
        format!("{}{mode} {}", rule.id, rule.units)
    });
    let named: Vec<_> = named.collect();
    match named.as_slice() {
        [] => String::new(),
        named => format!("; most expensive: {}", named.join(", ")),
    }
}
