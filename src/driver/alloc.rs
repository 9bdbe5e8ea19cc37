//! Pages of guest RAM for rings and buffers.
//!
//! Buffers come in power-of-two classes, each with a last-in first-out free list, so that a steady
//! load uses the same (cached) pages again and again. Blocks are split when their own class is
//! empty and merged with their buddies only when memory runs out: neither happens on the hot path.

use std::sync::Arc;

use super::Buffer;
use crate::base::{Error, GuestAddr, Result};
use crate::machine::GuestRam;

/// The unit of allocation.
pub const PAGE_BYTES: u64 = 4096;

/// Guest RAM below this belongs to the firmware's and the PC's fixed areas.
pub const POOL_START: u64 = 1 << 20;

/// Guest RAM above this would collide with the memory-mapped configuration space of q35.
pub const POOL_END_MAX: u64 = 0xb000_0000;

/// Largest block: 4 KiB << 15 = 128 MiB, beyond any transfer a driver makes.
const ORDER_MAX: usize = 15;

/// What a page is, when it is the first of a block; the low bits hold the order.
const NOT_A_BLOCK: u8 = 0;
const FREE: u8 = 0x40;
const LENT: u8 = 0x80;

/// Allocator of contiguous, page-aligned pieces of guest RAM.
#[derive(Debug)]
pub struct PageAllocator {
    ram: Arc<GuestRam>,
    /// Guest address of page 0.
    base: u64,
    /// One mark a page: double frees and forged buffers are seen here.
    marks: Box<[u8]>,
    /// First page never handed out.
    fresh: u32,
    /// End of the pages for buffers; permanent areas are taken from the end of RAM downwards.
    end: u32,
    free: Vec<Vec<u32>>,
    lent: usize,
    /// Whether a block was freed since the last merge, so that merging could help.
    may_merge: bool,
}

impl PageAllocator {
    /// An allocator over all of `ram` that drivers may use, for buffers up to `buffer_bytes_max`.
    ///
    /// # Errors
    /// A machine error when RAM is too small for two such buffers.
    pub fn new(ram: Arc<GuestRam>, buffer_bytes_max: usize) -> Result<Self> {
        Self::with_range(ram, POOL_START, POOL_END_MAX, buffer_bytes_max)
    }

    /// As [`PageAllocator::new`], over the guest addresses `start..end` cut to RAM's size; for
    /// several drivers on one machine.
    ///
    /// # Errors
    /// A machine error when the range is too small for two such buffers.
    pub fn with_range(
        ram: Arc<GuestRam>,
        start: u64,
        end: u64,
        buffer_bytes_max: usize,
    ) -> Result<Self> {
        let start = start.next_multiple_of(PAGE_BYTES);
        let end = end.min(ram.size());
        let pages = u32::try_from(end.saturating_sub(start) / PAGE_BYTES).unwrap_or(u32::MAX);
        let order = order_of(buffer_bytes_max).filter(|order| pages >> order >= 2);
        let Some(order) = order else {
            let text = format!(
                "guest RAM of {} bytes is too small for transfers of {buffer_bytes_max} bytes",
                ram.size()
            );
            return Err(Error::machine(text).hint("give the machine more RAM"));
        };
        Ok(Self {
            ram,
            base: start,
            marks: vec![NOT_A_BLOCK; pages as usize].into_boxed_slice(),
            fresh: 0,
            end: pages,
            free: vec![Vec::new(); order + 1],
            lent: 0,
            may_merge: false,
        })
    }

    /// The RAM the pages are in.
    pub fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// Buffers in the hands of callers.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Takes `bytes` of zeroed, page-aligned, contiguous RAM for as long as the allocator lives:
    /// rings, tables.
    ///
    /// # Errors
    /// A machine error when RAM is used up.
    pub fn permanent(&mut self, bytes: u64) -> Result<GuestAddr> {
        let pages = u32::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(u32::MAX);
        let start = self.end.checked_sub(pages).filter(|start| *start >= self.fresh);
        let Some(start) = start else {
            let text = format!("guest RAM of {} bytes has no room for rings", self.ram.size());
            return Err(Error::machine(text).hint("give the machine more RAM or fewer queues"));
        };
        self.end = start;
        let addr = GuestAddr(self.base + u64::from(start) * PAGE_BYTES);
        // RAM may be a file that a former run left full.
        for page in 0..u64::from(pages) {
            self.ram.write(addr + page * PAGE_BYTES, &[0; PAGE_BYTES as usize]);
        }
        Ok(addr)
    }

