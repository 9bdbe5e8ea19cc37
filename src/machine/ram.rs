//! Guest RAM as shared memory: one memfd mapped into this process (and, for QEMU and vhost-user,
//! into theirs). Rings and data are written in place.
//!
//! The guest side (driver) and the device side see the same bytes. Ring indices are read and
//! written atomically; data buffers belong to one side at a time, handed over by the ring.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::base::{Error, GuestAddr, Result};

/// Guest memory as a device reaches it.
pub trait DeviceMemory: Send + Sync {
    /// Host address of a guest range that is contiguous here, or `None` when any of it is not
    /// memory. Valid as long as `self` is.
    fn host(&self, addr: GuestAddr, len: u64) -> Option<*mut u8>;

    /// Host address of the beginning of a guest range, and how much of the range follows there (at
    /// least one byte): all of it, unless memory is in several pieces.
    fn part(&self, addr: GuestAddr, len: u64) -> Option<(*mut u8, u64)> {
        self.host(addr, len).map(|host| (host, len))
    }
}

impl DeviceMemory for GuestRam {
    #[inline]
    fn host(&self, addr: GuestAddr, len: u64) -> Option<*mut u8> {
        Self::host(self, addr, len)
    }
}

/// One contiguous range of guest RAM from address 0 (boards with a PCI hole keep RAM below it).
pub struct GuestRam {
    memory: GuestMemoryMmap,
    base: *mut u8,
    len: u64,
    file: File,
}

// SAFETY: `base` points into `memory`'s mapping, which lives as long as `self`; all access through
// it is by copy, by atomics, or through slices whose exclusive use the ring protocol arranges.
unsafe impl Send for GuestRam {}
// SAFETY: as above; no method needs exclusive access to the struct itself.
unsafe impl Sync for GuestRam {}

