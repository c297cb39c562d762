//! How fast importguard is, as ratios to two floors measured in the same run. `bench/README.md` has the method and the last
//! figures.

mod cli;
mod compare;
mod durability;
mod floor;
mod lists;
mod load;
mod measure;
mod operations;
mod system;
mod table;
mod usage;

use std::future::Future;

use clap::Parser;
use cli::{Cli, Command, Part};
use importguard_runtime::{ThreadSettings, block_on};

// The same allocator as importguard's, so that the floor has no worse one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        None => on_one_thread(compare::run(cli.compare)),
        Some(Command::Scale(settings)) => on_one_thread(operations::scale(settings)),
        Some(Command::Drain(settings)) => on_one_thread(operations::drain(settings)),
        Some(Command::Durability(settings)) => on_one_thread(durability::run(settings)),
        Some(Command::Lists(settings)) => on_one_thread(lists::run(settings)),
        Some(Command::Overload(settings)) => on_one_thread(operations::overload(settings)),
        Some(Command::Part(part)) => match part {
            Part::FloorDecider { listen, lean } => as_floor(lean, floor::decider(listen)),
            Part::FloorGateway(settings) => as_floor(settings.lean, floor::gateway(settings)),
            Part::Changes(settings) => as_floor(true, lists::change(settings)),
            Part::Sink { listen } => as_floor(false, floor::sink(listen)),
        },
    }
}

/// The client: one thread sends every request, so that the other core is left to the systems under test.
fn on_one_thread(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, work)
}

/// The plain floor on all threads, the lean one on importguard's own runtime with one thread.
fn as_floor(lean: bool, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    if !lean {
        return tokio::runtime::Runtime::new()?.block_on(work);
    }
    block_on(ThreadSettings::ONE, work)?
}