    /// A buffer of at least `len` bytes, or `None` when no such block is free.
    #[inline]
    pub fn alloc(&mut self, len: usize) -> Option<Buffer> {
        let order = order_of(len).filter(|order| *order < self.free.len())?;
        let page = match self.free[order].pop() {
            Some(page) => page,
            None => self.refill(order)?,
        };
        self.marks[page as usize] = LENT | order as u8;
        self.lent += 1;
        let addr = GuestAddr(self.base + u64::from(page) * PAGE_BYTES);
        Some(Buffer { addr, len: (PAGE_BYTES as usize) << order, class: order as u8 })
    }

    /// Takes a buffer back. A buffer that is not lent (made by hand, from another allocator) is
    /// refused with `false` and changes nothing.
    #[inline]
    pub fn free(&mut self, buffer: Buffer) -> bool {
        let Some(page) = self.page_of(&buffer) else {
            return false;
        };
        let order = usize::from(buffer.class);
        self.marks[page as usize] = FREE | buffer.class;
        self.free[order].push(page);
        self.lent -= 1;
        self.may_merge = true;
        true
    }

    /// Whether `buffer` is one this allocator lent and has not got back.
    #[inline]
    pub fn owns(&self, buffer: &Buffer) -> bool {
        self.page_of(buffer).is_some()
    }

    /// The first page of a lent buffer whose fields are all as they were lent.
    #[inline]
    fn page_of(&self, buffer: &Buffer) -> Option<u32> {
        let offset = buffer.addr.0.checked_sub(self.base)?;
        let page = usize::try_from(offset / PAGE_BYTES).ok()?;
        let lent = offset % PAGE_BYTES == 0
            && usize::from(buffer.class) < self.free.len()
            && self.marks.get(page) == Some(&(LENT | buffer.class))
            && buffer.len == (PAGE_BYTES as usize) << buffer.class;
        lent.then_some(page as u32)
    }

    /// A block of `order` from larger ones, from memory never used, or after merging.
    #[cold]
    fn refill(&mut self, order: usize) -> Option<u32> {
        if let Some(page) = self.split(order).or_else(|| self.carve(order)) {
            return Some(page);
        }
        if !std::mem::take(&mut self.may_merge) {
            return None;
        }
        self.merge();
        self.free[order].pop().or_else(|| self.split(order))
    }

    /// Splits the smallest free block above `order`; the upper halves go to their lists.
    fn split(&mut self, order: usize) -> Option<u32> {
        let from = (order + 1..self.free.len()).find(|o| !self.free[*o].is_empty())?;
        let page = self.free[from].pop()?;
        for half in (order..from).rev() {
            self.put_free(page + (1 << half), half);
        }
        Some(page)
    }

    /// Takes a largest block from memory never used and splits it. When less than one is left,
    /// the rest goes to the lists in the pieces it has.
    fn carve(&mut self, order: usize) -> Option<u32> {
        let top = self.free.len() - 1;
        while self.fresh < self.end {
            let left = self.end - self.fresh;
            let aligned = (self.fresh.trailing_zeros() as usize).min(top);
            let piece = aligned.min(left.ilog2() as usize);
            let page = self.fresh;
            self.fresh += 1 << piece;
            self.put_free(page, piece);
            if piece >= order {
                return self.free[order].pop().or_else(|| self.split(order));
            }
        }
        None
    }

    fn put_free(&mut self, page: u32, order: usize) {
        self.marks[page as usize] = FREE | order as u8;
        self.free[order].push(page);
    }

    /// Joins free buddies, smallest first, so that a run of small requests never starves a large
    /// one: with nothing lent, every largest block is whole again.
    fn merge(&mut self) {
        for order in 0..self.free.len() - 1 {
            let mark = FREE | order as u8;
            for page in std::mem::take(&mut self.free[order]) {
                let buddy = page ^ (1 << order);
                if self.marks[page as usize] != mark {
                    continue; // joined by its buddy
                }
                if self.marks.get(buddy as usize) == Some(&mark) {
                    self.marks[page as usize] = NOT_A_BLOCK;
                    self.marks[buddy as usize] = NOT_A_BLOCK;
                    self.put_free(page.min(buddy), order + 1);
                } else {
                    self.free[order].push(page);
                }
            }
        }
    }
}

