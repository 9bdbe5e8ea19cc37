//! Histograms of durations that merge, and survive JSON without losing anything but time order.

use std::fmt;

use hdrhistogram::Histogram as Hdr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Significant decimal digits: a quantile is within 0.1 % of the value that was recorded.
pub const SIGNIFICANT_DIGITS: u8 = 3;

/// The longest duration kept apart; longer ones count as this: 2^43 ns, about 2.4 hours. (The
/// exact maximum is kept beside.)
const NANOS_MAX: u64 = 1 << 43;

/// Buckets that a stored histogram may have; ours have fewer than 40,000.
const STORED_BUCKETS_MAX: usize = 1 << 17;

/// Durations in nanoseconds. Empty, it takes no memory to speak of; then about 280 KiB.
#[derive(Clone, Default)]
pub struct Histogram {
    buckets: Option<Box<Hdr<u64>>>,
    sum: u128,
    min: u64,
    max: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.record_n(ns, 1);
    }

    /// Counts a duration `count` times.
    #[inline]
    pub fn record_n(&mut self, ns: u64, count: u64) {
        if self.add_bucket(ns, count) {
            self.sum += u128::from(ns) * u128::from(count);
            self.max = self.max.max(ns);
            self.min = self.min.min(ns);
        }
    }

    /// Returns whether anything was counted; leaves the exact figures alone.
    #[inline]
    fn add_bucket(&mut self, ns: u64, count: u64) -> bool {
        if count == 0 {
            return false;
        }
        if self.buckets.is_none() {
            // Bounds and digits are constants that the library accepts.
            self.buckets =
                Hdr::new_with_bounds(1, NANOS_MAX, SIGNIFICANT_DIGITS).ok().map(Box::new);
            self.min = u64::MAX;
        }
        if let Some(buckets) = &mut self.buckets {
            buckets.saturating_record_n(ns, count);
        }
        true
    }

    /// Counts everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (value, count) in other.pairs() {
            self.add_bucket(value, count);
        }
        if other.count() > 0 {
            self.sum += other.sum;
            self.max = self.max.max(other.max);
            self.min = self.min.min(other.min);
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.as_ref().map_or(0, |buckets| buckets.len())
    }

    /// The longest, exactly; 0 when empty.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The shortest, exactly; 0 when empty.
    pub fn min(&self) -> u64 {
        if self.count() == 0 { 0 } else { self.min }
    }

    /// The mean, exactly but for rounding; 0 when empty.
    pub fn mean(&self) -> u64 {
        let mean = self.sum.checked_div(u128::from(self.count())).unwrap_or(0);
        u64::try_from(mean).unwrap_or(u64::MAX)
    }

    /// The value that a part `quantile` (0 to 1) of all counted does not pass; 0 when empty.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let value = self.buckets.as_ref().map_or(0, |b| b.value_at_quantile(quantile));
        value.clamp(self.min(), self.max)
    }

    fn pairs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let recorded = self.buckets.iter().flat_map(|buckets| buckets.iter_recorded());
        recorded.map(|v| (v.value_iterated_to(), v.count_at_value()))
    }
}

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        (self.count(), self.sum, self.min(), self.max)
            == (other.count(), other.sum, other.min(), other.max)
            && self.pairs().eq(other.pairs())
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({} values, {}..{})", self.count(), self.min(), self.max)
    }
}

