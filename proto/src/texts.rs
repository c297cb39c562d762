use std::fmt;

/// Texts in one block of memory, one behind the other: ten thousand ids are two allocations instead of ten thousand.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Texts {
    all: String,
    /// Where in `all` each one ends.
    ends: Vec<usize>,
}

impl Texts {
    /// Appends one.
    #[inline]
    pub fn push(&mut self, text: &str) {
        self.all.push_str(text);
        self.ends.push(self.all.len());
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The one at `index`, from 0.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let before = index.checked_sub(1);
        let start = before.map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.all.get(start..end)
    }

    /// Each, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        let (mut rest, mut start) = (self.all.as_str(), 0);
        self.ends.iter().map(move |&end| {
            // Every end is one of a text that was appended whole.
            let (text, after) = rest.split_at_checked(end - start).unwrap_or_default();
            (rest, start) = (after, end);
            text
        })
    }

    /// All of them as one text, without anything in between.
    pub fn joined(&self) -> &str {
        &self.all
    }
}

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<S: AsRef<str>> FromIterator<S> for Texts {
    fn from_iter<I: IntoIterator<Item = S>>(texts: I) -> Self {
        let mut all = Self::default();
        for text in texts {
            all.push(text.as_ref());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_comes_back_as_it_was_appended() {
        let given = ["a", "", "ü", "bc", ""];
        let texts: Texts = given.into_iter().collect();
        assert_eq!(texts.len(), 5);
        assert!(texts.iter().eq(given));
        for (index, text) in given.into_iter().enumerate() {
            assert_eq!(texts.get(index), Some(text));
        }
        assert_eq!(texts.get(5), None);
        assert_eq!(texts.joined(), "aübc");
        assert_eq!(format!("{texts:?}"), r#"["a", "", "ü", "bc", ""]"#);
    }

    #[test]
    fn texts_are_equal_if_each_is() {
        let texts = |all: &[&str]| all.iter().collect::<Texts>();
        assert_eq!(texts(&["a", "b"]), texts(&["a", "b"]));
        assert_ne!(texts(&["a", "b"]), texts(&["ab"]));
        assert_ne!(texts(&["a", "b"]), texts(&["a", "b", ""]));
        assert!(texts(&[]).is_empty());
    }
}
