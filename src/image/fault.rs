//! An image that lies once: the oracle must notice, and its tests prove that it does.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::iov::{gather, total};
use super::{Extent, Image, ImageInfo, write_all};
use crate::base::{Error, SECTOR_SIZE};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The write is acknowledged and not done.
    Drop,
    /// Only the first half of the write is done: whole sectors where it has more than one.
    Tear,
    /// The byte in the middle of the write is inverted.
    Flip,
    /// The write is done after the next one that overlaps it (or at the next flush).
    Swap,
    /// The write fails with an I/O error, and is not done.
    Error,
}

/// The kinds by the names that options give them.
const KINDS: [(&str, FaultKind); 5] = [
    ("drop", FaultKind::Drop),
    ("tear", FaultKind::Tear),
    ("flip", FaultKind::Flip),
    ("swap", FaultKind::Swap),
    ("error", FaultKind::Error),
];

/// One fault: `KIND:N`, where `N` counts the writes that reach the image, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSpec {
    /// What goes wrong.
    pub kind: FaultKind,
    /// With which write.
    pub write: u64,
}

impl FromStr for FaultSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |what: String| {
            Error::usage(what).hint("a fault is drop:N, tear:N, flip:N, swap:N or error:N, where N counts writes from 0")
        };
        let (name, number) =
            text.split_once(':').ok_or_else(|| bad(format!("fault \"{text}\" has no \":N\"")))?;
        let kind = KINDS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        let kind = kind.ok_or_else(|| bad(format!("no fault is called \"{name}\"")))?;
        let write = number
            .parse()
            .map_err(|_| bad(format!("\"{number}\" in fault \"{text}\" is not a number")))?;
        Ok(Self { kind, write })
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = KINDS.iter().find(|(_, kind)| *kind == self.kind).map_or("?", |(name, _)| name);
        write!(f, "{name}:{}", self.write)
    }
}

/// A write that waits for the one it changes places with.
struct Held {
    offset: u64,
    data: Vec<u8>,
}

struct Faulty {
    image: Arc<dyn Image>,
    spec: FaultSpec,
    writes: Arc<AtomicU64>,
    held: Mutex<Option<Held>>,
}

/// `image` with one fault. It offers no queue: writes are counted in the order of the calls.
pub fn wrap(image: Arc<dyn Image>, spec: FaultSpec) -> Arc<dyn Image> {
    wrap_counted(image, spec).0
}

/// As [`wrap`]; also the count of the writes so far: the fault has fired once it passes `spec.write`.
pub fn wrap_counted(image: Arc<dyn Image>, spec: FaultSpec) -> (Arc<dyn Image>, Arc<AtomicU64>) {
    let writes = Arc::new(AtomicU64::new(0));
    let held = Mutex::new(None);
    (Arc::new(Faulty { image, spec, writes: Arc::clone(&writes), held }), writes)
}

impl Faulty {
    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the write that was held back, if `of` says so.
    fn release(&self, of: impl FnOnce(&Held) -> bool) -> io::Result<()> {
        // Taken out first: the image is not called with the lock held.
        let due = self.held().take_if(|held| of(held));
        due.map_or(Ok(()), |held| write_all(&*self.image, &held.data, held.offset))
    }

    fn release_overlapping(&self, offset: u64, len: u64) -> io::Result<()> {
        self.release(|held| {
            held.offset < offset + len && offset < held.offset + held.data.len() as u64
        })
    }

    fn write_wrongly(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let len = total(bufs);
        super::iov::check_range(self.image.size(), offset, len)?;
        let mut data = vec![0; len as usize];
        gather(bufs, &mut data);
        match self.spec.kind {
            FaultKind::Drop => Ok(()),
            FaultKind::Error => Err(io::Error::from_raw_os_error(libc::EIO)),
            FaultKind::Tear => write_all(&*self.image, &data[..torn_len(len) as usize], offset),
            FaultKind::Flip => {
                if let Some(byte) = data.get_mut((len / 2) as usize) {
                    *byte = !*byte;
                }
                write_all(&*self.image, &data, offset)
            }
            FaultKind::Swap => {
                *self.held() = Some(Held { offset, data });
                Ok(())
            }
        }
    }
}

