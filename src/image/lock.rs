//! QEMU's image locks: open-file-description byte-range locks, one byte per permission.
//!
//! QEMU (`block/file-posix.c`) marks what it does with a file by read locks: byte 100 + n says
//! "I use permission n", byte 200 + n says "nobody else may use permission n". Whoever opens a file
//! takes its own bytes first and then tests the opposite ones for somebody else's lock. The locks
//! belong to the open file description, so they vanish with the process, whatever kills it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::host::HostFile;
use crate::base::{Error, Result};

/// First byte of "I use this permission".
const RAW_LOCK_PERM_BASE: i64 = 100;
/// First byte of "I do not share this permission".
const RAW_LOCK_SHARED_BASE: i64 = 200;

/// What is read stays what was written.
const BLK_PERM_CONSISTENT_READ: u8 = 1 << 0;
/// Changing guest-visible bytes.
const BLK_PERM_WRITE: u8 = 1 << 1;
/// Writing bytes that are there already.
const BLK_PERM_WRITE_UNCHANGED: u8 = 1 << 2;
/// Changing the length of the file.
const BLK_PERM_RESIZE: u8 = 1 << 3;

/// The permissions in the order of their bits, with QEMU's names.
const PERMISSIONS: [(u8, &str); 4] = [
    (BLK_PERM_CONSISTENT_READ, "consistent read"),
    (BLK_PERM_WRITE, "write"),
    (BLK_PERM_WRITE_UNCHANGED, "write unchanged"),
    (BLK_PERM_RESIZE, "resize"),
];

/// What we never let others do while we have an image open, reading or writing.
const NOT_SHARED: u8 = BLK_PERM_WRITE | BLK_PERM_RESIZE;

/// How long somebody else's lock may last before the image counts as in use. The kernel drops the
/// locks of a killed program that used io_uring only when the last of its requests is done, a
/// while after the program itself is gone: whoever starts the next one at once should not fail.
const PATIENCE: Duration = Duration::from_millis(500);

/// From one look to the next. Nothing tells when a lock goes: one that waits (F_OFD_SETLKW) has no
/// time limit, and would be taken where others' bytes are only to be looked at.
const NAP: Duration = Duration::from_millis(5);

/// Takes QEMU's locks on `file` for reading, or for writing too; an image that somebody else
/// writes (or, for writing, reads) is refused. The locks last as long as any duplicate of the
/// descriptor. File systems without such locks are used without, as QEMU does.
pub fn take(file: &HostFile, writable: bool) -> Result<()> {
    let used = if writable {
        BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE
    } else {
        BLK_PERM_CONSISTENT_READ
    };
    match mark(file.fd(), used).and_then(|()| lasting_conflict(file.fd(), used)) {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(in_use(file, writable, &what)),
        Err(e) if unsupported(&e) => {
            tracing::warn!(path = %file.path.display(), "no locks on this file system: {e}");
            Ok(())
        }
        Err(e) => Err(Error::input("cannot lock the image").path(&file.path).source(e)),
    }
}

/// Whether the file system of `file` has such locks.
pub fn works(file: &HostFile) -> bool {
    !is_locked(file.fd(), RAW_LOCK_PERM_BASE).is_err_and(|e| unsupported(&e))
}

fn unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOLCK | libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)
    )
}

/// Takes our own bytes.
fn mark(fd: RawFd, used: u8) -> io::Result<()> {
    for (n, (bit, _)) in (0i64..).zip(PERMISSIONS) {
        if used & bit != 0 {
            set_read_lock(fd, RAW_LOCK_PERM_BASE + n)?;
        }
        if NOT_SHARED & bit != 0 {
            set_read_lock(fd, RAW_LOCK_SHARED_BASE + n)?;
        }
    }
    Ok(())
}

/// What is still in the way after [`PATIENCE`].
fn lasting_conflict(fd: RawFd, used: u8) -> io::Result<Option<String>> {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = conflict(fd, used)?;
        if found.is_none() || Instant::now() >= end {
            return Ok(found);
        }
        sleep(NAP);
    }
}

/// Tests everybody else's bytes; says what is in the way.
fn conflict(fd: RawFd, used: u8) -> io::Result<Option<String>> {
    for (n, (bit, name)) in (0i64..).zip(PERMISSIONS) {
        if used & bit != 0 && is_locked(fd, RAW_LOCK_SHARED_BASE + n)? {
            return Ok(Some(format!("another program does not share \"{name}\"")));
        }
        if NOT_SHARED & bit != 0 && is_locked(fd, RAW_LOCK_PERM_BASE + n)? {
            return Ok(Some(format!("another program holds \"{name}\"")));
        }
    }
    Ok(None)
}

fn range(kind: libc::c_int, at: i64) -> libc::flock {
    // SAFETY: an all-zero flock is valid; l_pid must be 0 for OFD locks.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    // The F_*LCK and SEEK_* constants are small; the fields are shorts.
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = at;
    lock.l_len = 1;
    lock
}

fn set_read_lock(fd: RawFd, at: i64) -> io::Result<()> {
    let lock = range(libc::F_RDLCK, at);
    // SAFETY: the descriptor is open and `lock` outlives the call.
    let rc = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn is_locked(fd: RawFd, at: i64) -> io::Result<bool> {
    let mut lock = range(libc::F_WRLCK, at);
    // SAFETY: the descriptor is open and `lock` outlives the call.
    let rc = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) };
    if rc < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn in_use(file: &HostFile, writable: bool, what: &str) -> Error {
    let verb = if writable { "written" } else { "read" };
    Error::input(format!("the image is in use and cannot be {verb} now: {what}"))
        .path(&file.path)
        .hint("stop the VM, qemu-nbd or qtrace that has it open, or work on a copy of it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(path: &Path, writable: bool) -> HostFile {
        HostFile::open(path, writable).unwrap()
    }

    #[test]
    fn one_writer_or_many_readers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 512]).unwrap();
        let (a, b) = (open(&path, true), open(&path, true));
        take(&a, true).unwrap();
        let error = take(&b, true).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        assert!(error.to_string().contains("disk"), "{error}");
        assert!(take(&open(&path, false), false).is_err());
        drop((a, b));
        let (a, b) = (open(&path, false), open(&path, false));
        take(&a, false).unwrap();
        take(&b, false).unwrap();
        assert!(take(&open(&path, true), true).is_err());
    }
}
