//! Requests in flight, in memory that outlives us: the front-end keeps it, so that a recorder that
//! was killed and is started again carries out what its predecessor had taken and not answered
//! (vhost-user, "Inflight I/O tracking", split virtqueues).

use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, Ordering};

use super::guard::GuardedMap;

/// Offsets in a queue's region: `features, version, desc_num, last_batch_head, used_idx, desc[]`.
const VERSION: usize = 8;
const DESC_NUM: usize = 10;
const LAST_BATCH_HEAD: usize = 12;
const USED_IDX: usize = 14;
const DESCRIPTORS: usize = 16;
/// Offsets in a descriptor's state: `inflight, padding, next, counter`.
const DESC_BYTES: usize = 16;
const NEXT: usize = 6;
const COUNTER: usize = 8;

/// The only version there is; 0 is a region that nobody used yet.
const VERSION_1: u16 = 1;

/// Queues' regions begin at multiples of this.
const ALIGNMENT: u64 = 64;

/// Bytes of a queue's region.
fn region_bytes(queue_size: u16) -> u64 {
    let bytes = DESCRIPTORS + DESC_BYTES * usize::from(queue_size);
    (bytes as u64).next_multiple_of(ALIGNMENT)
}

/// Bytes for so many queues.
pub fn total_bytes(queues: u16, queue_size: u16) -> u64 {
    region_bytes(queue_size) * u64::from(queues)
}

