//! Percentiles of latencies, medians of rounds.

use serde::Serialize;

/// Of one measurement or, by their medians, of several; in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Percentiles {
    /// Of latencies in nanoseconds, in any order.
    pub(crate) fn of(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        let at = |share: f64| {
            // The nearest rank: the smallest latency that `share` of all do not exceed.
            let rank = (nanos.len() as f64 * share).ceil() as usize;
            let value = nanos.get(rank.saturating_sub(1)).copied();
            value.unwrap_or_default() as f64 / 1e3
        };
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
        }
    }
}

/// The middle of `values`; of two in the middle, their mean. Not a number where there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => f64::NAN,
        (Some(upper), 0) => f64::midpoint(values[middle - 1], *upper),
        (Some(value), _) => *value,
    }
}

/// A median with the least and the greatest that it was taken from.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// Of at least one value.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        (!values.is_empty()).then(|| Self {
            median: median(values.iter().copied()),
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            greatest: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_latency_that_so_many_do_not_exceed() {
        let percentiles = Percentiles::of((1..=1000).rev().map(|n| n * 1000).collect());
        assert_eq!(percentiles.p50, 500.0);
        assert_eq!(percentiles.p90, 900.0);
        assert_eq!(percentiles.p99, 990.0);
        assert_eq!(percentiles.p999, 999.0);
        assert_eq!(Percentiles::of(vec![7_000]).p50, 7.0);
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
