//! Stopping an evaluation.

use super::units::CHECK_EVERY;

/// Counts the cost of an evaluation and regularly checks whether to stop it, by an error of type `E` that ends the whole
/// evaluation.
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