/// New memory for a front-end that has none.
///
/// # Errors
/// There is no memory.
pub fn create(queues: u16, queue_size: u16) -> io::Result<File> {
    // SAFETY: a plain system call with a static, NUL-terminated name; the result is checked.
    let fd = unsafe { libc::memfd_create(c"qtrace-inflight".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` is fresh and owned by nothing else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(total_bytes(queues, queue_size))?;
    Ok(file)
}

/// The memory of all queues.
#[derive(Clone, Debug)]
pub struct Inflight {
    map: Arc<GuardedMap>,
    offset: u64,
    queues: u16,
    queue_size: u16,
}

impl Inflight {
    /// Maps what the front-end sent: `len` bytes at `offset` of `file`.
    ///
    /// # Errors
    /// It does not hold what it should, or cannot be mapped.
    pub fn new(
        file: &File,
        len: u64,
        offset: u64,
        queues: u16,
        queue_size: u16,
    ) -> io::Result<Self> {
        let needed = total_bytes(queues, queue_size);
        let end = offset.checked_add(len).filter(|_| len >= needed && offset.is_multiple_of(8));
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        let map = Arc::new(GuardedMap::new(file, end)?);
        Ok(Self { map, offset, queues, queue_size })
    }

    /// That of a queue with `size` entries; `None` when it is for smaller ones.
    pub fn queue(&self, index: u16, size: u16) -> Option<InflightQueue> {
        if index >= self.queues || size > self.queue_size {
            return None;
        }
        let offset = self.offset + region_bytes(self.queue_size) * u64::from(index);
        // SAFETY: `new` found the regions of all queues in the mapping.
        let base = unsafe { self.map.base().add(offset as usize) };
        Some(InflightQueue {
            base,
            map: Arc::clone(&self.map),
            size,
            counter: 0,
            batch: Vec::new(),
        })
    }
}

/// That of one queue.
#[derive(Debug)]
pub struct InflightQueue {
    base: *mut u8,
    map: Arc<GuardedMap>,
    size: u16,
    /// Requests taken so far: their order.
    counter: u64,
    /// Given back and not published.
    batch: Vec<u16>,
}

// SAFETY: `base` points into `map`, and is reached by atomics only.
unsafe impl Send for InflightQueue {}

impl InflightQueue {
    fn u16_at(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: in the region, aligned: offsets are even and the region's is a multiple of 8.
        unsafe { AtomicU16::from_ptr(self.base.add(offset).cast()) }
    }

    fn descriptor(&self, head: u16) -> usize {
        DESCRIPTORS + DESC_BYTES * usize::from(head.min(self.size - 1))
    }

    fn flag(&self, head: u16) -> &AtomicU8 {
        // SAFETY: in the region: `descriptor` is of an entry that it has.
        unsafe { AtomicU8::from_ptr(self.base.add(self.descriptor(head))) }
    }

    fn counter_of(&self, head: u16) -> &AtomicU64 {
        // SAFETY: in the region, aligned, as in `u16_at`.
        unsafe { AtomicU64::from_ptr(self.base.add(self.descriptor(head) + COUNTER).cast()) }
    }

    fn next_of(&self, head: u16) -> &AtomicU16 {
        self.u16_at(self.descriptor(head) + NEXT)
    }

    /// Whether the front-end cut it off.
    pub fn is_lost(&self) -> bool {
        self.map.is_lost()
    }

    /// Takes over what a predecessor left, whose used index the ring says: the heads that it took
    /// and never gave back, in the order in which it took them. `None` when there was none.
    pub fn resume(&mut self, used: u16) -> Option<Vec<u16>> {
        if self.u16_at(VERSION).load(Ordering::Acquire) != VERSION_1 {
            self.begin_new(used);
            return None;
        }
        self.end_last_batch(used);
        let mut heads: Vec<(u64, u16)> = (0..self.size)
            .filter(|head| self.flag(*head).load(Ordering::Acquire) != 0)
            .map(|head| (self.counter_of(head).load(Ordering::Relaxed), head))
            .collect();
        heads.sort_unstable();
        self.counter = heads.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        Some(heads.into_iter().map(|(_, head)| head).collect())
    }

    fn begin_new(&mut self, used: u16) {
        self.u16_at(DESC_NUM).store(self.size, Ordering::Relaxed);
        self.u16_at(USED_IDX).store(used, Ordering::Relaxed);
        self.u16_at(VERSION).store(VERSION_1, Ordering::Release);
    }

    /// What was published and not yet taken off the list was answered.
    fn end_last_batch(&mut self, used: u16) {
        let known = self.u16_at(USED_IDX).load(Ordering::Acquire);
        let answered = used.wrapping_sub(known).min(self.size);
        let mut head = self.u16_at(LAST_BATCH_HEAD).load(Ordering::Acquire);
        for _ in 0..answered {
            if head >= self.size {
                break;
            }
            self.flag(head).store(0, Ordering::Release);
            head = self.next_of(head).load(Ordering::Relaxed);
        }
        self.u16_at(USED_IDX).store(used, Ordering::Release);
    }

    /// A request was taken.
    pub fn taken(&mut self, head: u16) {
        self.counter_of(head).store(self.counter, Ordering::Relaxed);
        self.counter = self.counter.wrapping_add(1);
        self.flag(head).store(1, Ordering::Release);
    }

    /// It stands on the used ring, and will be published.
    pub fn given_back(&mut self, head: u16) {
        let last = self.u16_at(LAST_BATCH_HEAD).load(Ordering::Relaxed);
        self.next_of(head).store(last, Ordering::Relaxed);
        self.u16_at(LAST_BATCH_HEAD).store(head, Ordering::Release);
        self.batch.push(head);
    }

    /// Everything given back was published with this used index.
    pub fn published(&mut self, used: u16) {
        for head in std::mem::take(&mut self.batch) {
            self.flag(head).store(0, Ordering::Release);
        }
        self.u16_at(USED_IDX).store(used, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(file: &File, index: u16) -> InflightQueue {
        Inflight::new(file, total_bytes(2, 8), 0, 2, 8).unwrap().queue(index, 8).unwrap()
    }

    #[test]
    fn a_successor_finds_what_was_taken_and_not_given_back_in_its_order() {
        let file = create(2, 8).unwrap();
        let mut first = queue(&file, 1);
        assert_eq!(first.resume(0), None);
        for head in [5, 2, 7, 0] {
            first.taken(head);
        }
        first.given_back(2);
        first.published(1);
        assert_eq!(queue(&file, 1).resume(1), Some(vec![5, 7, 0]));
        assert_eq!(queue(&file, 0).resume(0), None);
        assert_eq!(queue(&file, 0).resume(0), Some(vec![]));
        // Killed between the used index and the list: 5 and 0 were answered.
        first.given_back(5);
        first.given_back(0);
        let mut second = queue(&file, 1);
        assert_eq!(second.resume(3), Some(vec![7]));
        second.taken(2);
        assert_eq!(queue(&file, 1).resume(3), Some(vec![7, 2]));
    }

    #[test]
    fn hostile_contents_end() {
        let file = create(2, 8).unwrap();
        let mut bytes = vec![0xff; total_bytes(2, 8) as usize];
        bytes[VERSION..VERSION + 2].copy_from_slice(&VERSION_1.to_ne_bytes());
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        assert_eq!(queue(&file, 0).resume(3).unwrap().len(), 8);
        // A list of the last batch that is a ring.
        bytes[DESCRIPTORS..].fill(0);
        bytes[LAST_BATCH_HEAD..LAST_BATCH_HEAD + 2].fill(0);
        std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        assert_eq!(queue(&file, 0).resume(0x8000), Some(vec![]));
    }

    #[test]
    fn memory_that_is_too_small_is_refused() {
        let file = create(2, 8).unwrap();
        let len = total_bytes(2, 8);
        assert!(Inflight::new(&file, len, 0, 3, 8).is_err());
        assert!(Inflight::new(&file, len + 1, 0, 2, 8).is_err());
        assert!(Inflight::new(&file, len, 8, 2, 8).is_err());
        assert!(Inflight::new(&file, len, u64::MAX, 2, 8).is_err());
        let inflight = Inflight::new(&file, len, 0, 2, 8).unwrap();
        assert!(inflight.queue(2, 8).is_none() && inflight.queue(0, 16).is_none());
    }
}
