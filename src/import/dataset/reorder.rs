//! A window over the rows of one input that gives them out in order of time.
//!
//! It holds as many rows as its width, in order, and reads a batch more at a time. Rows in order
//! are put behind what is held, which costs one comparison each; from the first that is not, they
//! are collected, and no more is sorted than from where the least of them belongs. So a row that
//! stands up to one width too late is mended.

use std::collections::VecDeque;

use super::{Context, Row, Rows};
use crate::base::Result;
use crate::import::job::Job;

/// Rows read at a time, no more than the width: few enough to stay in the cache of one processor.
const BATCH_ROWS: usize = 1 << 12;

/// The window.
pub(super) struct Reorder {
    /// In order of time.
    held: VecDeque<Row>,
    /// What was read last, before it is put among those.
    batch: Vec<Row>,
    width: usize,
    /// Time of the last row read.
    last_in: u64,
    disordered: u64,
    ended: bool,
}

impl Reorder {
    /// A window that mends rows up to `width` rows late.
    pub(super) fn new(width: usize) -> Self {
        Self {
            held: VecDeque::new(),
            batch: Vec::new(),
            width: width.max(1),
            last_in: 0,
            disordered: 0,
            ended: false,
        }
    }

    /// The next row in order of time; equal times in the input's order.
    ///
    /// # Errors
    /// Those of the input.
    #[inline]
    pub(super) fn next<R: Rows>(
        &mut self,
        input: &mut R,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<Option<Row>> {
        while self.held.len() <= self.width && !self.ended {
            self.fill(input, context, job)?;
        }
        Ok(self.held.pop_front())
    }

    fn fill<R: Rows>(
        &mut self,
        input: &mut R,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let (mut sorted, mut rows) = (true, 0);
        while rows < BATCH_ROWS.min(self.width) {
            let Some(row) = input.next_row(context, job)? else {
                self.ended = true;
                break;
            };
            if row.time < self.last_in {
                self.disordered += 1;
                sorted = false;
            }
            self.last_in = row.time;
            if self.batch.is_empty() && self.held.back().is_none_or(|last| last.time <= row.time) {
                // Most rows are where they belong.
                self.held.push_back(row);
            } else {
                self.batch.push(row);
            }
            rows += 1;
        }
        if !sorted {
            // Stable, and quick on runs that are in order.
            self.batch.sort_by_key(|row| row.time);
        }
        self.merge();
        Ok(())
    }

    /// Puts the batch among what is held; of equal times that is first.
    fn merge(&mut self) {
        let Some(first) = self.batch.first() else { return };
        let later = match self.held.back() {
            Some(last) if last.time > first.time => {
                self.held.partition_point(|row| row.time <= first.time)
            }
            _ => self.held.len(),
        };
        let len = self.held.len();
        self.held.extend(self.batch.drain(..));
        if later < len
            && let Some(rows) = self.held.make_contiguous().get_mut(later..)
        {
            rows.sort_by_key(|row| row.time);
        }
    }

    /// Rows that came in below the one before them.
    pub(super) fn disordered(&self) -> u64 {
        self.disordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockOp, OpFlags, Prng};
    use crate::import::dataset::clock::{Clock, Epoch, TimeUnit};
    use crate::import::dataset::streams::KnownStreams;
    use crate::import::source::{Meter, Source};
    use crate::import::testing::Memory;
    use crate::trace::StreamId;

    struct Given(std::vec::IntoIter<Row>);

    impl Rows for Given {
        fn next_row(&mut self, _: &mut Context, _: &mut Job<'_>) -> Result<Option<Row>> {
            Ok(self.0.next())
        }

        fn source(&self) -> Option<&Source> {
            None
        }
    }

    /// What a window makes of rows of these times: their times and places, and the disorder.
    fn reorder(width: usize, times: &[u64]) -> (Vec<(u64, u64)>, u64) {
        let row = |(tag, time): (u64, &u64)| Row {
            time: *time,
            offset: 0,
            len: 1,
            latency: Row::NO_LATENCY,
            tag,
            stream: StreamId(0),
            flags: OpFlags::empty(),
            op: Some(BlockOp::Read),
        };
        let mut input = Given((0..).zip(times).map(row).collect::<Vec<_>>().into_iter());
        let clock = Clock::new(Epoch::Start, TimeUnit::Ns, None);
        let mut context = Context { clock, tags: 0, known: KnownStreams::default() };
        let (mut memory, mut progress) = (Memory::default(), |_| {});
        let mut job = Job::new(&mut memory, "t", None, Meter::default(), &mut progress);
        let mut window = Reorder::new(width);
        let mut out = Vec::new();
        while let Some(row) = window.next(&mut input, &mut context, &mut job).unwrap() {
            out.push((row.time, row.tag));
        }
        (out, window.disordered())
    }

    fn sorted(times: &[u64]) -> Vec<(u64, u64)> {
        let mut rows: Vec<_> = times.iter().copied().zip(0..).collect();
        rows.sort_by_key(|row| row.0);
        rows
    }

    #[test]
    fn rows_come_out_in_order_and_equals_as_they_came() {
        let mut prng = Prng::new(2);
        for (spread, width) in [(1, 10), (300, 700), (20_000, 50_000)] {
            let times: Vec<_> = (0..30_000).map(|n| n / 3 + prng.below(spread)).collect();
            let (out, disordered) = reorder(width, &times);
            assert_eq!(out, sorted(&times), "spread {spread}");
            assert_eq!(
                disordered,
                times.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64
            );
        }
        assert_eq!(reorder(5, &[]), (vec![], 0));
    }

    #[test]
    fn a_row_one_width_late_is_mended_and_none_is_lost() {
        let (width, count) = (6_000, 20_000);
        let mut times: Vec<u64> = (1..=count).collect();
        times.insert(width, 0);
        assert_eq!(reorder(width, &times).0, sorted(&times));
        let mut times: Vec<u64> = (1..=count).collect();
        times.push(0);
        let (out, disordered) = reorder(width, &times);
        assert_eq!((out.len(), disordered), (times.len(), 1));
        assert!(out.contains(&(0, count)));
    }
}
