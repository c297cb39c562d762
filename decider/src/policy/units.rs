//! The unit of cost, costs in it, the meter that ends an evaluation, and the budget that the shadow rules of a request share.

use importguard_core::{OperationId, UserId};

use crate::lists::Ids;

/// Nanoseconds per unit: a look-up in a list takes 9, comparing with 4 prefixes 11, and `==` in an expression 9 to 11. A unit
/// of a loop takes 3 to 7, as the estimate assumes that all of it is evaluated.
pub const NANOS_PER_UNIT: u64 = 10;

/// The maximum cost of evaluating one expression once, in units: 2 ms, as that cannot be interrupted.
pub(super) const MAX_EVALUATION: u64 = 2_000_000 / NANOS_PER_UNIT;

/// The interval at which an evaluation checks whether to stop, in units: 100 µs, against which the 50 ns of reading a clock
/// are negligible.
pub(super) const CHECK_EVERY: u64 = 100_000 / NANOS_PER_UNIT;

/// Hashing a friend's ID and checking for a duplicate.
pub(super) const PREPARE: Cost = Cost { fixed: 1, texts: 1 };

/// Folding an ID for one look-up in a list with `fold`: 80 ns and more for 64 bytes of ASCII, 640 to 760 ns for letters of other
/// alphabets that all change their case.
pub(super) const FOLD: Cost = Cost {
    fixed: 5,
    texts: 72,
};

/// The cost of one look-up in a list by hash.
pub(super) const LOOK_UP: Cost = Cost { fixed: 1, texts: 0 };

/// The additional cost of each state in which matching 64 bytes may be if the automaton outgrows its cache: 5 to 10 ns per byte.
pub(super) const SIMULATED: u64 = 64;

/// The additional cost of one look-up in a live list: its entries are spread over four levels of memory, and take up to 300 ns to reach in
/// a list of a million entries that has not been accessed before.
const LIVE: Cost = Cost {
    fixed: 10,
    texts: 0,
};

/// The length of the longest ID in a request, in bytes. What a policy may cost is judged by it, as callers choose their IDs; the cost of a
/// request uses the real lengths.
pub(super) const MAX_ID_BYTES: usize = if UserId::MAX_BYTES > OperationId::MAX_BYTES {
    UserId::MAX_BYTES
} else {
    OperationId::MAX_BYTES
};

/// How many bytes of a string one unit reads or copies.
const BYTES_PER_UNIT: u64 = 64;

/// The cost of one evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cost {
    /// Units that do not depend on the length of IDs.
    pub(super) fixed: u64,
    /// How many times the longest ID of the request is read or copied.
    pub(super) texts: u64,
}

impl Cost {
    /// The units if the longest ID has `longest` bytes.
    #[inline]
    pub(super) fn units(self, longest: usize) -> u64 {
        self.fixed.saturating_add(self.by_bytes(longest as u64))
    }

    /// The units for `count` evaluations over strings of `bytes` in total.
    pub(super) fn units_of_all(self, count: usize, bytes: u64) -> u64 {
        let fixed = self.fixed.saturating_mul(count as u64);
        fixed.saturating_add(self.by_bytes(bytes))
    }

    fn by_bytes(self, bytes: u64) -> u64 {
        self.texts.saturating_mul(bytes) / BYTES_PER_UNIT
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            fixed: self.fixed.saturating_add(other.fixed),
            texts: self.texts.saturating_add(other.texts),
        }
    }

    pub(super) fn times(self, times: u64) -> Self {
        Self {
            fixed: self.fixed.saturating_mul(times),
            texts: self.texts.saturating_mul(times),
        }
    }
}

/// Counts the cost of an evaluation and regularly checks whether to stop it, with an error of type `E` that ends the whole evaluation.
pub(super) struct Meter<'c, E> {
    should_stop: &'c mut dyn FnMut() -> Result<(), E>,
    unchecked: u64,
}

impl<'c, E> Meter<'c, E> {
    /// `should_stop` is called before the first unit, so that a request past its deadline is not evaluated at all.
    pub(super) fn new(should_stop: &'c mut dyn FnMut() -> Result<(), E>) -> Self {
        Self {
            should_stop,
            unchecked: CHECK_EVERY,
        }
    }

    /// Call this before an operation that costs `units`.
    #[inline]
    pub(super) fn spend(&mut self, units: u64) -> Result<(), E> {
        self.unchecked = self.unchecked.saturating_add(units);
        if self.unchecked < CHECK_EVERY {
            return Ok(());
        }
        self.unchecked = 0;
        (self.should_stop)()
    }
}

/// The rest of a budget in units; `None` is unlimited.
pub(super) struct Budget(Option<u64>);

impl Budget {
    pub(super) const fn unlimited() -> Self {
        Self(None)
    }

    pub(super) const fn of(units: u64) -> Self {
        Self(Some(units))
    }

    /// Takes the units, or takes nothing and fails if too few are left. The units are computed only if there is a limit.
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

/// The remaining budget of shadow rules is too small for a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OverBudgetError {
    /// The cost of the rule, in units.
    pub(super) cost: u64,
    /// The rest of the budget, in units.
    pub(super) left: u64,
}

/// The cost of a look-up in `list` in addition to [`LOOK_UP`]: folding the ID, its live entries, and its exceptions.
pub(super) fn beside_look_up(list: &Ids) -> Cost {
    let folding = match list.fold().is_none() {
        true => Cost::default(),
        false => FOLD,
    };
    let live = match list.live() {
        None => Cost::default(),
        Some(_) => LIVE,
    };
    let except = list
        .except()
        .map_or_else(Cost::default, |except| LOOK_UP.plus(beside_look_up(except)));
    folding.plus(live).plus(except)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_before_the_first_unit_and_then_at_each_interval() {
        let mut asked = 0;
        let mut count = || {
            asked += 1;
            Ok::<(), ()>(())
        };
        let mut meter = Meter::new(&mut count);
        meter.spend(0).unwrap();
        for _ in 0..CHECK_EVERY * 3 - 1 {
            meter.spend(1).unwrap();
        }
        assert_eq!(asked, 3);
    }

    #[test]
    fn checks_before_each_operation_above_the_interval() {
        let mut asked = 0;
        let mut second = || {
            asked += 1;
            if asked == 2 { Err("stop") } else { Ok(()) }
        };
        let mut meter = Meter::new(&mut second);
        meter.spend(u64::MAX).unwrap();
        assert_eq!(meter.spend(u64::MAX), Err("stop"));
    }
}
