use std::collections::{HashSet, VecDeque};

/// Remembers the last IDs. NATS delivers at least once; all copies of an event have the same ID.
pub struct Once {
    ids: HashSet<String>,
    order: VecDeque<String>,
    most: usize,
}

impl Once {
    /// Remembers the last `most` IDs.
    pub fn remembering(most: usize) -> Self {
        Self {
            ids: HashSet::new(),
            order: VecDeque::new(),
            most,
        }
    }

    pub fn contains(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    pub fn insert(&mut self, id: String) {
        if self.ids.insert(id.clone()) {
            self.order.push_back(id);
        }
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_remembers_the_last_ones() {
        let mut once = Once::remembering(2);
        for id in ["a", "b", "b", "c"] {
            once.insert(id.to_owned());
        }
        assert!(!once.contains("a") && once.contains("b") && once.contains("c"));
    }
}
