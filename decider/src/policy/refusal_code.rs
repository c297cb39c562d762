/// An `errCode` that a policy may give: 5000–9999, as OpenIM reserves for callbacks, without 5900–5999, which tell of
/// importguard's own failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RefusalCode(i32);

impl RefusalCode {
    /// `code`, if a policy may give it.
    pub(super) fn new(code: i64) -> Option<Self> {
        match code {
            5000..=5899 | 6000..=9999 => i32::try_from(code).ok().map(Self),
            _ => None,
        }
    }

    /// The number as OpenIM gets it.
    pub(super) fn get(self) -> i32 {
        self.0
    }

    /// For `nobodyLeft`, where a policy does not say otherwise.
    pub(super) const NOBODY_LEFT: Self = Self(5002);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_may_give_openims_codes_without_importguards_own() {
        for good in [5000, 5002, 5899, 6000, 9999] {
            assert_eq!(
                RefusalCode::new(good).map(RefusalCode::get).map(i64::from),
                Some(good)
            );
        }
        for bad in [i64::MIN, -5000, 0, 4999, 5900, 5999, 10_000, i64::MAX] {
            assert_eq!(RefusalCode::new(bad), None, "{bad}");
        }
    }
}
