//! A window over the rows of one input that gives them out in order of time.
//!
//! It holds as many rows as its width, in order, and reads a batch more at a time. A batch in order
//! behind those held stays as it is. One that is not is sorted, and put among the last one held;
//! its rows that belong further ahead, most often few, wait apart and join what is given out. So a
//! row that stands up to one width too late is mended.

use std::collections::{BTreeMap, VecDeque};

use super::{Context, Row, Rows};
use crate::base::Result;
use crate::import::job::Job;

/// Rows read at a time, no more than the width: few enough to stay in the cache of one processor.
const BATCH_ROWS: usize = 1 << 13;

/// The window.
pub(super) struct Reorder {
    /// Each in order of time, and none before the one ahead of it; none is empty.
    held: VecDeque<Vec<Row>>,
    /// Rows that belong ahead of the last of those, by time and order of arrival.
    late: BTreeMap<(u64, u64), Row>,
    lates: u64,
    /// Rows in both.
    rows: usize,
    /// What was given out last, and the next row of it where rows are taken one by one.
    out: Vec<Row>,
    at: usize,
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
            late: BTreeMap::new(),
            lates: 0,
            rows: 0,
            out: Vec::new(),
            at: 0,
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
    pub(super) fn next<R: Rows>(
        &mut self,
        input: &mut R,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<Option<Row>> {
        if self.at >= self.out.len() && !self.advance(input, context, job)? {
            return Ok(None);
        }
        let row = self.out.get(self.at).copied();
        self.at += 1;
        Ok(row)
    }

    /// The next rows, likewise; never none but at the end.
    ///
    /// # Errors
    /// Those of the input.
    pub(super) fn next_batch<R: Rows>(
        &mut self,
        input: &mut R,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<Option<&[Row]>> {
        Ok(self.advance(input, context, job)?.then_some(&self.out))
    }

    /// Gives out the next batch; false at the end.
    fn advance<R: Rows>(
        &mut self,
        input: &mut R,
        context: &mut Context,
        job: &mut Job<'_>,
    ) -> Result<bool> {
        let mut used = std::mem::take(&mut self.out);
        // Behind the last row that is given out stand as many as the window is wide.
        while !self.ended && self.rows < self.width + self.held.front().map_or(1, Vec::len) {
            used.clear();
            let most = BATCH_ROWS.min(self.width);
            self.ended = !input.fill(&mut used, most, context, job)?;
            self.put(std::mem::take(&mut used));
        }
        let batch = self.held.pop_front().unwrap_or_default();
        let late = self.late.first_key_value().map(|((time, _), _)| *time);
        self.at = 0;
        self.out = match (batch.last(), late) {
            (Some(last), Some(late)) if late < last.time => self.with_late(batch),
            (None, Some(_)) => self.with_late(batch),
            _ => batch,
        };
        self.rows -= self.out.len();
        Ok(!self.out.is_empty())
    }

    /// The first rows of a batch and of the late ones; of equal times those are last. As many stay
    /// behind as the window is wide, until the input has ended.
    fn with_late(&mut self, mut batch: Vec<Row>) -> Vec<Row> {
        let surplus = if self.ended { self.rows } else { self.rows - self.width };
        let most = surplus.min(BATCH_ROWS);
        let mut rows = Vec::with_capacity(most);
        // Behind the batch others may follow, and the late ones among them.
        let (mut taken, late_alone) = (0, batch.is_empty());
        while rows.len() < most {
            let next = batch.get(taken);
            match self.late.first_entry() {
                Some(late) if next.map_or(late_alone, |next| late.key().0 < next.time) => {
                    rows.push(late.remove());
                }
                _ => {
                    let Some(next) = next else { break };
                    rows.push(*next);
                    taken += 1;
                }
            }
        }
        batch.drain(..taken);
        if !batch.is_empty() {
            self.held.push_front(batch);
        }
        rows
    }

    /// Puts rows among those held; of equal times those are first.
    fn put(&mut self, mut batch: Vec<Row>) {
        let disordered = self.count_disordered(&batch);
        self.disordered += disordered;
        if disordered > 0 {
            // Stable, and quick on runs that are in order.
            batch.sort_by_key(|row| row.time);
        }
        self.rows += batch.len();
        let begin = self.begin();
        let ahead = batch.partition_point(|row| row.time < begin);
        for row in batch.drain(..ahead) {
            self.late.insert((row.time, self.lates), row);
            self.lates += 1;
        }
        let Some(first) = batch.first().map(|row| row.time) else { return };
        match self.held.back() {
            Some(last) if last.last().is_some_and(|last| last.time > first) => self.merge(batch),
            _ => self.held.push_back(batch),
        }
    }

    /// The least time of a row that may join those held; all late ones are before it.
    fn begin(&self) -> u64 {
        let last = self.held.back().and_then(|last| last.first());
        let late = || self.late.last_key_value().map_or(0, |((time, _), _)| time.saturating_add(1));
        last.map_or_else(late, |row| row.time)
    }

    /// Puts rows among those of the last batch held.
    fn merge(&mut self, mut batch: Vec<Row>) {
        let Some(mut rows) = self.held.pop_back() else { return };
        let first = batch.first().map_or(u64::MAX, |row| row.time);
        let earlier = rows.partition_point(|row| row.time <= first);
        rows.append(&mut batch);
        if let Some(later) = rows.get_mut(earlier..) {
            later.sort_by_key(|row| row.time);
        }
        let behind = rows.split_off(rows.len().min(BATCH_ROWS.min(self.width)));
        self.held.push_back(rows);
        if !behind.is_empty() {
            self.held.push_back(behind);
        }
    }

    /// Rows below the one before them.
    fn count_disordered(&mut self, batch: &[Row]) -> u64 {
        let mut disordered = 0;
        for row in batch {
            disordered += u64::from(row.time < self.last_in);
            self.last_in = row.time;
        }
        disordered
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
    use crate::import::dataset::fill_one_by_one;
    use crate::import::dataset::places::Places;
    use crate::import::source::{Meter, Source};
    use crate::import::testing::Memory;
    use crate::trace::StreamId;

    struct Given(std::vec::IntoIter<Row>);

    impl Rows for Given {
        fn fill(
            &mut self,
            rows: &mut Vec<Row>,
            most: usize,
            _: &mut Context,
            _: &mut Job<'_>,
        ) -> Result<bool> {
            fill_one_by_one(rows, most, || Ok(self.0.next()))
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
            own_tag: false,
            op: Some(BlockOp::Read),
        };
        let mut input = Given((0..).zip(times).map(row).collect::<Vec<_>>().into_iter());
        let clock = Clock::new(Epoch::Start, TimeUnit::Ns, None);
        let mut context = Context { clock, tags: 0, known: Places::default() };
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
    fn rows_of_far_ahead_wait_for_those_that_come_behind_them() {
        let (width, ahead) = (3 * BATCH_ROWS, 1_000_000);
        // A whole batch of another clock, single rows of it, and rows that are far behind.
        let mut times: Vec<u64> = (0..BATCH_ROWS as u64).map(|n| ahead + n).collect();
        times.extend((0..50_000).map(|n| match n {
            n if n % 1000 == 7 => ahead + n,
            n if n % 300 == 5 => n - n.min(10_000),
            n => n,
        }));
        let (out, _) = reorder(width + times.len(), &times);
        assert!(out == sorted(&times));
        let (out, _) = reorder(width, &times);
        assert_eq!(out.len(), times.len());
        let late = out.windows(2).filter(|pair| pair[0].0 > pair[1].0).count();
        assert_eq!(late, 0, "a window of {width} rows mends all of them");
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