/// The bytes of a torn write that land.
fn torn_len(len: u64) -> u64 {
    let half = len / 2;
    let sectors = half - half % SECTOR_SIZE;
    if sectors > 0 { sectors } else { half }
}

impl Image for Faulty {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn info(&self) -> &ImageInfo {
        self.image.info()
    }

    fn read(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<()> {
        self.image.read(bufs, offset)
    }

    fn write(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        if self.writes.fetch_add(1, Ordering::Relaxed) == self.spec.write {
            return self.write_wrongly(bufs, offset);
        }
        self.image.write(bufs, offset)?;
        self.release_overlapping(offset, total(bufs))
    }

    fn flush(&self) -> io::Result<()> {
        self.release(|_| true)?;
        self.image.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.image.discard(offset, len)?;
        self.release_overlapping(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        self.image.write_zeroes(offset, len, unmap)?;
        self.release_overlapping(offset, len)
    }

    fn extent(&self, offset: u64, len: u64) -> io::Result<Extent> {
        self.image.extent(offset, len)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        if let Err(e) = self.release(|_| true) {
            tracing::error!("the write held back by fault={} failed: {e}", self.spec);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{mem, read_exact};

    fn faulty(spec: &str) -> Arc<dyn Image> {
        wrap(mem(8192), spec.parse().unwrap())
    }

    fn bytes(image: &dyn Image, offset: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        read_exact(image, &mut buf, offset).unwrap();
        buf
    }

    #[test]
    fn only_the_chosen_write_is_dropped() {
        let image = faulty("drop:1");
        for i in 0..3 {
            write_all(&*image, &[i + 1; 512], u64::from(i) * 512).unwrap();
        }
        assert_eq!(bytes(&*image, 0, 1536), [[1; 512], [0; 512], [3; 512]].concat());
    }

    #[test]
    fn a_torn_write_keeps_its_first_half() {
        let image = faulty("tear:0");
        write_all(&*image, &[1; 1536], 0).unwrap();
        assert_eq!(bytes(&*image, 0, 1024), [[1; 512], [0; 512]].concat());
        let image = faulty("tear:0");
        write_all(&*image, &[1; 512], 0).unwrap();
        assert_eq!(bytes(&*image, 0, 512), [[1; 256], [0; 256]].concat());
    }

    #[test]
    fn one_byte_is_flipped() {
        let image = faulty("flip:0");
        write_all(&*image, &[1; 1024], 0).unwrap();
        let got = bytes(&*image, 0, 1024);
        assert_eq!(got.iter().filter(|b| **b != 1).count(), 1);
        assert_eq!(got[512], 0xfe);
    }

    #[test]
    fn two_overlapping_writes_change_places_and_others_do_not_matter() {
        let image = faulty("swap:0");
        write_all(&*image, &[1; 1024], 0).unwrap();
        write_all(&*image, &[2; 512], 4096).unwrap();
        assert_eq!(bytes(&*image, 0, 1024), [0; 1024]);
        write_all(&*image, &[3; 1024], 512).unwrap();
        assert_eq!(bytes(&*image, 0, 1536), [[1; 512], [1; 512], [3; 512]].concat());
    }

    #[test]
    fn a_write_held_back_comes_at_the_latest_with_a_flush() {
        let image = faulty("swap:0");
        write_all(&*image, &[1; 512], 0).unwrap();
        image.flush().unwrap();
        assert_eq!(bytes(&*image, 0, 512), [1; 512]);
    }

    #[test]
    fn an_error_is_eio_and_changes_nothing() {
        let image = faulty("error:0");
        let error = write_all(&*image, &[1; 512], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
        assert_eq!(bytes(&*image, 0, 512), [0; 512]);
    }

    #[test]
    fn bad_specifications_are_explained() {
        for bad in ["", "drop", "drop:", "drop:-1", "dorp:1", ":1", "drop:1x"] {
            let error = bad.parse::<FaultSpec>().unwrap_err();
            assert_eq!(error.kind().exit_code(), 2, "{bad}");
            assert!(error.hint_text().is_some());
        }
        assert_eq!("swap:17".parse::<FaultSpec>().unwrap().to_string(), "swap:17");
    }
}
