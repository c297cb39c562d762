//! The unit of cost, and costs in it.

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

/// Folding an ID for one look-up in a list with `fold`: 80 ns and more for 64 bytes of ASCII, 640 to 760 ns where each character
/// has another case in another alphabet.
pub(super) const FOLD: Cost = Cost {
    fixed: 5,
    texts: 72,
};

/// The assumed length of an ID before a request is known, in bytes: four times the length that lists are sized for. The cost of
/// a request uses the real lengths.
pub(super) const ASSUMED_ID_BYTES: usize = 64;

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
