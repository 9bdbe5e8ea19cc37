//! `snapshot=on`: writes go to a temporary file, and the image below is only ever read.
//!
//! The file has no name, so it is gone when the process is, however that ends. It lies in
//! `TMPDIR`, is as sparse as what was written, and has every byte at its own offset; which bytes
//! those are is a set of ranges in memory. Bytes, not blocks: so nothing is ever copied up.

use std::io::{self, IoSlice, IoSliceMut};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::host::HostFile;
use super::iov::{advanced, check_range, raw_mut, total, total_mut, total_raw};
use super::ranges::RangeSet;
use super::raw::RawImage;
use super::{CacheMode, Extent, Image, ImageInfo, OpenOptions, read_exact};
use crate::base::Result;
use crate::base::error::IoContext;

/// An image with a temporary overlay.
pub struct Overlay {
    base: Arc<dyn Image>,
    top: RawImage,
    /// The bytes that `top` has. Held for reading while they are used, so that a read sees a
    /// write wholly in one place.
    written: RwLock<RangeSet>,
    info: ImageInfo,
}

impl Overlay {
    /// A writable image that shows `base`, and takes its changes with it when dropped.
    #[expect(clippy::new_ret_no_self, reason = "an image is only used behind the trait")]
    pub fn new(base: Arc<dyn Image>) -> Result<Arc<dyn Image>> {
        let folder = std::env::temp_dir();
        let file = tempfile::tempfile().writing(&folder, "cannot create the temporary overlay")?;
        file.set_len(base.size())
            .writing(&folder, "cannot give the temporary overlay the image's size")?;
        let host = HostFile::from_file(file, Path::new("temporary overlay"))?;
        // Nothing in it outlives the process: it need not reach the disk.
        let options =
            OpenOptions { writable: true, cache: CacheMode::Unsafe, ..Default::default() };
        let info = ImageInfo {
            path: base.info().path.clone(),
            format: base.info().format.clone(),
            via: "temporary overlay".into(),
            read_only: false,
            discard_zeroes: true,
        };
        let top = RawImage::new(host, &options)?;
        Ok(Arc::new(Self { base, top, written: RwLock::default(), info }))
    }

    fn shared(&self) -> RwLockReadGuard<'_, RangeSet> {
        self.written.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, RangeSet> {
        self.written.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `change`, which gives `top` the bytes from `offset`, and remembers that it has them.
    fn change(
        &self,
        offset: u64,
        len: u64,
        change: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        check_range(self.size(), offset, len)?;
        {
            let written = self.shared();
            if written.covers(offset, offset + len) {
                return change();
            }
        }
        let mut written = self.alone();
        change()?;
        written.insert(offset, offset + len);
        Ok(())
    }
}

impl Image for Overlay {
    fn size(&self) -> u64 {
        self.base.size()
    }

    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        let len = total_mut(bufs);
        check_range(self.size(), offset, len)?;
        let written = self.shared();
        let from = |top: bool| if top { &self.top as &dyn Image } else { &*self.base };
        let (inside, until) = written.at(offset);
        if until >= offset + len {
            return from(inside).read(bufs, offset);
        }
        let mut rest = advanced(raw_mut(bufs), 0);
        let mut at = offset;
        while let Some(first) = rest.first() {
            let (inside, until) = written.at(at);
            let n = (first.iov_len as u64).min(until - at);
            // SAFETY: a part of the caller's first remaining buffer, used by nothing else.
            let part =
                unsafe { std::slice::from_raw_parts_mut(first.iov_base.cast::<u8>(), n as usize) };
            read_exact(from(inside), part, at)?;
            at += n;
            rest = advanced(&rest, n);
        }
        debug_assert_eq!(total_raw(&rest), 0);
        Ok(())
    }

    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.change(offset, total(bufs), || self.top.write(bufs, offset))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(offset, len, || self.top.discard(offset, len))
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.change(offset, len, || self.top.write_zeroes(offset, len, unmap))
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        check_range(self.size(), offset, len)?;
        let (inside, until) = self.shared().at(offset);
        let len = len.min(until - offset);
        if inside { self.top.extent(offset, len) } else { self.base.extent(offset, len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::testkit::{self, SIZE};
    use crate::image::{null, open, write_all};

    #[test]
    fn it_behaves_as_a_disk() {
        testkit::exercise(&*Overlay::new(null(SIZE)).unwrap());
    }

    #[test]
    fn the_image_below_shows_through_and_is_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("base.raw");
        let mut content = vec![0; SIZE as usize];
        crate::base::Prng::new(1).fill(&mut content);
        std::fs::write(&path, &content).unwrap();
        let image = Overlay::new(open(&path, &OpenOptions::default()).unwrap()).unwrap();
        testkit::exercise_from(&*image, content.clone());
        drop(image);
        assert!(std::fs::read(&path).unwrap() == content);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_leaves_the_image_below_visible() {
        let image = Overlay::new(null(4096)).unwrap();
        assert!(write_all(&*image, &[1; 512], 4000).is_err());
        let mut buf = [1; 4096];
        read_exact(&*image, &mut buf, 0).unwrap();
        assert_eq!(buf, [0; 4096]);
    }
}
