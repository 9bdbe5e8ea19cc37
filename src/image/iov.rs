//! Lists of buffers, and full-length vectored transfers on a descriptor.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::RawFd;

use super::host::to_off;

/// Buffers one system call takes (`UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the file to memory.
    Read,
    /// From memory to the file.
    Write,
}

/// The error for a range outside an image.
pub fn check_range(size: u64, offset: u64, len: u64) -> io::Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{len} bytes at offset {offset} reach past the image's {size} bytes"),
        )),
    }
}

/// The bytes of `bufs` together.
pub fn total_mut(bufs: &[IoSliceMut<'_>]) -> u64 {
    bufs.iter().map(|b| b.len() as u64).sum()
}

/// The bytes of `bufs` together.
pub fn total(bufs: &[IoSlice<'_>]) -> u64 {
    bufs.iter().map(|b| b.len() as u64).sum()
}

/// The bytes of `bufs` together.
pub fn total_raw(bufs: &[libc::iovec]) -> u64 {
    bufs.iter().map(|b| b.iov_len as u64).sum()
}

/// The same buffers as the system calls take them; valid as long as `bufs` is borrowed.
pub fn raw_mut<'a>(bufs: &'a mut [IoSliceMut<'_>]) -> &'a [libc::iovec] {
    // SAFETY: the standard library guarantees that IoSliceMut has the layout of iovec.
    unsafe { std::slice::from_raw_parts(bufs.as_ptr().cast(), bufs.len()) }
}

/// The same buffers as the system calls take them; valid as long as `bufs` is borrowed.
pub fn raw<'a>(bufs: &'a [IoSlice<'_>]) -> &'a [libc::iovec] {
    // SAFETY: the standard library guarantees that IoSlice has the layout of iovec.
    unsafe { std::slice::from_raw_parts(bufs.as_ptr().cast(), bufs.len()) }
}

/// `bufs` without their first `skip` bytes.
pub fn advanced(bufs: &[libc::iovec], mut skip: u64) -> Vec<libc::iovec> {
    let mut rest = Vec::with_capacity(bufs.len());
    for buf in bufs {
        let len = buf.iov_len as u64;
        if skip >= len {
            skip -= len;
            continue;
        }
        // Below `len`, which is a usize.
        let cut = skip as usize;
        let base = buf.iov_base.cast::<u8>().wrapping_add(cut).cast();
        rest.push(libc::iovec { iov_base: base, iov_len: buf.iov_len - cut });
        skip = 0;
    }
    rest
}

/// Zeroes every byte of `bufs`.
///
/// # Safety
/// Every buffer is writable memory that nothing else refers to.
pub unsafe fn zero(bufs: &[libc::iovec]) {
    for buf in bufs {
        // SAFETY: the caller vouches for the buffers.
        unsafe { std::ptr::write_bytes(buf.iov_base.cast::<u8>(), 0, buf.iov_len) };
    }
}

/// One transfer, which may be short, with the RWF_* `flags`.
///
/// # Safety
/// Every buffer is valid for `direction`.
pub unsafe fn transfer_once(
    fd: RawFd,
    direction: Direction,
    bufs: &[libc::iovec],
    offset: u64,
    flags: libc::c_int,
) -> io::Result<u64> {
    let count = bufs.len().min(IOV_MAX) as libc::c_int;
    let at = to_off(offset)?;
    loop {
        // SAFETY: the caller vouches for the buffers; `count` of them are passed.
        let done = unsafe {
            match (direction, flags) {
                (Direction::Read, 0) => libc::preadv(fd, bufs.as_ptr(), count, at),
                (Direction::Write, 0) => libc::pwritev(fd, bufs.as_ptr(), count, at),
                (Direction::Read, _) => libc::preadv2(fd, bufs.as_ptr(), count, at, flags),
                (Direction::Write, _) => libc::pwritev2(fd, bufs.as_ptr(), count, at, flags),
            }
        };
        if done >= 0 {
            return Ok(done as u64);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Transfers everything, through short transfers and interruptions; returns less than the total
/// only for a read that met the end of the file.
///
/// # Safety
/// Every buffer is valid for `direction`.
pub unsafe fn transfer(
    fd: RawFd,
    direction: Direction,
    bufs: &[libc::iovec],
    offset: u64,
) -> io::Result<u64> {
    let want = total_raw(bufs);
    // SAFETY: as for this function.
    let mut done = unsafe { transfer_once(fd, direction, bufs, offset, 0) }?;
    while done < want {
        let rest = advanced(bufs, done);
        // SAFETY: parts of the caller's buffers.
        let more = unsafe { transfer_once(fd, direction, &rest, offset + done, 0) }?;
        if more == 0 {
            return match direction {
                Direction::Read => Ok(done),
                Direction::Write => Err(io::ErrorKind::WriteZero.into()),
            };
        }
        done += more;
    }
    Ok(done)
}

/// Copies `bufs` one after the other into `to`, as far as both reach.
pub fn gather(bufs: &[IoSlice<'_>], to: &mut [u8]) {
    let mut rest = to;
    for buf in bufs {
        let n = buf.len().min(rest.len());
        let (head, tail) = rest.split_at_mut(n);
        head.copy_from_slice(&buf[..n]);
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advancing_cuts_whole_and_partial_buffers() {
        let (mut a, mut b, mut c) = ([1u8; 3], [2u8; 4], [3u8; 2]);
        let list = |p: &mut [u8]| libc::iovec { iov_base: p.as_mut_ptr().cast(), iov_len: p.len() };
        let bufs = [list(&mut a), list(&mut b), list(&mut c)];
        let rest = advanced(&bufs, 4);
        assert_eq!(rest.iter().map(|r| r.iov_len).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(rest[0].iov_base, bufs[1].iov_base.cast::<u8>().wrapping_add(1).cast());
        assert!(advanced(&bufs, 9).is_empty());
        assert_eq!(advanced(&bufs, 0).len(), 3);
    }

    #[test]
    fn ranges_are_checked_without_overflow() {
        assert!(check_range(10, 10, 0).is_ok());
        assert!(check_range(10, 4, 6).is_ok());
        assert!(check_range(10, 4, 7).is_err());
        assert!(check_range(10, u64::MAX, 2).is_err());
    }
}
