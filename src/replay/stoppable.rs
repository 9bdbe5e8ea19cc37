//! An image whose reads end when the user stops the run: a check of terabytes must not hold him.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::image::{Extent, Image, ImageInfo};

/// A view of an image for as long as `stop` is not raised.
pub struct Stoppable<'a> {
    image: &'a dyn Image,
    stop: &'a AtomicBool,
    extent_max: u64,
}

impl<'a> Stoppable<'a> {
    /// Extents are told of in parts of at most `extent_max` bytes, so that `stop` is looked at.
    pub fn new(image: &'a dyn Image, stop: &'a AtomicBool, extent_max: u64) -> Self {
        Self { image, stop, extent_max }
    }

    fn go_on(&self) -> io::Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(io::Error::other("stopped")),
            false => Ok(()),
        }
    }
}

impl Image for Stoppable<'_> {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn info(&self) -> &ImageInfo {
        self.image.info()
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        self.go_on()?;
        self.image.read(bufs, offset)
    }

    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.image.write(bufs, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.image.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.image.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.image.write_zeroes(offset, len, unmap)
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.go_on()?;
        let extent = self.image.extent(offset, len)?;
        Ok(Extent { len: extent.len.min(self.extent_max), ..extent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::digest::guest_sha256;
    use crate::image::null;

    #[test]
    fn a_hash_of_nothing_but_zeros_ends_when_stopped() {
        let (image, stop) = (null(1 << 50), AtomicBool::new(false));
        let view = Stoppable::new(&*image, &stop, 4 << 20);
        let mut seen = 0;
        let result = guest_sha256(&view, &mut |at| {
            seen = at;
            stop.store(true, Ordering::Relaxed);
        });
        assert!(result.is_err());
        assert_eq!(seen, 4 << 20, "the part that was begun is the last");
    }
}