impl GuestRam {
    /// `len` bytes (rounded up to pages) of zeroed, lazily allocated shared memory.
    ///
    /// # Errors
    /// A machine error when the system refuses the memory.
    pub fn new(len: u64) -> Result<Self> {
        let fail = |what: &str| Error::machine(format!("guest RAM of {len} bytes: {what}"));
        let len = len.next_multiple_of(4096);
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"qtrace-ram", flags)
            .map_err(|e| fail("memfd_create failed").source(e))?;
        let file = File::from(file);
        file.set_len(len).map_err(|e| fail("cannot be sized").source(e))?;
        // A device that is given the file cannot take memory away by truncating it: who reaches
        // for what is no longer there gets SIGBUS.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))
            .map_err(|e| fail("cannot be sealed").source(e))?;
        Self::from_file(file, len)
    }

    /// Maps `len` bytes of `file` as guest RAM (a file that QEMU maps with `share=on`).
    ///
    /// # Errors
    /// A machine error when it cannot be mapped.
    pub fn from_file(file: File, len: u64) -> Result<Self> {
        let fail = |what: &str| Error::machine(format!("guest RAM of {len} bytes: {what}"));
        let size = usize::try_from(len).map_err(|e| fail("too large").source(e))?;
        let offset = file.try_clone().map_err(|e| fail("dup").source(e))?;
        let mapping = MmapRegion::from_file(FileOffset::new(offset, 0), size)
            .map_err(|e| fail("mmap").source(e))?;
        let base = mapping.as_ptr();
        let region = GuestRegionMmap::new(mapping, GuestAddress(0))
            .ok_or_else(|| fail("does not fit the address space"))?;
        let memory =
            GuestMemoryMmap::from_regions(vec![region]).map_err(|e| fail("regions").source(e))?;
        Ok(Self { memory, base, len, file })
    }

    /// Bytes of RAM; addresses 0..size are valid.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// The shared file behind it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The same memory for the rust-vmm crates (device side).
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Whether the range lies within RAM.
    pub fn contains(&self, addr: GuestAddr, len: u64) -> bool {
        addr.0.checked_add(len).is_some_and(|end| end <= self.len)
    }

    /// Host address of a guest range, or `None` when any of it is outside RAM.
    pub fn host(&self, addr: GuestAddr, len: u64) -> Option<*mut u8> {
        // SAFETY: the range was just checked to lie within the mapping.
        self.contains(addr, len).then(|| unsafe { self.base.add(addr.0 as usize) })
    }

    /// Copies out of RAM. Out-of-range bytes leave `buf` unchanged and return `false`.
    pub fn read(&self, addr: GuestAddr, buf: &mut [u8]) -> bool {
        let Some(host) = self.host(addr, buf.len() as u64) else {
            return false;
        };
        // SAFETY: `host` is valid for `buf.len()` bytes; `buf` is ours and cannot overlap RAM that
        // is only reached through raw pointers.
        unsafe { std::ptr::copy_nonoverlapping(host, buf.as_mut_ptr(), buf.len()) };
        true
    }

    /// Copies into RAM; `false`, and nothing written, when any of the range is outside.
    pub fn write(&self, addr: GuestAddr, buf: &[u8]) -> bool {
        let Some(host) = self.host(addr, buf.len() as u64) else {
            return false;
        };
        // SAFETY: as in `read`, with the direction turned.
        unsafe { std::ptr::copy_nonoverlapping(buf.as_ptr(), host, buf.len()) };
        true
    }

    /// The 16-bit ring field at an even address, for atomic access.
    pub fn atomic_u16(&self, addr: GuestAddr) -> Option<&AtomicU16> {
        let host = self.host(addr, 2).filter(|_| addr.0.is_multiple_of(2))?;
        // SAFETY: in range, aligned (RAM's base is page aligned), and alive as long as `self`.
        Some(unsafe { AtomicU16::from_ptr(host.cast()) })
    }

    /// The 32-bit word at a 4-aligned address, for atomic access.
    pub fn atomic_u32(&self, addr: GuestAddr) -> Option<&AtomicU32> {
        let host = self.host(addr, 4).filter(|_| addr.0.is_multiple_of(4))?;
        // SAFETY: as in `atomic_u16`.
        Some(unsafe { AtomicU32::from_ptr(host.cast()) })
    }

    /// Reads a 16-bit ring field with acquire ordering; 0 outside RAM.
    pub fn load_u16(&self, addr: GuestAddr) -> u16 {
        self.atomic_u16(addr).map_or(0, |cell| u16::from_le(cell.load(Ordering::Acquire)))
    }

    /// Writes a 16-bit ring field with release ordering; nothing outside RAM.
    pub fn store_u16(&self, addr: GuestAddr, value: u16) {
        if let Some(cell) = self.atomic_u16(addr) {
            cell.store(value.to_le(), Ordering::Release);
        }
    }

    /// A buffer in RAM as a slice.
    ///
    /// # Safety
    /// The caller owns the buffer for the slice's lifetime: it was allocated from the guest page
    /// allocator and is not on a ring, or (device side) was taken off one.
    pub unsafe fn slice(&self, addr: GuestAddr, len: usize) -> Option<&[u8]> {
        let host = self.host(addr, len as u64)?;
        // SAFETY: in range and alive with `self`; unaliased writes are the caller's promise.
        Some(unsafe { std::slice::from_raw_parts(host, len) })
    }

    /// A buffer in RAM as a mutable slice.
    ///
    /// # Safety
    /// As [`GuestRam::slice`], and nothing else reads or writes it meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice_mut(&self, addr: GuestAddr, len: usize) -> Option<&mut [u8]> {
        let host = self.host(addr, len as u64)?;
        // SAFETY: in range and alive with `self`; exclusivity is the caller's promise.
        Some(unsafe { std::slice::from_raw_parts_mut(host, len) })
    }

    /// A buffer as an I/O vector to write from; safety as [`GuestRam::slice`].
    ///
    /// # Safety
    /// As [`GuestRam::slice`].
    pub unsafe fn io_slice(&self, addr: GuestAddr, len: usize) -> Option<IoSlice<'_>> {
        // SAFETY: passed on to the caller.
        unsafe { self.slice(addr, len) }.map(IoSlice::new)
    }

    /// A buffer as an I/O vector to read into; safety as [`GuestRam::slice_mut`].
    ///
    /// # Safety
    /// As [`GuestRam::slice_mut`].
    pub unsafe fn io_slice_mut(&self, addr: GuestAddr, len: usize) -> Option<IoSliceMut<'_>> {
        // SAFETY: passed on to the caller.
        unsafe { self.slice_mut(addr, len) }.map(IoSliceMut::new)
    }
}

impl std::fmt::Debug for GuestRam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestRam").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_its_file_cannot_change_its_size() {
        let ram = GuestRam::new(8192).unwrap();
        let theirs = ram.file().try_clone().unwrap();
        for len in [0, 4096, 16384] {
            let error = theirs.set_len(len).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{len}");
        }
        assert!(ram.write(GuestAddr(8190), &[1, 2]));
    }

    #[test]
    fn ranges_are_checked_at_both_ends() {
        let ram = GuestRam::new(8192).unwrap();
        assert!(ram.write(GuestAddr(8190), &[1, 2]));
        assert!(!ram.write(GuestAddr(8191), &[1, 2]));
        assert!(!ram.write(GuestAddr(u64::MAX), &[1]));
        let mut buf = [0; 2];
        assert!(ram.read(GuestAddr(8190), &mut buf));
        assert_eq!(buf, [1, 2]);
        assert!(ram.atomic_u16(GuestAddr(1)).is_none());
        assert!(ram.atomic_u16(GuestAddr(8192)).is_none());
    }
}
