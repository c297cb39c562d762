//! Which causes of an outage were logged.

/// Maximum number of causes that are remembered: a lost connection has two or three.
const MAX_CAUSES: usize = 8;

/// The causes of an outage that were logged. A lost connection has several, which alternate, so each is logged once until the outage is
/// over.
#[derive(Clone, Debug, Default)]
pub struct LoggedCauses(Vec<String>);

impl LoggedCauses {
    /// Remembers the cause. Returns whether it must be logged.
    pub fn add(&mut self, cause: &str) -> bool {
        if self.0.iter().any(|logged| logged == cause) {
            return false;
        }
        if self.0.len() == MAX_CAUSES {
            self.0.remove(0);
        }
        self.0.push(cause.to_owned());
        true
    }

    /// Forgets all causes, because the outage is over.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_that_alternate_are_logged_once_until_the_outage_is_over() {
        let mut logged = LoggedCauses::default();
        let alternating = ["refused", "timed out", "refused", "timed out"];
        assert_eq!(
            alternating.map(|cause| logged.add(cause)),
            [true, true, false, false]
        );
        logged.clear();
        assert!(logged.add("refused"));
    }

    #[test]
    fn the_oldest_of_many_causes_is_forgotten() {
        let mut logged = LoggedCauses::default();
        for number in 0..=MAX_CAUSES {
            assert!(logged.add(&number.to_string()));
        }
        assert_eq!(logged.0.len(), MAX_CAUSES);
        assert!(!logged.add("1"));
        assert!(logged.add("0"));
    }
}
