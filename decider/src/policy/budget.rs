//! The budget that the shadow rules of a request share.

/// The rest of a budget in units; None is unlimited.
pub(super) struct Budget(Option<u64>);

impl Budget {
    pub(super) const fn unlimited() -> Self {
        Self(None)
    }

    pub(super) const fn of(units: u64) -> Self {
        Self(Some(units))
    }

    /// Takes the units, or none if the rest does not suffice. They are computed only if there is a limit.
    pub(super) fn take(&mut self, units: impl FnOnce() -> u64) -> Result<(), OverBudgetError> {
        let Some(left) = &mut self.0 else {
            return Ok(());
        };
        let cost = units();
        match left.checked_sub(cost) {
            Some(rest) => {
                *left = rest;
                Ok(())
            }
            None => Err(OverBudgetError { cost, left: *left }),
        }
    }
}

/// The budget of shadow rules does not suffice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OverBudgetError {
    /// The cost of the rule, in units.
    pub(super) cost: u64,
    /// The rest of the budget, in units.
    pub(super) left: u64,
}
