//! Histograms of fixed size.

use serde::Serialize;

/// A row of a histogram.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Least value.
    pub from: u64,
    /// Greatest value.
    pub to: u64,
    /// How many.
    pub count: u64,
}

/// Counts by powers of two: row 0 is the value 0, row n holds 2^(n-1) up to 2^n - 1.
#[derive(Clone, Debug)]
pub struct Powers([u64; 65]);

impl Default for Powers {
    fn default() -> Self {
        Self([0; 65])
    }
}

impl Powers {
    /// Counts `value`.
    #[inline]
    pub fn add(&mut self, value: u64) {
        self.0[64 - value.leading_zeros() as usize] += 1;
    }

    /// The rows that hold any, in order.
    pub fn rows(&self) -> Vec<Row> {
        let row = |(n, count): (usize, &u64)| {
            let (from, to) = bounds(n);
            (*count > 0).then_some(Row { from, to, count: *count })
        };
        self.0.iter().enumerate().filter_map(row).collect()
    }
}

/// Least and greatest value of row `n` of [`Powers`].
pub fn bounds(n: usize) -> (u64, u64) {
    match n {
        0 => (0, 0),
        n => (1 << (n - 1), u64::MAX >> (64 - n)),
    }
}

/// Bits behind the leading one that tell values apart in [`Fine`].
const FINE_BITS: u32 = 4;

/// Counts with sixteen rows for each power of two: a quantile is at most 1/16 too high.
#[derive(Clone, Debug)]
pub struct Fine {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Fine {
    fn default() -> Self {
        Self { counts: vec![0; 65 << FINE_BITS], total: 0, max: 0 }
    }
}

impl Fine {
    /// Counts `value`.
    #[inline]
    pub fn add(&mut self, value: u64) {
        let row = Self::row(value);
        if let Some(count) = self.counts.get_mut(row) {
            *count += 1;
        }
        self.total += 1;
        self.max = self.max.max(value);
    }

    fn row(value: u64) -> usize {
        let top = 64 - value.leading_zeros();
        // Values of so few bits have a row each.
        let shift = top.saturating_sub(FINE_BITS + 1);
        let low = (value >> shift) as usize;
        ((shift as usize) << FINE_BITS) + low
    }

    /// Greatest value of a row.
    fn end(row: usize) -> u64 {
        let shift = (row >> FINE_BITS).saturating_sub(1);
        let low = (row - (shift << FINE_BITS)) as u128;
        u64::try_from(((low + 1) << shift) - 1).unwrap_or(u64::MAX)
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The greatest.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The least value that a share `of` 1 of all is not above; 0 when there is none.
    pub fn quantile(&self, of: f64) -> u64 {
        let rank = ((self.total as f64 * of).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (row, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Self::end(row).min(self.max);
            }
        }
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_their_powers() {
        let mut powers = Powers::default();
        for value in [0, 1, 512, 513, 1023, 1024, u64::MAX] {
            powers.add(value);
        }
        let rows: Vec<_> = powers.rows().iter().map(|row| (row.from, row.to, row.count)).collect();
        let top = (1 << 63, u64::MAX, 1);
        assert_eq!(rows, [(0, 0, 1), (1, 1, 1), (512, 1023, 3), (1024, 2047, 1), top]);
    }

    #[test]
    fn quantiles_are_at_most_a_sixteenth_too_high() {
        for scale in [1u64, 7, 1_000, 123_456_789] {
            let mut fine = Fine::default();
            (1..=1000).for_each(|n| fine.add(n * scale));
            for (share, exact) in [(0.5, 500), (0.99, 990), (1.0, 1000)] {
                let (found, exact) = (fine.quantile(share), exact * scale);
                assert!(found >= exact && found <= exact + exact / 16, "{found} for {exact}");
            }
            assert_eq!((fine.total(), fine.max()), (1000, 1000 * scale));
        }
        let mut fine = Fine::default();
        assert_eq!(fine.quantile(0.5), 0);
        fine.add(u64::MAX);
        fine.add(0);
        assert_eq!((fine.quantile(0.5), fine.quantile(1.0)), (0, u64::MAX));
    }

    #[test]
    fn every_value_lies_in_its_row() {
        for value in (0..200).chain((0..64).map(|bit| 1 << bit)).chain([u64::MAX]) {
            let row = Fine::row(value);
            assert!(Fine::end(row) >= value, "{value}");
            assert!(row == 0 || Fine::end(row - 1) < value, "{value}");
        }
    }
}
