use std::{fmt::Debug, hash::Hash, ops::Deref};

use prometheus_client::{
    encoding::{EncodeLabelValue, EncodeMetric},
    metrics::{TypedMetric, family::Family},
    registry::Registry,
};

use super::{register, with_series};

/// The name of the label, and a value.
type Labels<V> = [(&'static str, V); 1];

/// Metrics that differ in one label.
#[derive(Clone, Debug)]
pub struct ByLabel<V, M> {
    label: &'static str,
    family: Family<Labels<V>, M, fn() -> M>,
}

impl<V, M> ByLabel<V, M>
where
    V: Clone + Debug + Eq + Hash + EncodeLabelValue + Send + Sync + 'static,
    M: Debug + EncodeMetric + TypedMetric + Send + Sync + 'static,
{
    /// Registers a metric, made by `new`, for each of `values` of `label`, as [`with_series`] does. `name` and `help` are as in
    /// [`register`].
    pub fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        new: fn() -> M,
        label: &'static str,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        let values = values.into_iter().map(|value| [(label, value)]);
        let family = with_series(Family::new_with_constructor(new), values);
        Self {
            label,
            family: register(registry, name, help, family),
        }
    }

    /// The metric for `value`.
    pub fn get(&self, value: V) -> impl Deref<Target = M> {
        self.family.get_or_create(&[(self.label, value)])
    }
}
