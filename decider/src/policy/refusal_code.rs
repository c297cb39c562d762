/// An `errCode` that a policy may use: 5000–9999, the range that OpenIM reserves for callbacks, except 5900–5999, which are
/// importguard's own failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RefusalCode(i32);

impl RefusalCode {
    /// `code`, if a policy may use it.
    pub(super) fn new(code: i64) -> Option<Self> {
        match code {
            5000..=5899 | 6000..=9999 => i32::try_from(code).ok().map(Self),
            _ => None,
        }
    }

    /// The number sent to OpenIM.
    pub(super) fn get(self) -> i32 {
        self.0
    }

    /// The default of `nobodyLeft`.
    pub(super) const NOBODY_LEFT: Self = Self(5002);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_may_give_openims_codes_without_importguards_own() {
        for valid in [5000, 5002, 5899, 6000, 9999] {
            assert_eq!(
                RefusalCode::new(valid).map(RefusalCode::get).map(i64::from),
                Some(valid)
            );
        }
        for invalid in [i64::MIN, -5000, 0, 4999, 5900, 5999, 10_000, i64::MAX] {
            assert_eq!(RefusalCode::new(invalid), None, "{invalid}");
        }
    }
}
