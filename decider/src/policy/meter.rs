//! How an evaluation is stopped.

use super::cost::CHECK_EVERY;

/// Counts what an evaluation costs and asks again and again whether it is to stop. It stops by an error of type `E`, which
/// ends the evaluation as a whole.
pub(super) struct Meter<'c, E> {
    should_stop: &'c mut dyn FnMut() -> Result<(), E>,
    unchecked: u64,
}

impl<'c, E> Meter<'c, E> {
    /// Asks `should_stop` at the first cost already: who comes too late is not evaluated at all.
    pub(super) fn new(should_stop: &'c mut dyn FnMut() -> Result<(), E>) -> Self {
        Self {
            should_stop,
            unchecked: CHECK_EVERY,
        }
    }

    /// To be called before something that costs so many units.
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
    fn it_asks_at_the_first_cost_and_then_once_for_so_much() {
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
    fn it_asks_before_each_thing_that_costs_more() {
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
