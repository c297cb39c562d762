use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// Counts by name within a sliding window. Older entries are removed.
pub struct Window {
    length: Duration,
    times: VecDeque<(Instant, String)>,
    counts: HashMap<String, usize>,
}

impl Window {
    pub fn new(length: Duration) -> Self {
        Self {
            length,
            times: VecDeque::new(),
            counts: HashMap::new(),
        }
    }

    pub fn length(&self) -> Duration {
        self.length
    }

    /// Adds one for `name` and returns its count.
    pub fn count(&mut self, name: &str) -> usize {
        let now = Instant::now();
        self.forget(now);
        self.times.push_back((now, name.to_owned()));
        let count = self.counts.entry(name.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn forget(&mut self, now: Instant) {
        while let Some((time, _)) = self.times.front()
            && now.duration_since(*time) > self.length
        {
            if let Some((_, name)) = self.times.pop_front()
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

    #[test]
    fn it_counts_by_name_and_forgets() {
        let mut window = Window::new(Duration::from_secs(60));
        assert_eq!(
            [window.count("a"), window.count("b"), window.count("a")],
            [1, 1, 2]
        );
        window.forget(Instant::now() + Duration::from_secs(61));
        assert!(window.counts.is_empty() && window.times.is_empty());
        assert_eq!(window.count("a"), 1);
    }
}
