//! Files and block devices of the host, opened with the checks that a disk image needs.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::base::error::IoContext;
use crate::base::limits::DISK_BYTES_MAX;
use crate::base::{Error, Result, SECTOR_SIZE};

nix::ioctl_read!(blk_get_size64, 0x12, 114, u64);
nix::ioctl_write_ptr_bad!(blk_discard, nix::request_code_none!(0x12, 119), [u64; 2]);

/// `TMPFS_MAGIC` of linux/magic.h.
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// An open regular file or block device.
#[derive(Debug)]
pub struct HostFile {
    /// The open file. Locks belong to its open file description: duplicates share them.
    pub file: File,
    /// The name it was opened by.
    pub path: PathBuf,
    /// A block device rather than a regular file.
    pub block_device: bool,
    /// Its bytes when it was opened.
    pub len: u64,
}

impl HostFile {
    /// Opens `path`; anything but a regular file or a block device is refused, without waiting
    /// for the other end of a FIFO.
    pub fn open(path: &Path, writable: bool) -> Result<Self> {
        let file = File::options()
            .read(true)
            .write(writable)
            // A FIFO must be refused, not waited for.
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .reading(path, "cannot open the image")?;
        // io_uring would answer EAGAIN instead of waiting for a file that still has it.
        change_flags(&file, OFlag::empty(), OFlag::O_NONBLOCK)
            .reading(path, "cannot prepare the file")?;
        Self::from_file(file, path)
    }

    /// Bypasses the page cache from now on. Done after the guards have read the headers, on the
    /// same descriptor, so that what was checked is what is used.
    pub fn set_direct(&self) -> Result<()> {
        change_flags(&self.file, OFlag::O_DIRECT, OFlag::empty()).map_err(|e| {
            Error::input("its file system does not support cache=none (O_DIRECT)")
                .path(&self.path)
                .source(e)
                .hint("use cache=writeback")
        })
    }

    /// Takes over a file that is open already.
    pub fn from_file(file: File, path: &Path) -> Result<Self> {
        let meta = file.metadata().reading(path, "cannot examine the file")?;
        let kind = meta.file_type();
        let block_device = kind.is_block_device();
        if !kind.is_file() && !block_device {
            let what = if kind.is_dir() {
                "is a directory"
            } else if kind.is_fifo() {
                "is a FIFO"
            } else if kind.is_char_device() {
                "is a character device"
            } else {
                "is not a regular file"
            };
            return Err(Error::input(format!("{what}, not a disk image"))
                .path(path)
                .hint("name a regular file or a block device"));
        }
        let len = if block_device { device_len(&file, path)? } else { meta.size() };
        if len > DISK_BYTES_MAX {
            return Err(Error::input(format!(
                "{len} bytes are more than the {DISK_BYTES_MAX} of the largest disk supported"
            ))
            .path(path));
        }
        Ok(Self { file, path: path.to_path_buf(), block_device, len })
    }

    /// The descriptor.
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Its bytes rounded up to whole sectors: what a guest sees of a raw image.
    pub fn len_in_whole_sectors(&self) -> u64 {
        self.len.next_multiple_of(SECTOR_SIZE)
    }

    /// The file's real name, whatever links led to it: asked of the open descriptor, so that
    /// nothing can be exchanged between this check and the use.
    pub fn real_path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(format!("/proc/self/fd/{}", self.fd()))
    }

    /// Whether it lives in memory only, where asynchronous I/O cannot help.
    pub fn on_tmpfs(&self) -> bool {
        // SAFETY: an all-zero statfs is valid, and the kernel fills it.
        let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open and `stat` outlives the call.
        let rc = unsafe { libc::fstatfs(self.fd(), &mut stat) };
        #[allow(clippy::unnecessary_cast)] // its type differs between targets
        let magic = stat.f_type as i64;
        rc == 0 && magic == TMPFS_MAGIC
    }

    /// Gives a block device's range back (`BLKDISCARD`).
    pub fn device_discard(&self, offset: u64, len: u64) -> io::Result<()> {
        // SAFETY: the request reads two u64, which `range` is.
        unsafe { blk_discard(self.fd(), &[offset, len]) }?;
        Ok(())
    }

    /// fallocate(2) with `FALLOC_FL_KEEP_SIZE` and `mode`.
    pub fn fallocate(&self, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
        let (offset, len) = (to_off(offset)?, to_off(len)?);
        loop {
            // SAFETY: plain integers and an open descriptor.
            let rc = unsafe {
                libc::fallocate(self.fd(), mode | libc::FALLOC_FL_KEEP_SIZE, offset, len)
            };
            if rc == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// lseek(2) with `SEEK_DATA` or `SEEK_HOLE`; `None` past the last data.
    pub fn seek(&self, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
        // SAFETY: plain integers and an open descriptor. Nothing here uses the file position.
        let at = unsafe { libc::lseek(self.fd(), to_off(offset)?, whence) };
        if at >= 0 {
            return Ok(Some(at as u64));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENXIO) { Ok(None) } else { Err(error) }
    }
}

/// A file offset as the system calls want it.
pub fn to_off(value: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(value)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "offset beyond 2^63"))
}

fn device_len(file: &File, path: &Path) -> Result<u64> {
    let mut len = 0;
    // SAFETY: the request writes one u64, which `len` is.
    unsafe { blk_get_size64(file.as_raw_fd(), &mut len) }
        .map_err(io::Error::from)
        .reading(path, "cannot learn the size of the block device")?;
    Ok(len)
}

fn change_flags(file: &File, set: OFlag, clear: OFlag) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    fcntl(file, FcntlArg::F_SETFL((flags | set) - clear))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_disk_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = HostFile::open(dir.path(), false).unwrap_err();
        assert!(error.to_string().contains("is a directory"), "{error}");
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = HostFile::open(&fifo, false).unwrap_err();
        assert!(error.to_string().contains("is a FIFO"), "{error}");
        let error = HostFile::open(Path::new("/dev/null"), false).unwrap_err();
        assert!(error.to_string().contains("character device"), "{error}");
        let error = HostFile::open(&dir.path().join("absent"), false).unwrap_err();
        assert_eq!(error.kind().exit_code(), 3);
    }
}
