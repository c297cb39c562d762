use std::{borrow::Cow, fmt};

/// The differences between IDs that a list ignores. By default, IDs are compared byte by byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fold {
    /// Upper and lower case: each character is replaced by Unicode's lower-case mapping (`Lowercase_Mapping` without the conditions
    /// that depend on a language or on adjacent characters), so that σ and ς, or ß and ss, stay different.
    pub case: bool,
    /// White space: every character with Unicode's property `White_Space` is removed, wherever it is.
    pub space: bool,
}

impl Fold {
    /// Whether IDs are compared byte by byte.
    #[inline]
    pub fn is_none(self) -> bool {
        !self.case && !self.space
    }

    /// Returns the ID without the ignored differences. Allocates only if that changes the ID.
    pub fn apply(self, id: &str) -> Cow<'_, str> {
        // Fast path: nearly every ID is ASCII.
        if id.is_ascii() {
            return self.apply_ascii(id);
        }
        let changed = id.char_indices().find(|&(_, c)| !self.keeps(c));
        let Some((at, _)) = changed else {
            return Cow::Borrowed(id);
        };
        let (kept, rest) = id.split_at(at);
        let mut folded = String::with_capacity(id.len());
        folded.push_str(kept);
        for c in rest.chars() {
            if self.space && c.is_whitespace() {
                continue;
            }
            match self.case {
                true => folded.extend(c.to_lowercase()),
                false => folded.push(c),
            }
        }
        Cow::Owned(folded)
    }

    fn apply_ascii(self, id: &str) -> Cow<'_, str> {
        // No short-circuiting, so that the compiler can test many bytes at a time.
        let any = |test: fn(u8) -> bool| id.bytes().fold(false, |any, byte| any | test(byte));
        let mut folded = Cow::Borrowed(id);
        if self.space && any(is_ascii_space) {
            folded = id.split(char::is_whitespace).collect();
        }
        if self.case && any(|byte| byte.is_ascii_uppercase()) {
            folded.to_mut().make_ascii_lowercase();
        }
        folded
    }

    /// Whether folding leaves the character unchanged.
    #[inline]
    fn keeps(self, c: char) -> bool {
        if self.space && c.is_whitespace() {
            return false;
        }
        !self.case || c.to_lowercase().eq([c])
    }
}

/// The bytes of ASCII with the property `White_Space`.
fn is_ascii_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

impl fmt::Display for Fold {
    /// Formats the keywords as in a policy, without brackets: `case, space`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.case, self.space) {
            (true, true) => "case, space",
            (true, false) => "case",
            (false, true) => "space",
            (false, false) => "",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: Fold = Fold {
        case: true,
        space: false,
    };
    const SPACE: Fold = Fold {
        case: false,
        space: true,
    };

    #[test]
    fn case_is_that_of_every_alphabet_one_character_at_a_time() {
        for (id, folded) in [
            ("User_1", "user_1"),
            ("MÜLLER", "müller"),
            ("ИВАН", "иван"),
            ("ΟΔΟΣ", "οδοσ"),
            ("ς", "ς"),
            ("STRASSE", "strasse"),
            ("straße", "straße"),
            ("\u{212a}elvin", "kelvin"),
            ("İ", "i\u{307}"),
            ("用户 1", "用户 1"),
        ] {
            assert_eq!(CASE.apply(id), folded);
        }
    }

    #[test]
    fn space_is_removed_wherever_it_is() {
        assert_eq!(SPACE.apply(" us er\t1\u{a0}\u{3000}"), "user1");
        assert_eq!(SPACE.apply(" User"), "User");
        assert_eq!(SPACE.apply(" \n"), "");
        let both = Fold {
            case: true,
            space: true,
        };
        assert_eq!(both.apply(" Us er"), "user");
    }

    #[test]
    fn an_id_that_folding_does_not_change_is_not_copied() {
        for id in ["", "user_1", "müller", "用户1"] {
            assert!(matches!(CASE.apply(id), Cow::Borrowed(_)), "{id}");
            assert!(matches!(SPACE.apply(id), Cow::Borrowed(_)), "{id}");
        }
        assert!(matches!(Fold::default().apply("A b"), Cow::Borrowed(_)));
    }
}
