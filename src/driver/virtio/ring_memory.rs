//! The driver's raw view of guest RAM: arrays of atomic cells whose bounds are checked once, when
//! they are made, and never on the hot path. All unsafe code of the drivers is in this file.
//!
//! The device may be another thread or another process and may write anywhere at any time, so
//! everything shared is read and written through atomics (relaxed ones compile to plain moves).

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use crate::base::GuestAddr;
use crate::driver::Buffer;
use crate::driver::alloc::PageAllocator;
use crate::machine::GuestRam;

mod sealed {
    /// Types that are valid for every bit pattern and safe to share with the device.
    pub trait Cell {}
    impl Cell for super::AtomicU8 {}
    impl Cell for super::AtomicU16 {}
    impl Cell for super::AtomicU32 {}
    impl Cell for super::AtomicU64 {}
}

/// A power-of-two number of atomic cells in guest RAM. Indices wrap, as ring indices do, which is
/// also why no access can leave the array.
#[derive(Debug)]
pub struct Cells<A> {
    first: NonNull<A>,
    mask: usize,
    /// Keeps the mapping alive.
    _ram: Arc<GuestRam>,
}

// SAFETY: the cells are atomics in a mapping that `_ram` keeps alive and that any thread may use.
unsafe impl<A: sealed::Cell> Send for Cells<A> {}
// SAFETY: as above; `&Cells` gives out only `&A` of atomics.
unsafe impl<A: sealed::Cell> Sync for Cells<A> {}

impl<A: sealed::Cell> Cells<A> {
    /// `count` cells at `addr`; `None` when `count` is not a power of two, the address is not
    /// aligned for the cell, or any of it lies outside RAM.
    pub fn new(ram: &Arc<GuestRam>, addr: GuestAddr, count: usize) -> Option<Self> {
        let bytes = count.checked_mul(size_of::<A>())?;
        let host = ram.host(addr, bytes as u64)?.cast::<A>();
        let usable = count.is_power_of_two() && host.is_aligned();
        let first = NonNull::new(host).filter(|_| usable)?;
        Some(Self { first, mask: count - 1, _ram: ram.clone() })
    }

    /// The cell at `index` modulo the number of cells.
    #[inline]
    pub fn at(&self, index: usize) -> &A {
        // SAFETY: `new` checked that `mask + 1` aligned cells lie within the mapping, which lives
        // as long as `self`; atomics are valid for any bytes and may change under our feet.
        unsafe { self.first.add(index & self.mask).as_ref() }
    }
}

/// The bytes of a buffer the caller holds; empty for a buffer that `pool` has not lent.
pub fn bytes<'a>(pool: &'a PageAllocator, buffer: &'a Buffer) -> &'a [u8] {
    if !pool.owns(buffer) {
        return &[];
    }
    // SAFETY: the buffer is lent and in the caller's hands (submitting moves it away), so nothing
    // writes it while the shared borrows of `pool` and `buffer` last.
    unsafe { pool.ram().slice(buffer.addr, buffer.len) }.unwrap_or(&[])
}

/// The bytes of a buffer the caller holds, to fill; empty for one that `pool` has not lent.
pub fn bytes_mut<'a>(pool: &'a mut PageAllocator, buffer: &'a mut Buffer) -> &'a mut [u8] {
    if !pool.owns(buffer) {
        return &mut [];
    }
    // SAFETY: as in `bytes`; the exclusive borrows make this the only slice of it.
    unsafe { pool.ram().slice_mut(buffer.addr, buffer.len) }.unwrap_or(&mut [])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn bounds_and_alignment_are_checked_when_made() {
        let ram = Arc::new(GuestRam::new(8192).unwrap());
        assert!(Cells::<AtomicU64>::new(&ram, GuestAddr(4096), 512).is_some());
        assert!(Cells::<AtomicU64>::new(&ram, GuestAddr(4096), 1024).is_none());
        assert!(Cells::<AtomicU64>::new(&ram, GuestAddr(4), 1).is_none());
        assert!(Cells::<AtomicU16>::new(&ram, GuestAddr(0), 3).is_none());
        assert!(Cells::<AtomicU64>::new(&ram, GuestAddr(0), usize::MAX / 2 + 1).is_none());
    }

    #[test]
    fn indices_wrap() {
        let ram = Arc::new(GuestRam::new(4096).unwrap());
        let cells = Cells::<AtomicU16>::new(&ram, GuestAddr(64), 4).unwrap();
        cells.at(5).store(0x1234, Ordering::Relaxed);
        assert_eq!(ram.load_u16(GuestAddr(66)), 0x1234);
    }

    #[test]
    fn a_forged_buffer_has_no_bytes() {
        let ram = Arc::new(GuestRam::new(4 << 20).unwrap());
        let mut pool = PageAllocator::new(ram, 4096).unwrap();
        let mut real = pool.alloc(100).unwrap();
        bytes_mut(&mut pool, &mut real)[99] = 7;
        assert_eq!((bytes(&pool, &real).len(), bytes(&pool, &real)[99]), (4096, 7));
        let mut forged = Buffer { addr: GuestAddr(0), len: 64, class: 0 };
        assert!(bytes(&pool, &forged).is_empty());
        assert!(bytes_mut(&mut pool, &mut forged).is_empty());
    }
}