/// The smallest order whose blocks hold `len` bytes; `None` past the largest.
#[inline]
fn order_of(len: usize) -> Option<usize> {
    let pages = len.div_ceil(PAGE_BYTES as usize).max(1);
    let order = pages.checked_next_power_of_two()?.trailing_zeros() as usize;
    (order <= ORDER_MAX).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn pool(ram_bytes: u64, buffer_max: usize) -> PageAllocator {
        let ram = Arc::new(GuestRam::new(ram_bytes).unwrap());
        PageAllocator::new(ram, buffer_max).unwrap()
    }

    fn copy(b: &Buffer) -> Buffer {
        Buffer { addr: b.addr, len: b.len, class: b.class }
    }

    #[test]
    fn steady_load_reuses_the_same_pages() {
        let mut pool = pool(8 << 20, 1 << 20);
        let first = pool.alloc(4096).unwrap();
        let addr = first.addr;
        assert!(pool.free(first));
        for _ in 0..100 {
            let again = pool.alloc(1).unwrap();
            assert_eq!(again.addr, addr);
            assert!(pool.free(again));
        }
        assert_eq!(pool.fresh, 256, "one 1 MiB block was opened, and no more");
    }

    #[test]
    fn double_free_and_forged_buffers_are_refused() {
        let mut pool = pool(4 << 20, 64 << 10);
        let buffer = pool.alloc(8192).unwrap();
        let twin = copy(&buffer);
        let mut forged = copy(&buffer);
        forged.class = 2;
        assert!(!pool.free(forged));
        let shifted = Buffer { addr: buffer.addr + 4096, len: 4096, class: 0 };
        assert!(!pool.free(shifted));
        assert!(pool.free(buffer));
        assert!(!pool.owns(&twin));
        assert!(!pool.free(twin));
        let outside = Buffer { addr: GuestAddr(0), len: 4096, class: 0 };
        assert!(!pool.free(outside));
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn exhaustion_is_none_and_small_blocks_merge_back_into_large_ones() {
        let mut pool = pool(5 << 20, 1 << 20);
        let small: Vec<_> = std::iter::from_fn(|| pool.alloc(4096)).collect();
        assert_eq!(small.len(), 4 << 8);
        assert!(pool.alloc(1 << 20).is_none());
        for buffer in small {
            assert!(pool.free(buffer));
        }
        let large: Vec<_> = std::iter::from_fn(|| pool.alloc(1 << 20)).collect();
        assert_eq!(large.len(), 4);
        assert!(pool.alloc(1).is_none());
        assert!(pool.alloc(usize::MAX).is_none());
        assert!(pool.alloc((1 << 20) + 1).is_none(), "past the largest class");
    }

    #[test]
    fn permanent_areas_and_buffers_never_overlap() {
        let mut pool = pool((3 << 20) + 4096 * 3, 512 << 10);
        let ring = pool.permanent(4097).unwrap();
        assert_eq!(ring.0 + 8192, (3 << 20) + 4096 * 3);
        let mut end = 0;
        while let Some(buffer) = pool.alloc(4096) {
            end = end.max(buffer.addr.0 + buffer.len as u64);
        }
        assert_eq!(end, ring.0);
        assert!(pool.permanent(1).is_err());
    }

    #[test]
    fn random_load_keeps_blocks_disjoint() {
        let mut pool = pool(3 << 20, 256 << 10);
        let mut prng = Prng::new(7);
        let mut held: Vec<Buffer> = Vec::new();
        let mut owner = vec![false; (3 << 20) / 4096];
        for _ in 0..20_000 {
            if prng.below(2) == 0 {
                if let Some(buffer) = pool.alloc(1 + prng.below(256 << 10) as usize) {
                    let first = (buffer.addr.0 / 4096) as usize;
                    for page in &mut owner[first..first + buffer.len / 4096] {
                        assert!(!std::mem::replace(page, true), "page lent twice");
                    }
                    held.push(buffer);
                }
            } else if !held.is_empty() {
                let buffer = held.swap_remove(prng.below(held.len() as u64) as usize);
                let first = (buffer.addr.0 / 4096) as usize;
                owner[first..first + buffer.len / 4096].fill(false);
                assert!(pool.free(buffer));
            }
        }
        assert_eq!(pool.lent(), held.len());
    }

    #[test]
    fn too_little_ram_is_said() {
        let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
        let error = PageAllocator::new(ram, 4096).unwrap_err();
        assert!(error.to_string().contains("too small"), "{error}");
    }
}
