//! Callers who hold on to connections and ask for answers that they don't take, and what honest ones and the gateway's memory notice
//! of them.

mod attackers;
mod honest;
mod table;

use std::{
    fs, io,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum, builder::RangedU64ValueParser};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::time::sleep;

pub(crate) use self::attackers::{AttackersSettings, attackers};
use self::{
    honest::{Honest, honest},
    table::{figures, lines},
};
use crate::{
    cli::{SetUp, Traces},
    line::result,
    load::{Expected, Question, counted},
    machine,
    measure::verify,
    process::{Memory, forget_peak},
    system::{Options, Place, Role},
    table::{print, progress},
};

/// What the gateway is asked before its memory is called that at rest: enough for each of its buffers to have been in use.
const WARMING_UP: u64 = 5_000;

/// How long a gateway is left alone before its memory is read.
const REST: Duration = Duration::from_secs(3);

/// How long the attackers have before honest callers ask: 1,320 connections come a millisecond apart, and the 60 streams of a
/// connection within another 1.2 seconds.
const RAMP: Duration = Duration::from_secs(3);

/// By when the memory must be back, and at which share of that at rest.
const RECOVERY: Duration = Duration::from_secs(30);
const BACK: f64 = 1.3;

/// How often it is looked whether it is.
const GLANCE: Duration = Duration::from_millis(250);

/// The attackers' 1,320 connections, the honest ones and the processes' own, twice over.
const OPEN_FILES: u64 = 3_000;

#[derive(Args, Clone, Debug)]
pub(crate) struct AttackSettings {
    /// Which attacks, comma-separated, each on processes of its own
    #[arg(
        long,
        value_name = "ATTACK,…",
        value_delimiter = ',',
        default_value = "silent,trickle,window-0,window-1,window-65535,unread,all"
    )]
    only: Vec<Attack>,

    /// How many times everything is measured, one after the other; medians count, and the fewest verdicts
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=101))]
    rounds: usize,

    #[command(flatten)]
    set_up: SetUp,
}

/// What is done to the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attack {
    /// 1,000 connections without a word
    Silent,
    /// 200 connections with a body that comes byte by byte
    Trickle,
    /// 60 HTTP/2 connections with 60 streams each, whose answers may not have a byte
    #[value(name = "window-0")]
    Window0,
    /// The same, whose answers may have one byte each
    #[value(name = "window-1")]
    Window1,
    /// The same, whose answers may have 65,535 bytes for each connection
    #[value(name = "window-65535")]
    Window65535,
    /// 60 HTTP/1.1 connections that ask on and on, and read nothing
    Unread,
    /// All of these at once, with 20 HTTP/2 connections of each window
    All,
}

/// One attack on one gateway.
struct Round {
    /// Without the attack, and beside it.
    calm: Honest,
    beside: Honest,
    /// The gateway's memory at rest, in MiB.
    rest: f64,
    /// The most that it had over that during the attack.
    over: f64,
    /// What it had last, as a share of that at rest: once it was back, or 30 seconds after the attack.
    after: f64,
    /// How long after the attack it was back.
    back: Option<Duration>,
    /// How many files the gateway had open at the attack's end, over those at rest: connections that were held.
    held: f64,
    /// Connections and streams that the attackers opened again.
    again: f64,
}

/// Runs the attacks and prints the tables.
pub(crate) async fn run(settings: AttackSettings) -> anyhow::Result<()> {
    allow_open_files()?;
    let (mut place, _dir) = Place::new(&settings.set_up)?;
    print(machine::describe())?;
    let mut found: Vec<(Attack, Vec<Round>)> =
        settings.only.iter().map(|only| (*only, vec![])).collect();
    for number in 1..=settings.rounds {
        for (attack, rounds) in &mut found {
            let name = attack.name();
            progress(format!("{name}: round {number} of {}", settings.rounds));
            rounds.push(round(&mut place, *attack, number).await?);
        }
    }
    print(figures(&found))?;
    print(result("under attack, 2 friends", &lines(&found)))?;
    Ok(())
}

async fn round(place: &mut Place, attack: Attack, number: usize) -> anyhow::Result<Round> {
    let name = attack.name();
    let options = Options::shipped(format!("{name}-{number}"), Traces::Off);
    let mut system = place.importguard(&options, None).await?;
    verify(&mut system).await?;
    let address = system.address;
    let gateway = system.process(Role::Gateway)?;
    let question = Question::new(address, 2, Expected::Allow);
    counted(address, &question, honest::CONNECTIONS, WARMING_UP).await?;
    let calm = honest(address).await?;
    ensure!(
        calm.right == honest::COUNT,
        "without an attack not all were answered: {:?}\n{}",
        calm.others,
        system.tails()
    );
    sleep(REST).await;
    let rest = Memory::of(gateway)?.now;
    let files = open_files(gateway)?;
    forget_peak(gateway)?;
    let part = format!("{name}-{number}-attackers");
    let listens = address.to_string();
    let arguments = ["attackers", "--address", &listens, "--attack", &name];
    let mut attackers = place.part(&part, &arguments)?;
    sleep(RAMP).await;
    let beside = honest(address).await?;
    // A process that ended, the gateway's or the attackers', is no result.
    system.still_runs()?;
    attackers.still_runs()?;
    let over = Memory::of(gateway)?.peak - rest;
    let held = open_files(gateway)?.saturating_sub(files) as f64;
    let said = attackers.tail();
    drop(attackers);
    let ended = Instant::now();
    let (after, back) = loop {
        let (after, since) = (Memory::of(gateway)?.now / rest, ended.elapsed());
        if after <= BACK {
            break (after, Some(since));
        }
        if since >= RECOVERY {
            break (after, None);
        }
        sleep(GLANCE).await;
    };
    system.still_runs()?;
    if !beside.others.is_empty() {
        progress(format!("{name}: instead of a verdict {:?}", beside.others));
    }
    let again = said.lines().last().and_then(|last| last.parse().ok());
    Ok(Round {
        calm,
        beside,
        rest,
        over,
        after,
        back,
        held,
        again: again.context("the attackers say nothing")?,
    })
}

impl Attack {
    /// As it is written on the command line.
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

fn open_files(id: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{id}/fd"))?.count())
}

/// Raises the limit on open files, which the processes that are started inherit: the gateway's own and the attackers' too.
fn allow_open_files() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    let enough = |limit: Option<u64>| limit.is_none_or(|limit| limit >= OPEN_FILES);
    if enough(limit.current) {
        return Ok(());
    }
    ensure!(
        enough(limit.maximum),
        "an attack needs {OPEN_FILES} open files: raise the hard limit (ulimit -Hn)"
    );
    limit.current = Some(OPEN_FILES);
    setrlimit(Resource::Nofile, limit).context("the limit on open files cannot be raised")
}