/// The form in JSON: figures for people and scripts, buckets for merging.
#[derive(Serialize, Deserialize)]
struct Stored {
    count: u64,
    #[serde(default)]
    min_ns: u64,
    #[serde(default)]
    mean_ns: u64,
    #[serde(default)]
    p50_ns: u64,
    #[serde(default)]
    p90_ns: u64,
    #[serde(default)]
    p99_ns: u64,
    #[serde(default)]
    p99_9_ns: u64,
    #[serde(default)]
    max_ns: u64,
    /// Decimal, because it may pass what a JSON number holds exactly.
    #[serde(default)]
    sum_ns: String,
    significant_digits: u8,
    /// Highest value of a bucket, and how many fell into it.
    buckets: Vec<(u64, u64)>,
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Stored {
            count: self.count(),
            min_ns: self.min(),
            mean_ns: self.mean(),
            p50_ns: self.quantile(0.5),
            p90_ns: self.quantile(0.9),
            p99_ns: self.quantile(0.99),
            p99_9_ns: self.quantile(0.999),
            max_ns: self.max,
            sum_ns: self.sum.to_string(),
            significant_digits: SIGNIFICANT_DIGITS,
            buckets: self.pairs().collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let stored = Stored::deserialize(deserializer)?;
        if stored.buckets.len() > STORED_BUCKETS_MAX {
            return Err(D::Error::custom("a histogram with too many buckets"));
        }
        let mut histogram = Self::new();
        let mut count = 0u64;
        for &(value, n) in &stored.buckets {
            histogram.add_bucket(value, n);
            count = count.checked_add(n).ok_or_else(|| D::Error::custom("counts overflow"))?;
        }
        if count != stored.count {
            return Err(D::Error::custom(format!(
                "a histogram of {} values has {count} in its buckets",
                stored.count
            )));
        }
        if count > 0 {
            histogram.sum = stored.sum_ns.parse().map_err(D::Error::custom)?;
            (histogram.min, histogram.max) = (stored.min_ns, stored.max_ns.max(stored.min_ns));
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn filled(seed: u64, count: u64) -> Histogram {
        let (mut histogram, mut prng) = (Histogram::new(), Prng::new(seed));
        for _ in 0..count {
            histogram.record(1 << prng.below(40) | prng.below(1000));
        }
        histogram
    }

    #[test]
    fn quantiles_are_within_the_digits_promised() {
        let mut histogram = Histogram::new();
        (1..=100_000u64).for_each(|n| histogram.record(n * 1000));
        for (quantile, exact) in [(0.5, 50_000_000u64), (0.99, 99_000_000), (0.999, 99_900_000)] {
            let got = histogram.quantile(quantile);
            assert!(got.abs_diff(exact) <= exact / 1000, "{quantile}: {got}");
        }
        assert_eq!((histogram.min(), histogram.max()), (1000, 100_000_000));
        assert_eq!(histogram.mean(), 50_000_500);
    }

    #[test]
    fn merging_is_recording_both() {
        let (a, b) = (filled(1, 5000), filled(2, 3000));
        let mut merged = a.clone();
        merged.merge(&b);
        let mut reference = filled(1, 5000);
        let mut prng = Prng::new(2);
        for _ in 0..3000 {
            reference.record(1 << prng.below(40) | prng.below(1000));
        }
        assert_eq!(merged, reference);
        assert_ne!(merged, a);
        let mut empty = Histogram::new();
        empty.merge(&a);
        assert_eq!(empty, a);
    }

    #[test]
    fn json_keeps_what_merging_and_quantiles_need() {
        let histogram = filled(3, 10_000);
        let json = serde_json::to_string(&histogram).unwrap();
        let back: Histogram = serde_json::from_str(&json).unwrap();
        assert_eq!(back, histogram);
        assert_eq!(serde_json::to_string(&back).unwrap(), json);
        let mut twice = back.clone();
        twice.merge(&histogram);
        assert_eq!(twice.count(), 20_000);
        assert_eq!(twice.quantile(0.9), histogram.quantile(0.9));
    }

    #[test]
    fn nothing_and_far_too_much_are_figures_too() {
        let empty = Histogram::new();
        assert_eq!((empty.quantile(0.99), empty.min(), empty.max(), empty.mean()), (0, 0, 0, 0));
        let json = serde_json::to_string(&empty).unwrap();
        assert_eq!(serde_json::from_str::<Histogram>(&json).unwrap(), empty);
        let mut huge = Histogram::new();
        huge.record(u64::MAX);
        huge.record(0);
        assert_eq!((huge.max(), huge.min(), huge.count()), (u64::MAX, 0, 2));
    }

    #[test]
    fn a_count_that_does_not_add_up_is_refused() {
        let bad = r#"{"count":3,"sum_ns":"9","significant_digits":3,"buckets":[[9,1]]}"#;
        let error = serde_json::from_str::<Histogram>(bad).unwrap_err().to_string();
        assert!(error.contains("3 values"), "{error}");
    }
}
