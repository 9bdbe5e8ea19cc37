//! Completions that wait for their time.
//!
//! Rows come in batches that are in order of time, and most requests end before the last row of
//! their batch: those completions are put in order all at once, which takes a fraction of what a
//! heap takes. Only those of a later batch wait in one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::order::Order;
use crate::base::limits::IMPORT_IN_FLIGHT_MAX;
use crate::trace::StreamId;

/// A completion; they are in order of time, then of tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    /// When, as the rows have it.
    pub time: u64,
    /// The tag of its request.
    pub tag: u64,
    /// The stream of its request.
    pub stream: StreamId,
}

/// See the module.
#[derive(Default)]
pub(super) struct Waiting {
    /// Until when completions of this batch are given out.
    horizon: u64,
    /// Those, as they came.
    near: Vec<Due>,
    /// Their order, how many of them were looked at, and the last of those, until it is given out.
    order: Order,
    seen: usize,
    next: Option<Due>,
    /// Those after it.
    far: BinaryHeap<Reverse<Due>>,
}

impl Waiting {
    /// Begins a batch of which no row is after `horizon`, when all completions of the last one
    /// were given out; then come those of its requests ([`Waiting::push`]), and
    /// [`Waiting::sort`].
    pub(super) fn begin(&mut self, horizon: u64) {
        debug_assert_eq!(self.next, None);
        self.near.clear();
        self.horizon = horizon;
        while let Some(due) = self.far.peek().map(|Reverse(due)| *due)
            && due.time <= horizon
        {
            self.near.push(due);
            self.far.pop();
        }
    }

    /// Takes one.
    #[inline]
    pub(super) fn push(&mut self, due: Due) {
        if due.time <= self.horizon { self.near.push(due) } else { self.far.push(Reverse(due)) }
    }

    /// All of the batch are there.
    pub(super) fn sort(&mut self) {
        self.order.sort(&self.near, |due| due.time);
        self.seen = 0;
        self.look();
    }

    #[inline]
    fn look(&mut self) {
        self.next = self.order.get(self.seen).and_then(|at| self.near.get(at)).copied();
        self.seen += 1;
    }

    /// The first one of the batch, if its time is no later than `time`.
    #[inline]
    pub(super) fn pop_until(&mut self, time: u64) -> Option<Due> {
        let due = self.next.filter(|due| due.time <= time)?;
        self.look();
        Some(due)
    }

    /// The first one after the batch, if there are more than an import remembers.
    #[inline]
    pub(super) fn pop_surplus(&mut self) -> Option<Due> {
        let surplus = self.far.len() > IMPORT_IN_FLIGHT_MAX;
        if surplus { self.far.pop().map(|Reverse(due)| due) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    #[test]
    fn they_come_in_order_whatever_the_spread() {
        for spread in [1, 10, 100, 100_000] {
            let (mut prng, mut waiting) = (Prng::new(spread), Waiting::default());
            let (mut want, mut got) = (Vec::new(), Vec::new());
            for batch in 0..200 {
                let rows = batch * 100..batch * 100 + 1 + prng.below(100);
                waiting.begin(rows.end - 1);
                for now in rows.clone() {
                    let time = now + 1 + prng.below(spread);
                    let due = Due { time, tag: now, stream: StreamId(0) };
                    want.push(due);
                    waiting.push(due);
                }
                waiting.sort();
                for now in rows {
                    while let Some(due) = waiting.pop_until(now) {
                        assert!(due.time <= now);
                        got.push(due);
                    }
                }
            }
            waiting.begin(u64::MAX);
            waiting.sort();
            got.extend(std::iter::from_fn(|| waiting.pop_until(u64::MAX)));
            want.sort();
            assert!(got == want, "spread {spread}");
        }
    }

    #[test]
    fn no_more_are_held_than_an_import_remembers() {
        let mut waiting = Waiting::default();
        let due = |n: usize| Due { time: n as u64 + 1, tag: 0, stream: StreamId(0) };
        for n in 0..IMPORT_IN_FLIGHT_MAX {
            waiting.push(due(n));
            assert_eq!(waiting.pop_surplus(), None);
        }
        waiting.push(due(IMPORT_IN_FLIGHT_MAX));
        assert_eq!(waiting.pop_surplus(), Some(due(0)));
        assert_eq!(waiting.pop_surplus(), None);
    }
}
