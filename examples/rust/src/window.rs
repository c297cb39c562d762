use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Counts by name within a sliding window of the events' own time, so that old events, read late, raise no alert.
pub struct Window {
    length: Duration,
    newest: SystemTime,
    times: BinaryHeap<Reverse<(SystemTime, String)>>,
    counts: HashMap<String, usize>,
}

impl Window {
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            newest: UNIX_EPOCH,
            times: BinaryHeap::new(),
            counts: HashMap::new(),
        }
    }

    pub fn length(&self) -> Duration {
        self.length
    }

    /// Adds one for `name` at the time `at` and returns its count; 0 if that was before the window.
    pub fn count(&mut self, name: &str, at: SystemTime) -> usize {
        // A clock that is ahead must not make all other events old.
        self.newest = self.newest.max(at.min(SystemTime::now()));
        let start = self.newest.checked_sub(self.length).unwrap_or(UNIX_EPOCH);
        self.forget_before(start);
        if at < start {
            return 0;
        }
        self.times.push(Reverse((at, name.to_owned())));
        let count = self.counts.entry(name.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn forget_before(&mut self, start: SystemTime) {
        while let Some(Reverse((time, _))) = self.times.peek()
            && *time < start
        {
            if let Some(Reverse((_, name))) = self.times.pop()
                && let Some(count) = self.counts.get_mut(&name)
            {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_764_374_400 + seconds)
    }

    #[test]
    fn it_counts_by_name_and_forgets() {
        let mut window = Window::new(Duration::from_secs(60));
        assert_eq!(
            [
                window.count("a", at(0)),
                window.count("b", at(1)),
                window.count("a", at(2)),
                window.count("a", at(61)),
            ],
            [1, 1, 2, 2]
        );
        assert_eq!(window.count("c", at(200)), 1);
        assert_eq!((window.times.len(), window.counts.len()), (1, 1));
    }

    #[test]
    fn the_order_of_arrival_does_not_matter_within_the_window() {
        let mut window = Window::new(Duration::from_secs(60));
        let times = [30, 20, 50, 0].map(at);
        assert_eq!(times.map(|at| window.count("a", at)), [1, 2, 3, 4]);
        window.count("a", at(100));
        assert_eq!(window.count("a", at(39)), 0);
    }

    #[test]
    fn a_clock_that_is_ahead_makes_no_other_events_old() {
        let mut window = Window::new(Duration::from_secs(60));
        let now = SystemTime::now();
        window.count("a", now + Duration::from_secs(3600));
        assert_eq!(window.count("b", now), 1);
    }
}
