//! Raw images: a file or block device whose bytes are the disk's.
//!
//! The guest sees whole sectors: a file whose length is not a multiple of 512 is rounded up (as
//! QEMU does), the missing bytes read as zeros, and writing them makes the file longer.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::direct::DirectIo;
use super::host::HostFile;
use super::iov::{self, Direction, check_range, raw, raw_mut, total, total_mut};
use super::uring::UringQueue;
use super::{
    AioMode, CacheMode, Extent, ExtentKind, Image, ImageInfo, IoQueue, Located, OpenOptions,
};
use crate::base::Result;

/// Zeros written at a time where the host has no faster way.
static ZERO_BUFFER: [u8; 64 << 10] = [0; 64 << 10];

/// What an open raw image is made of; shared with its queues, which outlive nothing of it.
pub struct RawFile {
    pub(super) host: HostFile,
    /// Guest-visible bytes: `host.len` in whole sectors.
    pub(super) size: u64,
    /// Present with cache=none.
    pub(super) direct: Option<DirectIo>,
    pub(super) cache: CacheMode,
    pub(super) writable: bool,
}

/// A raw image.
pub struct RawImage {
    file: Arc<RawFile>,
    info: ImageInfo,
    aio: AioMode,
    /// Asynchronous I/O only costs here: the bytes are in memory already.
    on_tmpfs: bool,
    /// Cleared when the host has turned out to lack `FALLOC_FL_ZERO_RANGE`.
    has_zero_range: AtomicBool,
    /// Cleared when the host has turned out to lack `FALLOC_FL_PUNCH_HOLE`.
    has_punch_hole: AtomicBool,
}

impl RawImage {
    /// Uses `host`, on which the locks are held and the guards have passed.
    pub fn new(host: HostFile, options: &OpenOptions) -> Result<Self> {
        let direct = match options.cache {
            CacheMode::None => Some(DirectIo::enable(&host)?),
            CacheMode::Writeback | CacheMode::Unsafe => None,
        };
        let info = ImageInfo {
            path: host.path.clone(),
            format: "raw".into(),
            via: String::new(),
            read_only: !options.writable,
            // What a block device returns after BLKDISCARD is its own affair.
            discard_zeroes: !host.block_device,
        };
        let on_tmpfs = host.on_tmpfs();
        let size = host.len_in_whole_sectors();
        let file = RawFile { host, size, direct, cache: options.cache, writable: options.writable };
        Ok(Self {
            file: Arc::new(file),
            info,
            aio: options.aio,
            on_tmpfs,
            has_zero_range: AtomicBool::new(true),
            has_punch_hole: AtomicBool::new(true),
        })
    }

    /// Tries fallocate(2) in `mode`; `false` when the host cannot.
    fn try_fallocate(
        &self,
        known: &AtomicBool,
        mode: libc::c_int,
        offset: u64,
        len: u64,
    ) -> io::Result<bool> {
        if !known.load(Ordering::Relaxed) {
            return Ok(false);
        }
        match self.file.host.fallocate(mode, offset, len) {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                known.store(false, Ordering::Relaxed);
                Ok(false)
            }
            // A block device wants whole logical blocks.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.try_fallocate(&self.has_punch_hole, libc::FALLOC_FL_PUNCH_HOLE, offset, len)
    }

    /// Zeroes the range by fallocate(2); `false` when the host cannot.
    fn zero_by_allocation(&self, offset: u64, len: u64, unmap: bool) -> io::Result<bool> {
        if len == 0 || (unmap && self.punch(offset, len)?) {
            return Ok(true);
        }
        self.try_fallocate(&self.has_zero_range, libc::FALLOC_FL_ZERO_RANGE, offset, len)
    }

    fn write_zero_data(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        while len > 0 {
            let n = len.min(ZERO_BUFFER.len() as u64);
            self.file.write(raw(&[IoSlice::new(&ZERO_BUFFER[..n as usize])]), offset)?;
            offset += n;
            len -= n;
        }
        Ok(())
    }
}

impl RawFile {
    pub(super) fn fd(&self) -> RawFd {
        self.host.fd()
    }

    /// Reads everything; what lies past the file's own length is zeros.
    ///
    /// # Safety
    /// Every buffer is writable memory.
    pub(super) unsafe fn read_raw(&self, bufs: &[libc::iovec], offset: u64) -> io::Result<()> {
        // SAFETY: as for this function.
        let got = unsafe {
            match &self.direct {
                Some(direct) => direct.read(self.fd(), bufs, offset)?,
                None => iov::transfer(self.fd(), Direction::Read, bufs, offset)?,
            }
        };
        // SAFETY: as for this function.
        unsafe { self.finish_read(bufs, offset, got) }
    }

