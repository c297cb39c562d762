//! What the demonstration prints.

use std::{
    cell::Cell,
    io::{self, Write},
};

use super::imports::Import;
use crate::{
    events::{Delivered, Event},
    output,
    tail::Lines,
};

/// Prints the parts of the demonstration between decisions.
#[derive(Clone, Copy)]
pub(super) struct Screen {
    coloured: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let coloured = output::is_coloured();
        Self { coloured }
    }

    /// Prints lines as they are.
    pub(super) fn print(self, text: &str) -> io::Result<()> {
        let mut out = output::stdout();
        writeln!(out, "{text}")?;
        out.flush()
    }

    /// Prints what happens next.
    pub(super) fn announce(self, text: &str) -> io::Result<()> {
        let (on, off) = self.paint("\x1b[1;36m");
        self.print(&format!("{on}── {text}{off}"))
    }

    /// Prints the result: green if `well`, otherwise red.
    pub(super) fn conclude(self, well: bool, text: &str) -> io::Result<()> {
        let (on, off) = self.paint(if well { "\x1b[1;32m" } else { "\x1b[1;31m" });
        self.print(&format!("{on}{text}{off}"))
    }

    /// Prints an answer whose event is still in the spool, or that there was no answer.
    pub(super) fn spooled(self, import: &Import, answer: Result<&str, &String>) -> io::Result<()> {
        let (on, off) = self.paint("\x1b[2m");
        let Import {
            owner,
            operation_id,
            ..
        } = import;
        let what = match answer {
            Ok(verdict) => format!("answered, event in the spool: {verdict:8}"),
            Err(error) => format!("NOT ANSWERED ({error}):"),
        };
        self.print(&format!("{on}{what}  {owner:18}  {operation_id}{off}"))
    }

    fn paint(self, on: &'static str) -> (&'static str, &'static str) {
        if self.coloured {
            (on, "\x1b[0m")
        } else {
            ("", "")
        }
    }
}

/// Prints decisions as subscribers see them.
pub(super) struct Decisions<'a> {
    lines: Lines,
    screen: Screen,
    shown: &'a Cell<usize>,
}

impl<'a> Decisions<'a> {
    /// Prints to `screen`, and counts the decisions in `shown`.
    pub(super) fn new(screen: Screen, shown: &'a Cell<usize>) -> Self {
        let lines = Lines::for_stdout();
        Self {
            lines,
            screen,
            shown,
        }
    }

    /// Prints an event.
    pub(super) fn show(&mut self, delivered: &Delivered<'_>) -> anyhow::Result<Option<u64>> {
        let event: Event = serde_json::from_slice(delivered.payload)?;
        if self.shown.get() == 0
            && let Some(header) = self.lines.header()
        {
            self.screen.print(&header)?;
        }
        self.shown.set(self.shown.get() + 1);
        self.screen.print(&self.lines.line(&event))?;
        Ok(None)
    }
}
