//! A window over the rows of one input that gives them out in order of time.
//!
//! It holds as many rows as its width, in order, and reads a batch more at a time. A batch in order
//! behind those held stays as it is. Of one that nearly is, the strays wait apart and join what is
//! given out; one that is not is sorted and put among the last one held, but for what belongs
//! further ahead, which waits apart too. So a row that stands up to one width too late is mended.

use std::collections::{BTreeMap, VecDeque};

use super::order::Order;
use super::{Context, Row, Rows};
use crate::base::Result;
use crate::import::job::Job;

/// Rows read at a time, no more than the width: few enough to stay in the cache of one processor.
const BATCH_ROWS: usize = 1 << 13;

/// A batch of which no more than one row in so many belongs ahead of another is not sorted.
const STRAY_IN: usize = 32;

/// The window.
pub(super) struct Reorder {
    /// Each in order of time, and none before the one ahead of it; none is empty.
    held: VecDeque<Vec<Row>>,
    /// Rows that wait apart, by time and order of arrival; of equal times they came after those
    /// held.
    late: BTreeMap<(u64, u64), Row>,
    lates: u64,
    /// Rows in both.
    rows: usize,
    /// Of a batch that is put in order, and memory for it.
    order: Order,
    spare: Vec<Row>,
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
            order: Order::default(),
            spare: Vec::new(),
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
            let rest = batch.get(taken..).unwrap_or_default();
            let late = self.late.first_entry();
            let until = late.as_ref().map_or(u64::MAX, |late| late.key().0);
            let run = rest.partition_point(|row| row.time <= until).min(most - rows.len());
            match late {
                _ if run > 0 => {
                    rows.extend_from_slice(rest.get(..run).unwrap_or_default());
                    taken += run;
                }
                Some(late) if late_alone || !rest.is_empty() => rows.push(late.remove()),
                _ => break,
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
        self.rows += batch.len();
        let mut greatest = self.greatest();
        let (mut disordered, mut strays) = (0, 0);
        for row in &batch {
            disordered += u64::from(row.time < self.last_in);
            self.last_in = row.time;
            strays += usize::from(is_stray(row, &mut greatest));
        }
        self.disordered += disordered;
        if strays * STRAY_IN <= batch.len() {
            if strays > 0 {
                let mut greatest = self.greatest();
                self.wait_apart(batch.extract_if(.., |row| is_stray(row, &mut greatest)));
            }
            if !batch.is_empty() {
                self.held.push_back(batch);
            }
            return;
        }
        if disordered > 0 {
            batch = self.sorted(batch);
        }
        self.merge(batch);
    }

    /// The batch in order of time; equal times in the input's order.
    fn sorted(&mut self, mut batch: Vec<Row>) -> Vec<Row> {
        self.order.sort(&batch, |row| row.time);
        let mut sorted = std::mem::take(&mut self.spare);
        sorted.extend((0..).map_while(|at| batch.get(self.order.get(at)?).copied()));
        batch.clear();
        self.spare = batch;
        sorted
    }

    fn wait_apart(&mut self, rows: impl Iterator<Item = Row>) {
        for row in rows {
            self.late.insert((row.time, self.lates), row);
            self.lates += 1;
        }
    }

    /// The time from which on a row belongs behind all others.
    fn greatest(&self) -> u64 {
        let last = self.held.back().and_then(|held| held.last());
        last.map_or_else(|| self.behind_late(), |last| last.time)
    }

    /// The time from which on a row belongs behind those that wait apart.
    fn behind_late(&self) -> u64 {
        self.late.last_key_value().map_or(0, |((time, _), _)| time.saturating_add(1))
    }

    /// Puts rows in order among those of the last batch held, or apart as late.
    fn merge(&mut self, mut batch: Vec<Row>) {
        let first = self.held.back().and_then(|last| last.first()).map_or(0, |row| row.time);
        let begin = first.max(self.behind_late());
        let ahead = batch.partition_point(|row| row.time < begin);
        self.wait_apart(batch.drain(..ahead));
        let last = self.held.back_mut();
        if let Some(last) = last
            && let Some(end) = last.last().map(|row| row.time)
            && let Some(first) = batch.first().map(|row| row.time)
        {
            let overlap = batch.partition_point(|row| row.time < end);
            let earlier = last.partition_point(|row| row.time <= first);
            last.extend(batch.drain(..overlap));
            if let Some(later) = last.get_mut(earlier..) {
                later.sort_by_key(|row| row.time);
            }
            let most = BATCH_ROWS.min(self.width);
            if last.len() > 2 * most {
                let behind = last.split_off(most);
                self.held.push_back(behind);
            }
        }
        if !batch.is_empty() {
            self.held.push_back(batch);
        }
    }

    /// Rows that came in below the one before them.
    pub(super) fn disordered(&self) -> u64 {
        self.disordered
    }
}

/// Whether a row belongs ahead of one that came before it; those are up to `greatest`.
fn is_stray(row: &Row, greatest: &mut u64) -> bool {
    let stray = row.time < *greatest;
    *greatest = row.time.max(*greatest);
    stray
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{BlockOp, OpFlags, Prng};
    use crate::import::dataset::RowByRow;
    use crate::import::dataset::clock::{Clock, Epoch, TimeUnit};
    use crate::import::dataset::places::Places;
    use crate::import::source::{Meter, Source};
    use crate::import::testing::Memory;
    use crate::trace::StreamId;

    struct Given(std::vec::IntoIter<Row>);

    impl RowByRow for Given {
        fn next_row(&mut self, _: &mut Context, _: &mut Job<'_>) -> Result<Option<Row>> {
            Ok(self.0.next())
        }

        fn source(&self) -> Option<&Source> {
            None
        }
    }

    fn row(time: u64, tag: u64) -> Row {
        Row {
            time,
            offset: 0,
            len: 1,
            latency: Row::NO_LATENCY,
            tag,
            stream: StreamId(0),
            flags: OpFlags::empty(),
            own_tag: false,
            op: Some(BlockOp::Read),
        }
    }

    /// What a window makes of rows of these times: their times and places, and the disorder.
    fn reorder(width: usize, times: &[u64]) -> (Vec<(u64, u64)>, u64) {
        let rows = (0..).zip(times).map(|(tag, time)| row(*time, tag));
        let mut input = Given(rows.collect::<Vec<_>>().into_iter());
        let clock = Clock::new(Epoch::Start, TimeUnit::Ns, None);
        let mut context = Context { clock, tags: 0, known: Places::new(false) };
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
    fn a_time_of_the_far_future_holds_up_nothing() {
        // Of a damaged row; and rows of which every other one is a little late.
        let times: Vec<u64> = std::iter::once(u64::MAX)
            .chain((0..200_000).map(|n| if n % 2 == 0 { n } else { n - n.min(50) }))
            .collect();
        let (out, _) = reorder(BATCH_ROWS, &times);
        assert!(out == sorted(&times));
        let mut window = Reorder::new(BATCH_ROWS);
        for rows in times.chunks(BATCH_ROWS) {
            window.put(rows.iter().zip(0..).map(|(time, tag)| row(*time, tag)).collect());
        }
        assert!(window.held.iter().all(|held| held.len() <= 3 * BATCH_ROWS));
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
