//! How fast importguard is, against the least that its hops cost. `bench/README.md` has the method and the last figures.

mod attack;
mod binaries;
mod cli;
mod floor;
mod line;
mod load;
mod machine;
mod matrix;
mod measure;
mod ports;
mod process;
mod rest;
mod scale;
mod sink;
mod statistics;
mod system;
mod table;
mod targets;

use std::{future::Future, num::NonZeroUsize};

use clap::Parser;
use cli::{Cli, Command, Part};
use importguard_runtime::{ThreadSettings, block_on};

// As the pods have it, so that the floor has no worse one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None => on_one_thread(matrix::run(cli.matrix)),
        Some(Command::Scale(settings)) => on_one_thread(scale::run(settings)),
        Some(Command::Attack(settings)) => on_one_thread(attack::run(settings)),
        Some(Command::Load(settings)) => on_one_thread(load::run(settings)),
        Some(Command::Part(part)) => match part {
            Part::Bare { listen } => on_all_threads(floor::bare(listen)),
            Part::FloorDecider { listen, lean } => as_floor(lean, floor::decider(listen)),
            Part::FloorGateway(settings) => as_floor(settings.lean, floor::gateway(settings)),
            Part::Sink { listen } => on_all_threads(sink::run(listen)),
            Part::Attackers(settings) => on_one_thread(attack::attackers(settings)),
        },
    }
}

/// The driver: one thread asks all the questions, so that the other core is left to those who answer.
fn on_one_thread(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, work)
}

/// The floor as anybody would run it, or on one thread, as importguard runs.
fn as_floor(lean: bool, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    if !lean {
        return on_all_threads(work);
    }
    let threads = NonZeroUsize::MIN;
    block_on(ThreadSettings { threads }, work)?
}

/// As `#[tokio::main]` does.
fn on_all_threads(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
