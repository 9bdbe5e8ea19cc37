//! A bounded-window sorter: puts a nearly sorted source into time order. And a merger, which makes
//! one source of several.
//!
//! It holds the last `window` items and gives up the smallest, of equals the one that came first,
//! when a further one comes. Items that come in order stand in a queue, the others in a min-heap
//! keyed (key, arrival): order costs nothing. An item that comes later than the window can mend is
//! given up as it is and counted: nothing is dropped and the result depends on the input alone.

use std::cmp::{Ordering, Reverse};
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};

use crate::base::Result;

/// What items are sorted by. A window holds many of them: their keys do not stand beside them.
pub trait Order<T> {
    /// The key.
    type Key: Ord + Copy;

    /// The key of `item`, at any time the same.
    fn key(&self, item: &T) -> Self::Key;
}

impl<T, K: Ord + Copy> Order<T> for fn(&T) -> K {
    type Key = K;

    fn key(&self, item: &T) -> K {
        self(item)
    }
}

/// An item that came when a greater one was there; equal keys come out in order of arrival.
struct Entry<K, T> {
    key: K,
    arrival: u64,
    item: T,
}

impl<K: Ord, T> Entry<K, T> {
    fn rank(&self) -> (&K, u64) {
        (&self.key, self.arrival)
    }
}

impl<K: Ord, T> PartialEq for Entry<K, T> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl<K: Ord, T> Eq for Entry<K, T> {}

impl<K: Ord, T> PartialOrd for Entry<K, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord, T> Ord for Entry<K, T> {
    /// Reversed: the standard heap gives up its greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.rank().cmp(&self.rank())
    }
}

/// The sorter. Stable and deterministic.
pub struct Sorter<T, O: Order<T>> {
    order: O,
    /// In order of key and arrival.
    queue: VecDeque<T>,
    /// Those that came when a greater key stood at the end of the queue. It stands there until they
    /// are gone: an equal one in the queue came before them.
    heap: BinaryHeap<Entry<O::Key, T>>,
    window: usize,
    arrivals: u64,
    last_in: Option<O::Key>,
    last_out: Option<O::Key>,
    disordered: u64,
    late: u64,
}

impl<T, O: Order<T>> Sorter<T, O> {
    /// A sorter that holds at most `window` items.
    pub fn new(window: usize, order: O) -> Self {
        Self {
            order,
            queue: VecDeque::new(),
            heap: BinaryHeap::new(),
            window: window.max(1),
            arrivals: 0,
            last_in: None,
            last_out: None,
            disordered: 0,
            late: 0,
        }
    }

    /// Takes an item; gives up the smallest one when the window is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Option<T> {
        let key = self.order.key(&item);
        self.disordered += u64::from(self.last_in.is_some_and(|last| last > key));
        self.last_in = Some(key);
        if self.queue.back().is_none_or(|last| self.order.key(last) <= key) {
            // It is the greatest: another is given up for it, and the queue need not grow.
            let out = if self.held() < self.window { None } else { self.pop() };
            self.queue.push_back(item);
            return out;
        }
        self.heap.push(Entry { key, arrival: self.arrivals, item });
        self.arrivals += 1;
        if self.held() > self.window { self.pop() } else { None }
    }

    fn held(&self) -> usize {
        self.queue.len() + self.heap.len()
    }

    /// Gives up the smallest item held.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let first = self.queue.front().map(|item| self.order.key(item));
        let (key, item) = match (first, self.heap.peek_mut()) {
            (first, Some(other)) if first.is_none_or(|first| other.key < first) => {
                let Entry { key, item, .. } = PeekMut::pop(other);
                (key, item)
            }
            (first, _) => (first?, self.queue.pop_front()?),
        };
        match self.last_out {
            Some(last) if last > key => self.late += 1,
            _ => self.last_out = Some(key),
        }
        Some(item)
    }

    /// Items that came in below the one before them.
    pub fn disordered(&self) -> u64 {
        self.disordered
    }

    /// Items that came too late for the window: they stand out of order in the output.
    pub fn late(&self) -> u64 {
        self.late
    }
}

