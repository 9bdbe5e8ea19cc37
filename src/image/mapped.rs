//! Comparing stored bytes where they lie in the page cache, without copying them out.
//!
//! Two 4 GiB qcow2 images, half allocated and cached, take 0.57 s of processor time this way, 0.69 s
//! with pread(2) into buffers that stay in the core's cache, and 0.95 s with qemu-img compare.
//!
//! Memory that a file stands behind can change or fail under us, so it is only ever looked at
//! through raw pointers, and it is populated first: what cannot be read is an error from madvise(2)
//! there, and not a SIGBUS here.

use std::fs::File;
use std::os::fd::{AsRawFd, RawFd};

use super::host::to_off;

/// Shorter runs are cheaper to read than to map.
pub const MAPPED_BYTES_MIN: u64 = 256 << 10;

/// Most bytes looked at in one go: what is populated must not be evicted before it is compared.
pub const MAPPED_BYTES_MAX: u64 = 4 << 20;

/// Bytes of a file mapped at a time, from a multiple of it: consecutive runs share one mapping.
const REGION_BYTES: u64 = 64 << 20;

/// The one place of a file that is mapped at the moment.
#[derive(Default)]
pub struct Mapper(Option<Region>);

struct Region {
    fd: RawFd,
    start: u64,
    base: *mut libc::c_void,
    len: usize,
}

impl Mapper {
    /// The address of `len` bytes at `offset` of `file`, which can be read until the next call;
    /// `None` when they cannot be had this way.
    fn populate(&mut self, file: &File, offset: u64, len: u64) -> Option<*const libc::c_void> {
        let fd = file.as_raw_fd();
        let end = offset.checked_add(len)?;
        let fits = |r: &Region| r.fd == fd && r.start <= offset && end <= r.start + r.len as u64;
        if !self.0.as_ref().is_some_and(fits) {
            // The old one goes first: one region at a time.
            self.0 = None;
            self.0 = Some(Region::new(fd, offset, end)?);
        }
        let region = self.0.as_ref()?;
        let skip = (offset - region.start) as usize;
        // madvise(2) wants whole pages.
        let page_skip = skip - skip % PAGE_MULTIPLE as usize;
        // SAFETY: within the region, as `fits` and `new` have it.
        let (at, pages) = unsafe { (region.base.byte_add(skip), region.base.byte_add(page_skip)) };
        // SAFETY: the range is part of our mapping.
        let rc = unsafe {
            libc::madvise(pages, skip - page_skip + len as usize, libc::MADV_POPULATE_READ)
        };
        (rc == 0).then_some(at.cast_const())
    }
}

/// A multiple of every page size.
const PAGE_MULTIPLE: u64 = 64 << 10;

impl Region {
    fn new(fd: RawFd, offset: u64, end: u64) -> Option<Self> {
        let start = offset - offset % REGION_BYTES;
        // Long enough for a run that goes on into the next region.
        let len = usize::try_from((end - start).max(REGION_BYTES)).ok()?;
        let at = to_off(start).ok()?;
        // SAFETY: a new mapping at a place of the kernel's choosing disturbs nothing.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, at)
        };
        (base != libc::MAP_FAILED).then_some(Self { fd, start, base, len })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: our mapping, of this length, unmapped once.
        unsafe { libc::munmap(self.base, self.len) };
    }
}

/// Bytes of a file: which, from where, and the place to map them.
pub struct Stored<'a> {
    /// The file.
    pub file: &'a File,
    /// Where in it.
    pub offset: u64,
    /// Used for no other file at the same time.
    pub mapper: &'a mut Mapper,
}

/// Whether `len` bytes of `a` equal those of `b`; `None` when they must be read to know.
pub fn equal(a: Stored<'_>, b: Stored<'_>, len: u64) -> Option<bool> {
    let x = a.mapper.populate(a.file, a.offset, len)?;
    let y = b.mapper.populate(b.file, b.offset, len)?;
    // SAFETY: both point to `len` populated bytes of mappings that the two mappers still hold.
    let order = unsafe { libc::memcmp(x, y, len as usize) };
    Some(order == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn compare(a: (&File, u64), b: (&File, u64), len: u64) -> Option<bool> {
        let (mut x, mut y) = (Mapper::default(), Mapper::default());
        let a = Stored { file: a.0, offset: a.1, mapper: &mut x };
        equal(a, Stored { file: b.0, offset: b.1, mapper: &mut y }, len)
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn equal_runs_at_unequal_offsets() {
        let mut bytes = vec![0; 300 << 10];
        crate::base::Prng::new(1).fill(&mut bytes);
        let shifted = [&[1; 777][..], &bytes].concat();
        let (a, b) = (file(&bytes), file(&shifted));
        let len = bytes.len() as u64;
        assert_eq!(compare((&a, 0), (&b, 777), len), Some(true));
        assert_eq!(compare((&a, 5), (&b, 782), len - 5), Some(true));
        assert_eq!(compare((&a, 0), (&b, 776), len), Some(false));
    }

    #[test]
    fn what_the_file_does_not_have_is_not_touched() {
        let a = file(&[0; 100]);
        assert_eq!(compare((&a, 0), (&a, 0), 1 << 20), None);
        assert_eq!(compare((&a, u64::MAX - 5), (&a, 0), 3), None);
    }
}
