use prometheus::{IntGaugeVec, Opts};

/// `importguard_policy_info`, which both pods have: the policies that whoever is `at` knows of. To be registered.
pub fn policy_info(at: &'static str) -> prometheus::Result<IntGaugeVec> {
    // Both are in one registry where both pods are one process: then all but the constant label must be the same.
    let opts = Opts::new(
        "importguard_policy_info",
        "1 for each policy by name and digest: the one in force at a decider, those by which a gateway's callbacks were decided in the last 5 minutes.",
    );
    IntGaugeVec::new(opts.const_label("at", at), &["name", "digest"])
}