/// Merges inputs by a key; of equal keys the first input's goes first.
pub struct Merger<K, T> {
    /// The next item of each input.
    heads: Vec<Option<T>>,
    order: BinaryHeap<Reverse<(K, usize)>>,
}

impl<K: Ord, T> Default for Merger<K, T> {
    fn default() -> Self {
        Self { heads: Vec::new(), order: BinaryHeap::new() }
    }
}

impl<K: Ord, T> Merger<K, T> {
    /// The item with the smallest key of those that come next in `inputs`, which are the same at
    /// each call; `read` takes the next one of an input.
    ///
    /// # Errors
    /// Those of `read`.
    #[inline]
    pub fn next<I>(
        &mut self,
        inputs: &mut [I],
        key: impl Fn(&T) -> K,
        mut read: impl FnMut(&mut I) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        if let [input] = inputs {
            return read(input);
        }
        for (index, input) in inputs.iter_mut().enumerate().skip(self.heads.len()) {
            let head = read(input)?;
            self.order.extend(head.as_ref().map(|item| Reverse((key(item), index))));
            self.heads.push(head);
        }
        let Some(mut first) = self.order.peek_mut() else { return Ok(None) };
        let Reverse((_, index)) = *first;
        let (Some(head), Some(input)) = (self.heads.get_mut(index), inputs.get_mut(index)) else {
            return Ok(None);
        };
        let next = read(input)?;
        match &next {
            Some(item) => *first = Reverse((key(item), index)),
            None => drop(PeekMut::pop(first)),
        }
        Ok(std::mem::replace(head, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    #[test]
    fn inputs_are_merged_and_among_equals_the_first_goes_first() {
        let mut inputs = [vec![(1, 'a'), (5, 'b')], vec![], vec![(1, 'c'), (2, 'd'), (5, 'e')]];
        inputs.iter_mut().for_each(|input| input.reverse());
        let mut merger = Merger::default();
        let mut out = String::new();
        while let Some((_, letter)) =
            merger.next(&mut inputs, |item: &(u32, char)| item.0, |input| Ok(input.pop())).unwrap()
        {
            out.push(letter);
        }
        assert_eq!(out, "acdbe");
    }

    fn first(item: &(u64, u32)) -> u64 {
        item.0
    }

    fn sort(window: usize, input: &[(u64, u32)]) -> (Vec<(u64, u32)>, u64, u64) {
        let mut sorter = Sorter::new(window, first as fn(&(u64, u32)) -> u64);
        let mut out = Vec::new();
        for item in input {
            out.extend(sorter.push(*item));
        }
        while let Some(item) = sorter.pop() {
            out.push(item);
        }
        (out, sorter.disordered(), sorter.late())
    }

    #[test]
    fn disorder_within_the_window_is_mended_and_ties_keep_their_order() {
        let (out, disordered, late) = sort(4, &[(3, 0), (1, 1), (2, 2), (1, 3), (9, 4), (8, 5)]);
        assert_eq!(out, [(1, 1), (1, 3), (2, 2), (3, 0), (8, 5), (9, 4)]);
        assert_eq!((disordered, late), (3, 0));
    }

    #[test]
    fn an_item_past_the_window_is_kept_and_counted() {
        let (out, _, late) = sort(2, &[(5, 0), (6, 1), (7, 2), (8, 3), (1, 4), (9, 5)]);
        assert_eq!(out.len(), 6);
        assert_eq!(late, 1);
        assert!(out.contains(&(1, 4)));
    }

    #[test]
    fn random_disorder_below_the_window_sorts_like_a_stable_sort() {
        let mut prng = Prng::new(7);
        let input: Vec<_> = (0..5000).map(|n| (u64::from(n) / 4 + prng.below(20), n)).collect();
        let mut want = input.clone();
        want.sort_by_key(|item| item.0);
        let (out, _, late) = sort(128, &input);
        assert_eq!(late, 0);
        assert_eq!(out, want);
    }
}