    /// Zeroes what a read that ended after `got` bytes left out, if the file really ends there.
    ///
    /// # Safety
    /// Every buffer is writable memory.
    pub(super) unsafe fn finish_read(
        &self,
        bufs: &[libc::iovec],
        offset: u64,
        got: u64,
    ) -> io::Result<()> {
        if got >= iov::total_raw(bufs) {
            return Ok(());
        }
        if offset + got < self.host.len {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file became shorter than its {} bytes", self.host.len),
            ));
        }
        // SAFETY: parts of the caller's buffers.
        unsafe { iov::zero(&iov::advanced(bufs, got)) };
        Ok(())
    }

    /// Writes everything.
    pub(super) fn write(&self, bufs: &[libc::iovec], offset: u64) -> io::Result<()> {
        // SAFETY: the buffers of a write are only read, and borrowed for the call.
        unsafe {
            match &self.direct {
                Some(direct) => direct.write(self.fd(), bufs, offset),
                None => iov::transfer(self.fd(), Direction::Write, bufs, offset).map(drop),
            }
        }
    }

    /// The range check of every operation, and the refusal of writes to a read-only image.
    pub(super) fn check(&self, offset: u64, len: u64, writes: bool) -> io::Result<()> {
        if writes && !self.writable {
            return Err(read_only());
        }
        check_range(self.size, offset, len)
    }

    /// fdatasync(2), unless cache=unsafe.
    pub(super) fn flush(&self) -> io::Result<()> {
        if self.cache == CacheMode::Unsafe { Ok(()) } else { self.host.file.sync_data() }
    }
}

/// The error for a write to an image that was opened for reading.
pub fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, "the image is open for reading only")
}

