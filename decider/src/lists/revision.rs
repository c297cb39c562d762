use std::fmt::{self, Write};

use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 hex digits: tells which content something was made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    /// The digest of `content`.
    pub fn of(content: &[u8]) -> Self {
        let hash = Sha256::digest(content);
        let mut text = String::with_capacity("sha256:".len() + 2 * hash.len());
        text.push_str("sha256:");
        for byte in hash {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// The digest as it goes into answers and events.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which content of a list a policy holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRevision {
    /// The list's name in the policy.
    pub name: String,
    /// The digest over the bytes of its file, or over its values one a line.
    pub digest: Digest,
    /// How many distinct ids it holds.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        assert_eq!(
            Digest::of(b"abc").as_str(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
