//! Memory for the data of requests: used again, since fresh pages cost more than the copy into
//! them, and bounded over all connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::record::recording::Bytes;

/// Least size of a buffer, and the alignment of all: what O_DIRECT wants.
const PAGE: usize = 4096;

/// Data that is copied for the recording: the buffer would be half as large again, or more.
const COPIED_MAX: usize = 2 * PAGE;

/// Bytes of buffers that are kept for later.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Buffers that are kept for later, by their size.
#[derive(Debug, Default)]
pub(super) struct Pool {
    free: Mutex<Free>,
}

#[derive(Debug, Default)]
struct Free {
    by_size: BTreeMap<usize, Vec<Vec<u8>>>,
    bytes: usize,
}

impl Pool {
    /// A buffer of `len` bytes of anything.
    pub(super) fn get(self: &Arc<Self>, len: usize) -> Buffer {
        let size = size_for(len);
        let kept = {
            let mut free = self.lock();
            let kept = free.by_size.get_mut(&size).and_then(Vec::pop);
            free.bytes -= if kept.is_some() { size } else { 0 };
            kept
        };
        let bytes = kept.unwrap_or_else(|| vec![0; size + PAGE]);
        let start = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        Buffer { bytes, start, len, size, home: Arc::downgrade(self) }
    }

    fn put(&self, size: usize, bytes: Vec<u8>) {
        let mut free = self.lock();
        if free.bytes + size <= KEPT_BYTES_MAX {
            free.bytes += size;
            free.by_size.entry(size).or_default().push(bytes);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Few sizes, so that buffers are used again, and none much larger than what it is for.
fn size_for(len: usize) -> usize {
    let step = (len.next_power_of_two() / 8).max(PAGE);
    len.max(1).next_multiple_of(step)
}

/// The buffer's data, for the recording: it counts there by its length, and may wait for long. Of a
/// small one, which is mostly padding, that is a copy.
pub(super) fn recorded(buffer: &Arc<Buffer>) -> Bytes {
    let data = (**buffer).as_ref();
    match data.len() <= COPIED_MAX {
        true => Arc::new(data.to_vec()),
        false => Arc::clone(buffer) as Bytes,
    }
}

/// A page-aligned buffer, which goes back to its pool.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    size: usize,
    home: Weak<Pool>,
}

impl Buffer {
    pub(super) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.put(self.size, std::mem::take(&mut self.bytes));
        }
    }
}

/// Bytes of data that all connections together may hold.
#[derive(Debug)]
pub(super) struct Budget {
    held: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Self {
        Self { held: AtomicUsize::new(0), max }
    }

    /// Takes `len` bytes, when they are to be had; one who is alone gets any number.
    pub(super) fn take(&self, len: usize) -> bool {
        let fits = |held: usize| (held == 0 || held + len <= self.max).then_some(held + len);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).is_ok()
    }

    pub(super) fn give_back(&self, len: usize) {
        self.held.fetch_sub(len, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_used_again() {
        let pool = Arc::new(Pool::default());
        for len in [0, 1, 4096, 5000, 1 << 20] {
            let mut buffer = pool.get(len);
            assert_eq!(buffer.as_ref().len(), len);
            assert_eq!(buffer.as_mut().as_ptr().align_offset(PAGE), 0);
        }
        let at = pool.get(5000).as_ref().as_ptr();
        assert_eq!(pool.get(8192).as_ref().as_ptr(), at);
        drop(pool.get(2 * KEPT_BYTES_MAX));
        assert!(pool.lock().bytes <= KEPT_BYTES_MAX);
    }

    #[test]
    fn what_the_recording_holds_is_not_much_more_than_what_it_counts() {
        let pool = Arc::new(Pool::default());
        for len in [1, 512, 4096, 8192, 8193, 12_288, 65_537, (1 << 20) + 512, 32 << 20] {
            let buffer = Arc::new(pool.get(len));
            let bytes = recorded(&buffer);
            assert_eq!((*bytes).as_ref().len(), len);
            let holds = match Arc::strong_count(&buffer) {
                // It has a copy, and the buffer is free for others.
                1 => len,
                _ => buffer.bytes.len(),
            };
            assert!(holds <= 2 * len, "{len}: {holds}");
        }
    }

    #[test]
    fn a_budget_is_kept_and_one_alone_gets_what_it_asks_for() {
        let budget = Budget::new(100);
        assert!(budget.take(500));
        assert!(!budget.take(1));
        budget.give_back(500);
        assert!(budget.take(60) && budget.take(40) && !budget.take(1));
    }
}
