//! Digests of policies and lists: they identify what a verdict is based on, and are comparable between processes.

use std::fmt::Write;

use sha2::{Digest as _, Sha256};

use crate::{ListRevision, PolicyRevision};

/// Returns the digest of `content` as it appears in revisions of policies and lists: `sha256:` and 64 hex digits.
pub fn digest(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}

/// Returns the digest of a policy with its lists: it covers the policy's file, and the name and content of each list, in the policy's
/// order. Two deciders with the same digest give the same verdicts, as long as the entries of their live lists are the same.
///
/// It is the digest of the line `policy DIGEST` followed by a line `list NAME DIGEST` for each list, so that a shell can compute it.
pub fn content_digest<'l>(
    policy: &PolicyRevision,
    lists: impl IntoIterator<Item = &'l ListRevision>,
) -> String {
    let mut manifest = format!("policy {}\n", policy.digest);
    for list in lists {
        // Writing into a String cannot fail.
        let _ = writeln!(manifest, "list {} {}", list.name, list.digest);
    }
    digest(manifest.as_bytes())
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

    fn content(policy: &str, lists: &[(&str, &str)]) -> String {
        let policy = PolicyRevision {
            name: "default".to_owned(),
            digest: policy.to_owned(),
        };
        let lists = lists.iter().map(|(name, digest)| ListRevision {
            name: (*name).to_owned(),
            digest: (*digest).to_owned(),
            size: 1,
            revision: None,
        });
        content_digest(&policy, &lists.collect::<Vec<_>>())
    }

    #[test]
    fn a_content_digest_is_that_of_lines_with_the_digests_of_policy_and_lists() {
        assert_eq!(
            content("sha256:1", &[("blocked", "sha256:2")]),
            digest(b"policy sha256:1\nlist blocked sha256:2\n")
        );
    }

    #[test]
    fn a_content_digest_differs_with_the_policy_and_with_each_list() {
        let digests = [
            content("1", &[]),
            content("2", &[]),
            content("1", &[("a", "1")]),
            content("1", &[("a", "2")]),
            content("1", &[("b", "1")]),
            content("1", &[("a", "1"), ("b", "1")]),
        ];
        for (position, digest) in digests.iter().enumerate() {
            assert!(!digests[..position].contains(digest), "{position}");
        }
    }
}
