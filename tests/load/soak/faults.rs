/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    DeciderKilled,
    DeciderFrozen,
    NatsFrozen,
    NatsKilled,
    PolicyExchanged,
    PolicyBroken,
    CertificatesExchanged,
}

impl Fault {
    const ALL: [Self; 7] = [
        Self::DeciderKilled,
        Self::DeciderFrozen,
        Self::NatsFrozen,
        Self::NatsKilled,
        Self::PolicyExchanged,
        Self::PolicyBroken,
        Self::CertificatesExchanged,
    ];
}

/// All faults in some order, then all in another one, for ever.
pub(super) struct Faults {
    random: u64,
    left: Vec<Fault>,
}

impl Faults {
    pub(super) fn in_an_order_of(seed: u64) -> Self {
        Self {
            random: seed | 1,
            left: Vec::new(),
        }
    }

    pub(super) fn next(&mut self) -> Fault {
        if self.left.is_empty() {
            self.left = Fault::ALL.to_vec();
        }
        // Knuth's multiplier for 64 bits; the high bits are the random ones.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let index = (self.random >> 33) as usize % self.left.len();
        self.left.swap_remove(index)
    }
}
