//! Requests that were issued and are not yet answered, in memory that does not grow for ever.

use std::collections::VecDeque;

use super::event::StreamId;
use crate::base::hash::MixMap;
use crate::base::limits::IN_FLIGHT_MAX;

type Key = (StreamId, u64);

/// Entries of [`InFlight::order`] before those whose request is gone are looked for.
const ORDER_MIN: usize = 1 << 10;

/// What is remembered of each request until its completion comes. A trace whose completions are
/// lost would fill it: past [`IN_FLIGHT_MAX`] the oldest is forgotten, and counted.
#[derive(Debug)]
pub struct InFlight<T> {
    requests: MixMap<Key, (u64, T)>,
    /// Every request in order of issue; entries whose request is gone are skipped.
    order: VecDeque<(Key, u64)>,
    serial: u64,
    limit: usize,
    forgotten: u64,
}

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self::with_limit(IN_FLIGHT_MAX)
    }
}

impl<T> InFlight<T> {
    fn with_limit(limit: usize) -> Self {
        let (requests, order) = (MixMap::default(), VecDeque::new());
        Self { requests, order, serial: 0, limit, forgotten: 0 }
    }

    /// A request was issued. One of the same tag that is still there is replaced.
    pub fn issue(&mut self, stream: StreamId, tag: u64, what: T) {
        let key = (stream, tag);
        self.serial += 1;
        self.requests.insert(key, (self.serial, what));
        self.order.push_back((key, self.serial));
        // Twice those that are there: one of two that are looked at goes.
        if self.order.len() > self.requests.len().saturating_mul(2).max(ORDER_MIN) {
            let requests = &self.requests;
            self.order.retain(|(key, serial)| requests.get(key).is_some_and(|r| r.0 == *serial));
        }
        while self.requests.len() > self.limit {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        while let Some((key, serial)) = self.order.pop_front() {
            if self.requests.get(&key).is_some_and(|request| request.0 == serial) {
                self.requests.remove(&key);
                self.forgotten += 1;
                return;
            }
        }
    }

    /// A request was answered: what was remembered of it.
    pub fn complete(&mut self, stream: StreamId, tag: u64) -> Option<T> {
        self.requests.remove(&(stream, tag)).map(|(_, what)| what)
    }

    /// Requests under way.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether none is under way.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Requests that were forgotten for want of room.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// What is still under way, in no order.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.requests.values().map(|(_, what)| what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_and_a_reused_tag_is_the_newest() {
        let mut table = InFlight::with_limit(3);
        for tag in 0..3 {
            table.issue(StreamId(0), tag, tag);
        }
        table.issue(StreamId(0), 0, 10);
        table.issue(StreamId(0), 3, 3);
        assert_eq!((table.len(), table.forgotten()), (3, 1));
        assert_eq!(table.complete(StreamId(0), 1), None, "the oldest by now");
        assert_eq!(table.complete(StreamId(0), 0), Some(10));
        assert_eq!(table.complete(StreamId(1), 2), None, "another stream");
    }

    #[test]
    fn what_never_completes_does_not_grow_the_order() {
        let mut table = InFlight::with_limit(4);
        for tag in 0..10_000 {
            table.issue(StreamId(0), tag, ());
            table.complete(StreamId(0), tag);
        }
        assert!(table.is_empty() && table.order.len() <= ORDER_MIN + 1, "{}", table.order.len());
        assert_eq!(table.forgotten(), 0);
    }
}
