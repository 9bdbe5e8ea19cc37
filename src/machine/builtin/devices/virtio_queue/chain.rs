//! A descriptor chain, resolved to host buffers.

use std::io::{IoSlice, IoSliceMut};

use super::{CHAIN_DESCRIPTORS_MAX, Descriptor, RingError};
use crate::base::GuestAddr;
use crate::machine::DeviceMemory;
use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;

/// The buffers of one chain: readable ones first, then writable ones. Reused for every request, so
/// nothing is allocated on the way.
pub struct Chain {
    head: u16,
    iov: Vec<libc::iovec>,
    /// How many of `iov` the device reads.
    readable: usize,
    /// Descriptors seen, empty ones included.
    descriptors: usize,
    readable_bytes: u64,
    writable_bytes: u64,
    writable_seen: bool,
}

// SAFETY: the vectors point into guest RAM, which is shared between threads by design and outlives
// the machine's queues.
unsafe impl Send for Chain {}

impl Default for Chain {
    fn default() -> Self {
        Self {
            head: 0,
            iov: Vec::with_capacity(CHAIN_DESCRIPTORS_MAX),
            readable: 0,
            descriptors: 0,
            readable_bytes: 0,
            writable_bytes: 0,
            writable_seen: false,
        }
    }
}

impl Chain {
    #[inline]
    pub(super) fn start(&mut self, head: u16) {
        self.head = head;
        self.iov.clear();
        self.readable = 0;
        self.descriptors = 0;
        self.readable_bytes = 0;
        self.writable_bytes = 0;
        self.writable_seen = false;
    }

    #[inline]
    pub(super) fn push<M: DeviceMemory>(
        &mut self,
        ram: &M,
        desc: Descriptor,
    ) -> Result<(), RingError> {
        let writable = desc.has(VRING_DESC_F_WRITE);
        if self.writable_seen && !writable {
            return Err(RingError::Order);
        }
        self.writable_seen = writable;
        self.descriptors += 1;
        if self.descriptors > CHAIN_DESCRIPTORS_MAX {
            return Err(RingError::ChainLength);
        }
        let len = u64::from(desc.len);
        if len == 0 {
            // Nothing forbids an empty buffer, and nothing is in it.
            return ram.host(GuestAddr(desc.addr), 0).map(drop).ok_or(RingError::Address);
        }
        let (host, part) = ram.part(GuestAddr(desc.addr), len).ok_or(RingError::Address)?;
        self.push_part(host, part, writable);
        if part < len {
            return self.push_rest(ram, desc, part);
        }
        Ok(())
    }

    #[inline]
    fn push_part(&mut self, host: *mut u8, len: u64, writable: bool) {
        self.iov.push(libc::iovec { iov_base: host.cast(), iov_len: len as usize });
        if writable {
            self.writable_bytes += len;
        } else {
            self.readable += 1;
            self.readable_bytes += len;
        }
    }

    /// A buffer that lies in several pieces of memory: what is behind its first `done` bytes.
    #[cold]
    fn push_rest<M: DeviceMemory>(
        &mut self,
        ram: &M,
        desc: Descriptor,
        mut done: u64,
    ) -> Result<(), RingError> {
        let len = u64::from(desc.len);
        while done < len {
            if self.iov.len() >= CHAIN_DESCRIPTORS_MAX {
                return Err(RingError::ChainLength);
            }
            let addr = desc.addr.checked_add(done).ok_or(RingError::Address)?;
            let part = ram.part(GuestAddr(addr), len - done);
            let (host, part) = part.filter(|(_, part)| *part > 0).ok_or(RingError::Address)?;
            self.push_part(host, part, desc.has(VRING_DESC_F_WRITE));
            done += part;
        }
        Ok(())
    }

    /// The descriptor the driver knows it by.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// Bytes the device may read that were not taken yet.
    pub fn readable_bytes(&self) -> u64 {
        self.readable_bytes
    }

    /// Bytes the device may write that were not taken yet.
    pub fn writable_bytes(&self) -> u64 {
        self.writable_bytes
    }

    /// Takes `N` bytes off the front of the readable part, however they are laid out; `None`, and
    /// nothing taken, when there are fewer.
    #[inline]
    pub fn take_readable<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.readable_bytes < N as u64 {
            return None;
        }
        let mut out = [0; N];
        // The usual case: one buffer that holds exactly this. It becomes empty and stays, so that
        // the others need not move; `readable` and `writable` leave empty ones at the front out.
        let mut filled = 0;
        for iov in self.iov.iter_mut().take(self.readable) {
            let n = iov.iov_len.min(N - filled);
            // SAFETY: `push` found `iov_len` bytes at `iov_base` in RAM, and n is at most that;
            // `out` has N bytes, of which filled + n are at most all.
            unsafe {
                let to = out.as_mut_ptr().add(filled);
                std::ptr::copy_nonoverlapping(iov.iov_base.cast::<u8>(), to, n);
                iov.iov_base = iov.iov_base.cast::<u8>().add(n).cast();
            }
            iov.iov_len -= n;
            filled += n;
            if filled == N {
                break;
            }
        }
        self.readable_bytes -= N as u64;
        Some(out)
    }

    /// Takes the last writable byte: where a block request's status goes. The pointer stays valid
    /// as long as RAM is mapped.
    #[inline]
    pub fn take_last_writable(&mut self) -> Option<*mut u8> {
        if self.writable_bytes == 0 {
            return None;
        }
        let last = self.iov.last_mut()?;
        last.iov_len -= 1;
        // SAFETY: `push` found the old length in RAM and kept it above 0, so this is its last byte.
        let byte = unsafe { last.iov_base.cast::<u8>().add(last.iov_len) };
        if last.iov_len == 0 {
            self.iov.pop();
        }
        self.writable_bytes -= 1;
        Some(byte)
    }

    /// The readable buffers that are left.
    #[inline]
    pub fn readable(&self) -> &[libc::iovec] {
        let all = self.iov.get(..self.readable).unwrap_or(&[]);
        let used_up = all.iter().take_while(|iov| iov.iov_len == 0).count();
        &all[used_up..]
    }

    /// The writable buffers that are left.
    #[inline]
    pub fn writable(&self) -> &[libc::iovec] {
        self.iov.get(self.readable..).unwrap_or(&[])
    }

    /// [`Chain::readable`] for an image to write from.
    pub fn io_slices(&self) -> &[IoSlice<'_>] {
        let iov = self.readable();
        // SAFETY: `IoSlice` is ABI compatible with `iovec` on Unix (its documentation says so). The
        // bytes belong to the device until it gives the chain back; that a hostile driver may write
        // to them meanwhile is the nature of shared memory, and no code depends on their value.
        unsafe { std::slice::from_raw_parts(iov.as_ptr().cast(), iov.len()) }
    }

    /// [`Chain::writable`] for an image to read into.
    pub fn io_slices_mut(&mut self) -> &mut [IoSliceMut<'_>] {
        let iov = self.iov.get_mut(self.readable..).unwrap_or(&mut []);
        // SAFETY: as `io_slices`; `&mut self` makes these the only Rust slices of them.
        unsafe { std::slice::from_raw_parts_mut(iov.as_mut_ptr().cast(), iov.len()) }
    }

    /// Copies `bytes` to the front of the writable buffers; how many fitted.
    pub fn fill(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        for iov in self.writable() {
            let rest = bytes.get(done..).unwrap_or(&[]);
            let n = iov.iov_len.min(rest.len());
            // SAFETY: the buffer has `iov_len` bytes of RAM, `rest` at least n.
            unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), iov.iov_base.cast(), n) };
            done += n;
        }
        done
    }
}