impl Image for RawImage {
    fn size(&self) -> u64 {
        self.file.size
    }

    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        self.file.check(offset, total_mut(bufs), false)?;
        // SAFETY: the buffers are borrowed mutably for the length of the call.
        unsafe { self.file.read_raw(raw_mut(bufs), offset) }
    }

    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.file.check(offset, total(bufs), true)?;
        self.file.write(raw(bufs), offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.file.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.check(offset, len, true)?;
        if len == 0 {
            return Ok(());
        }
        if self.file.host.block_device {
            return match self.file.host.device_discard(offset, len) {
                // Advice the device cannot take.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                    Ok(())
                }
                other => other,
            };
        }
        // `discard_zeroes` is promised for files, even where the host cannot punch.
        if self.punch(offset, len)? { Ok(()) } else { self.write_zero_data(offset, len) }
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.file.check(offset, len, true)?;
        if self.zero_by_allocation(offset, len, unmap)? {
            return Ok(());
        }
        self.write_zero_data(offset, len)
    }

    fn write_zeroes_fast(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.file.check(offset, len, true)?;
        if self.zero_by_allocation(offset, len, unmap)? {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP))
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.file.check(offset, len, false)?;
        let host = &self.file.host;
        let until = |end: u64| len.min(end.saturating_sub(offset));
        Ok(match host.seek(offset, libc::SEEK_DATA) {
            Ok(None) => Extent { kind: ExtentKind::Zero, len },
            Ok(Some(data)) if data > offset => Extent { kind: ExtentKind::Zero, len: until(data) },
            Ok(Some(_)) => {
                let hole = host.seek(offset, libc::SEEK_HOLE)?.unwrap_or(u64::MAX);
                Extent { kind: ExtentKind::Data, len: until(hole) }
            }
            // A file system that cannot say: everything may be data.
            Err(_) => Extent { kind: ExtentKind::Data, len },
        })
    }

    fn located(&self, offset: u64, len: u64) -> io::Result<Option<Located<'_>>> {
        let host = &self.file.host;
        let len = len.min(host.len.saturating_sub(offset));
        let usable = self.file.direct.is_none() && !host.block_device && len > 0;
        Ok(usable.then_some(Located { file: &host.file, offset, len }))
    }

    fn queue(&self, depth: usize) -> io::Result<Option<Box<dyn IoQueue>>> {
        let wanted = match self.aio {
            AioMode::Sync => false,
            AioMode::IoUring => true,
            AioMode::Auto => depth > 1 && !self.on_tmpfs,
        };
        if !wanted {
            return Ok(None);
        }
        let inline_cached = self.aio == AioMode::Auto && self.file.direct.is_none();
        match UringQueue::new(Arc::clone(&self.file), depth, inline_cached) {
            Ok(queue) => Ok(Some(Box::new(queue))),
            // Kernels and containers without io_uring still replay.
            Err(e) if self.aio == AioMode::Auto => {
                tracing::info!("io_uring is not available ({e}): using pread and pwrite");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{self, SIZE};
    use super::super::{QueuedOp, create, open, read_exact, write_all};
    use super::*;
    use std::path::Path;

    fn options(cache: CacheMode, aio: AioMode) -> OpenOptions {
        OpenOptions { writable: true, cache, aio, ..Default::default() }
    }

    fn with_image(options: &OpenOptions, body: impl FnOnce(&dyn Image)) {
        let dir = testkit::folder_on_disk();
        let path = dir.path().join("disk.raw");
        let pending = match create(&path, "raw", SIZE, options) {
            Ok(pending) => pending,
            Err(e) if options.cache == CacheMode::None => {
                return eprintln!("skipped: {e}");
            }
            Err(e) => panic!("{e}"),
        };
        body(&*pending.image());
        pending.commit().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), SIZE);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn pread_and_pwrite_behave_as_a_disk() {
        for cache in [CacheMode::Writeback, CacheMode::Unsafe, CacheMode::None] {
            with_image(&options(cache, AioMode::Sync), testkit::exercise);
        }
    }

    #[test]
    fn queues_behave_as_a_disk() {
        for cache in [CacheMode::Writeback, CacheMode::Unsafe, CacheMode::None] {
            for aio in [AioMode::Auto, AioMode::IoUring] {
                with_image(&options(cache, aio), |image| {
                    if matches!(image.queue(8), Ok(None)) {
                        return eprintln!("skipped: no queue for {cache:?} {aio:?} here");
                    }
                    testkit::exercise(&testkit::Queued::new(image));
                });
            }
        }
    }

    #[test]
    fn many_requests_in_flight_all_come_back() {
        with_image(&options(CacheMode::Writeback, AioMode::IoUring), |image| {
            let mut queue = image.queue(4).unwrap().unwrap();
            let mut bufs = vec![[0u8; 512]; 64];
            for (i, buf) in bufs.iter_mut().enumerate() {
                buf.fill(i as u8);
                let iov = [libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: 512 }];
                // SAFETY: `bufs` outlives the loop below, which reaps everything.
                unsafe { queue.submit(i as u64, QueuedOp::Write, i as u64 * 512, &iov) }.unwrap();
            }
            let (mut done, mut tokens) = (Vec::new(), 0u64);
            queue.kick().unwrap();
            while queue.in_flight() > 0 {
                queue.reap(&mut done).unwrap();
                for (token, result) in done.drain(..) {
                    result.unwrap();
                    tokens |= 1 << token;
                }
            }
            assert_eq!(tokens, u64::MAX);
            let mut buf = [0; 512];
            read_exact(image, &mut buf, 63 * 512).unwrap();
            assert_eq!(buf, [63; 512]);
        });
    }

    #[test]
    fn an_odd_length_is_rounded_up_and_reads_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("odd");
        std::fs::write(&path, [5; 700]).unwrap();
        let image = open(&path, &options(CacheMode::Writeback, AioMode::Sync)).unwrap();
        assert_eq!(image.size(), 1024);
        let mut buf = [1; 1024];
        read_exact(&*image, &mut buf, 0).unwrap();
        assert!(buf[..700].iter().all(|b| *b == 5) && buf[700..].iter().all(|b| *b == 0));
        write_all(&*image, &[6; 512], 512).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1024);
    }

    #[test]
    fn a_file_cut_behind_our_back_is_an_error_and_not_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut");
        std::fs::write(&path, [5; 4096]).unwrap();
        let image = open(&path, &OpenOptions::default()).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(512).unwrap();
        let error = read_exact(&*image, &mut [0; 1024], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_read_only_image_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ro");
        std::fs::write(&path, [5; 4096]).unwrap();
        let image = open(&path, &OpenOptions::default()).unwrap();
        let denied = io::ErrorKind::PermissionDenied;
        assert_eq!(write_all(&*image, &[1], 0).unwrap_err().kind(), denied);
        assert_eq!(image.discard(0, 512).unwrap_err().kind(), denied);
        assert_eq!(image.write_zeroes(0, 512, true).unwrap_err().kind(), denied);
    }

    #[test]
    fn an_uncommitted_image_leaves_nothing_and_a_commit_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        let defaults = OpenOptions::default();
        drop(create(&path, "raw", SIZE, &defaults).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let pending = create(&path, "raw", SIZE, &defaults).unwrap();
        std::fs::write(&path, b"mine").unwrap();
        assert!(pending.commit().is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(create(&path, "raw", SIZE, &defaults).is_err());
    }

    #[test]
    fn an_image_qemu_has_open_is_refused_and_ours_is_refused_by_qemu() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.raw");
        std::fs::write(&path, [0; 4096]).unwrap();
        let image = open(&path, &options(CacheMode::Writeback, AioMode::Sync)).unwrap();
        let Some(out) = testkit::qemu("qemu-io", &["-f", "raw", "-c", "read 0 512", arg(&path)])
        else {
            return;
        };
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains("lock"), "{text}");
        drop(image);
        let image = open(&path, &OpenOptions::default()).unwrap();
        testkit::qemu_ok("qemu-io", &["-r", "-f", "raw", "-c", "read 0 512", arg(&path)]);
        let out = testkit::qemu("qemu-io", &["-f", "raw", "-c", "write 0 512", arg(&path)]);
        assert!(!out.unwrap().status.success(), "QEMU wrote to an image we read");
        drop(image);
    }

    fn arg(path: &Path) -> &str {
        testkit::arg(path)
    }
}
