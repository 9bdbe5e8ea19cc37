//! Completions that wait for their time.
//!
//! Requests end nearly in the order in which they were issued: a completion most often belongs
//! behind all that wait, or a few places before the last. Those stand in a queue, in order; the
//! others in a heap.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::base::limits::IMPORT_IN_FLIGHT_MAX;
use crate::trace::StreamId;

/// Places from the end of the queue at which a completion may stand in it.
const STEPS_MAX: usize = 8;

/// A completion; they are in order of time, then of tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    queue: VecDeque<Due>,
    heap: BinaryHeap<Reverse<Due>>,
}

impl Waiting {
    /// Takes one.
    #[inline]
    pub(super) fn push(&mut self, due: Due) {
        let mut at = self.queue.len();
        while let Some(before) = at.checked_sub(1).and_then(|before| self.queue.get(before))
            && *before > due
        {
            at -= 1;
            if at + STEPS_MAX < self.queue.len() {
                self.heap.push(Reverse(due));
                return;
            }
        }
        self.queue.insert(at, due);
    }

    /// The first one, if its time is no later than `time`.
    #[inline]
    pub(super) fn pop_until(&mut self, time: u64) -> Option<Due> {
        match (self.queue.front(), self.heap.peek()) {
            (Some(first), heap) if heap.is_none_or(|Reverse(other)| first < other) => {
                if first.time <= time { self.queue.pop_front() } else { None }
            }
            (_, Some(Reverse(first))) if first.time <= time => {
                self.heap.pop().map(|Reverse(due)| due)
            }
            _ => None,
        }
    }

    /// The first one, if there are more than an import remembers.
    #[inline]
    pub(super) fn pop_surplus(&mut self) -> Option<Due> {
        let surplus = self.queue.len() + self.heap.len() > IMPORT_IN_FLIGHT_MAX;
        if surplus { self.pop_until(u64::MAX) } else { None }
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
            for now in 0..20_000 {
                while let Some(due) = waiting.pop_until(now) {
                    assert!(due.time <= now);
                    got.push(due);
                }
                let time = now + 1 + prng.below(spread);
                let due = Due { time, tag: prng.below(4), stream: StreamId(0) };
                want.push(due);
                waiting.push(due);
            }
            got.extend(std::iter::from_fn(|| waiting.pop_until(u64::MAX)));
            want.sort();
            assert!(got == want, "spread {spread}");
        }
    }

    #[test]
    fn no_more_are_held_than_an_import_remembers() {
        let mut waiting = Waiting::default();
        let due = |n: usize| Due { time: n as u64, tag: 0, stream: StreamId(0) };
        for n in 0..IMPORT_IN_FLIGHT_MAX {
            waiting.push(due(n));
            assert_eq!(waiting.pop_surplus(), None);
        }
        waiting.push(due(IMPORT_IN_FLIGHT_MAX));
        assert_eq!(waiting.pop_surplus(), Some(due(0)));
        assert_eq!(waiting.pop_surplus(), None);
    }
}
