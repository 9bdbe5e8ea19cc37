//! An image that holds nothing: reads are zeros, writes are swallowed. It measures everything else.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;

use super::iov::{check_range, total, total_mut};
use super::{Extent, ExtentKind, Image, ImageInfo};

/// See [`null`].
#[derive(Debug)]
struct NullImage {
    size: u64,
    info: ImageInfo,
}

/// A disk of `size` bytes that reads as zeros and forgets what is written.
pub fn null(size: u64) -> Arc<dyn Image> {
    let info = ImageInfo {
        path: Default::default(),
        format: "null".into(),
        via: String::new(),
        read_only: false,
        discard_zeroes: true,
    };
    Arc::new(NullImage { size, info })
}

impl Image for NullImage {
    fn size(&self) -> u64 {
        self.size
    }

    fn info(&self) -> &ImageInfo {
        &self.info
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, total_mut(bufs))?;
        for buf in bufs {
            buf.fill(0);
        }
        Ok(())
    }

    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, total(bufs))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(self.size, offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, _unmap: bool) -> io::Result<()> {
        check_range(self.size, offset, len)
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        check_range(self.size, offset, len)?;
        Ok(Extent { kind: ExtentKind::Zero, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{read_exact, write_all};

    #[test]
    fn it_forgets_and_keeps_its_bounds() {
        let image = null(4096);
        write_all(&*image, &[7; 512], 512).unwrap();
        let mut buf = [1; 1024];
        read_exact(&*image, &mut buf, 0).unwrap();
        assert_eq!(buf, [0; 1024]);
        assert_eq!(
            write_all(&*image, &[7; 512], 4096).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
    }
}
