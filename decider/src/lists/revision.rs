use std::fmt::Write;

use sha2::{Digest as _, Sha256};

/// The digest of `content` in revisions of policies and lists: `sha256:` and 64 hex digits.
pub fn digest(content: &[u8]) -> String {
    let hash = Sha256::digest(content);
    let mut text = String::with_capacity("sha256:".len() + 2 * hash.len());
    text.push_str("sha256:");
    for byte in hash {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        assert_eq!(
            digest(b"abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
