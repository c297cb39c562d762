use std::marker::PhantomData;

use importguard_core::{Cause, Mode, Outcome, VerdictKind};
use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::Family;

/// A family with one member for every value that its labels can take. All are there from the start, so that a rate knows of the
/// first one, and none is looked up by text while a callback waits.
#[derive(Clone, Debug)]
pub struct Each<F: Members, L> {
    family: F,
    /// In the order of [`Labels::all`].
    members: Vec<F::Member>,
    labels: PhantomData<fn(L)>,
}

impl<F: Members, L: Labels> Each<F, L> {
    /// The member for these labels.
    pub fn of(&self, labels: L) -> &F::Member {
        // There are as many as `all` gives, and `index` is a place in that.
        &self.members[labels.index()]
    }
}

/// What a label can say: the values of an enum.
pub trait Label: Copy + Send + Sync + 'static {
    /// Every value, in the order of their indexes.
    const ALL: &'static [Self];

    /// The value's place in [`Label::ALL`].
    fn index(self) -> usize;

    /// What the label says.
    fn text(self) -> &'static str;
}

/// The values of a family's labels.
pub trait Labels: Copy + Send + Sync + 'static {
    /// All that there can be.
    fn all() -> Vec<Self>;

    /// The place in [`Labels::all`].
    fn index(self) -> usize;

    /// What the labels say, in the family's order.
    fn texts(self) -> Vec<&'static str>;
}

impl<L: Label> Labels for L {
    fn all() -> Vec<Self> {
        L::ALL.to_vec()
    }

    fn index(self) -> usize {
        Label::index(self)
    }

    fn texts(self) -> Vec<&'static str> {
        vec![self.text()]
    }
}

impl<A: Label, B: Label> Labels for (A, B) {
    fn all() -> Vec<Self> {
        let pairs = A::ALL
            .iter()
            .flat_map(|&a| B::ALL.iter().map(move |&b| (a, b)));
        pairs.collect()
    }

    fn index(self) -> usize {
        self.0.index() * B::ALL.len() + self.1.index()
    }

    fn texts(self) -> Vec<&'static str> {
        vec![self.0.text(), self.1.text()]
    }
}

/// A family that has members by label.
pub trait Members: Family + Collector + Clone {
    /// One of them.
    type Member: Clone;

    /// The member with these labels, made if it is not there yet.
    fn member(&self, labels: &[&str]) -> Self::Member;
}

macro_rules! members {
    ($($family:ty: $member:ty,)+) => {$(
        impl Members for $family {
            type Member = $member;

            fn member(&self, labels: &[&str]) -> Self::Member {
                self.with_label_values(labels)
            }
        }
    )+};
}

members! {
    IntCounterVec: IntCounter,
    IntGaugeVec: IntGauge,
    HistogramVec: Histogram,
}

impl<F: Members, L: Labels> Family for Each<F, L> {
    fn new(
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: Option<&[f64]>,
    ) -> prometheus::Result<Self> {
        let family = F::new(name, help, labels, buckets)?;
        let members = L::all();
        let members = members
            .into_iter()
            .map(|labels| family.member(&labels.texts()));
        Ok(Self {
            members: members.collect(),
            family,
            labels: PhantomData,
        })
    }
}

impl<F: Members, L: Labels> Collector for Each<F, L>
where
    F::Member: Send + Sync,
{
    fn desc(&self) -> Vec<&Desc> {
        self.family.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.family.collect()
    }
}

macro_rules! event_labels {
    ($($kind:ty),+) => {$(
        impl Label for $kind {
            const ALL: &'static [Self] = &<$kind>::ALL;

            fn index(self) -> usize {
                self as usize
            }

            fn text(self) -> &'static str {
                self.as_str()
            }
        }
    )+};
}

event_labels!(VerdictKind, Cause, Mode, Outcome);

/// None at all, "" in the label, comes first.
impl Label for Option<Cause> {
    const ALL: &'static [Self] = &{
        let mut all = [None; Cause::ALL.len() + 1];
        let mut index = 0;
        while index < Cause::ALL.len() {
            all[index + 1] = Some(Cause::ALL[index]);
            index += 1;
        }
        all
    };

    fn index(self) -> usize {
        self.map_or(0, |cause| Label::index(cause) + 1)
    }

    fn text(self) -> &'static str {
        self.map_or("", Cause::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_own_place() {
        fn places<L: Labels>() {
            for (place, labels) in L::all().into_iter().enumerate() {
                assert_eq!(labels.index(), place, "{:?}", labels.texts());
            }
        }
        places::<VerdictKind>();
        places::<Cause>();
        places::<Option<Cause>>();
        places::<(VerdictKind, Option<Cause>)>();
        places::<(Mode, Outcome)>();
    }
}
