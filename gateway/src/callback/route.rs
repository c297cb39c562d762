use importguard_proto::event::Dialect;
use importguard_telemetry::metrics::Label;

use super::{Command, Rejection};

/// What spans and metrics call a request: its callback's name, or "other". Never its path, which may hold a secret, or anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route(Option<Command>);

impl Route {
    /// The route of what was recognised.
    pub(crate) fn of(command: &Result<Command, Rejection>) -> Self {
        Self(command.as_ref().ok().copied())
    }
}

impl Label for Route {
    const ALL: &'static [Self] = &[
        Self(Some(Command::BeforeImport(Dialect::Documented))),
        Self(Some(Command::BeforeImport(Dialect::Server))),
        Self(Some(Command::AfterImport)),
        Self(None),
    ];

    fn index(self) -> usize {
        match self.0 {
            Some(Command::BeforeImport(Dialect::Documented)) => 0,
            Some(Command::BeforeImport(Dialect::Server)) => 1,
            Some(Command::AfterImport) => 2,
            None => 3,
        }
    }

    fn text(self) -> &'static str {
        self.0.map_or("other", Command::name)
    }
}
