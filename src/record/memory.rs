//! What of guest RAM changed since it was looked at last.
//!
//! Drivers write RAM in place, so nobody is told: it is compared with a copy. Only pages that were
//! ever touched are looked at, which the memory's file knows (`SEEK_DATA`). A look costs a system
//! call, and some 0.2 microseconds for every 4 KiB page that was ever written: tens of
//! microseconds for a disk with its rings and buffers. The copy takes as much memory.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::base::{Error, GuestAddr, Result};
use crate::machine::GuestRam;

const PAGE_BYTES: usize = 4096;

/// Differing bytes so near to each other are one range: an event takes 48 bytes.
const GAP_BYTES: usize = 32;

/// Longest range: one piece of a payload.
const RANGE_BYTES_MAX: usize = 1 << 20;

type Page = [u8; PAGE_BYTES];

/// A range that changed, and what it holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// First byte.
    pub addr: u64,
    /// What there is.
    pub bytes: Vec<u8>,
}

/// The copy.
#[derive(Debug, Default)]
pub struct Shadow {
    pages: BTreeMap<u64, Box<Page>>,
}

impl Shadow {
    /// What changed since the last call; at first, what is not zero. In order of addresses.
    ///
    /// # Errors
    /// The memory's file cannot be searched.
    pub fn changes(&mut self, ram: &GuestRam) -> Result<Vec<Changed>> {
        let mut changes = Vec::new();
        let mut at = 0;
        while let Some((start, end)) = next_extent(ram, at)? {
            for page in start / PAGE_BYTES as u64..end.div_ceil(PAGE_BYTES as u64) {
                self.page(ram, page, &mut changes);
            }
            at = end;
        }
        Ok(changes)
    }

    fn page(&mut self, ram: &GuestRam, number: u64, changes: &mut Vec<Changed>) {
        let mut now: Page = [0; PAGE_BYTES];
        let addr = number * PAGE_BYTES as u64;
        if !ram.read(GuestAddr(addr), &mut now) {
            return;
        }
        let before = self.pages.entry(number).or_insert_with(|| Box::new([0; PAGE_BYTES]));
        if **before == now {
            return;
        }
        for (start, end) in differing(before, &now) {
            let bytes = now.get(start..end).unwrap_or_default();
            push(changes, addr + start as u64, bytes);
        }
        **before = now;
    }
}

/// Adds a range to the one before where it goes on from there.
fn push(changes: &mut Vec<Changed>, addr: u64, bytes: &[u8]) {
    if let Some(last) = changes.last_mut()
        && last.addr + last.bytes.len() as u64 == addr
        && last.bytes.len() + bytes.len() <= RANGE_BYTES_MAX
    {
        last.bytes.extend_from_slice(bytes);
        return;
    }
    changes.push(Changed { addr, bytes: bytes.to_vec() });
}

/// Ranges in which two pages differ, with small gaps between them closed.
fn differing(before: &Page, now: &Page) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    let pairs = before.iter().zip(now).enumerate();
    for (at, _) in pairs.filter(|(_, (before, now))| before != now) {
        match ranges.last_mut() {
            Some((_, end)) if at - *end < GAP_BYTES => *end = at + 1,
            _ => ranges.push((at, at + 1)),
        }
    }
    ranges
}

/// The first stretch of memory from `at` on that was ever touched.
fn next_extent(ram: &GuestRam, at: u64) -> Result<Option<(u64, u64)>> {
    let size = ram.size();
    if at >= size {
        return Ok(None);
    }
    let seek = |at: u64, whence| lseek(ram.file().as_fd(), at as i64, whence);
    let start = match seek(at, Whence::SeekData) {
        Ok(start) => start as u64,
        Err(Errno::ENXIO) => return Ok(None),
        // A file system without holes: all of it is looked at.
        Err(Errno::EINVAL) => return Ok(Some((at, size))),
        Err(e) => return Err(Error::machine("cannot search guest memory").source(e)),
    };
    let end = seek(start, Whence::SeekHole)
        .map_err(|e| Error::machine("cannot search guest memory").source(e))?;
    Ok((start < size).then_some((start, (end as u64).min(size))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(changes: &[Changed]) -> Vec<(u64, usize)> {
        changes.iter().map(|change| (change.addr, change.bytes.len())).collect()
    }

    #[test]
    fn only_what_changed_is_found_and_only_once() {
        let ram = GuestRam::new(64 << 20).unwrap();
        let mut shadow = Shadow::default();
        assert_eq!(shadow.changes(&ram).unwrap(), []);
        ram.write(GuestAddr(0x5010), &[1, 2, 0, 4]);
        ram.write(GuestAddr(0x5100), &[9]);
        ram.write(GuestAddr(0x3f0_0ff8), &[7; 16]);
        let found = shadow.changes(&ram).unwrap();
        assert_eq!(ranges(&found), [(0x5010, 4), (0x5100, 1), (0x3f0_0ff8, 16)]);
        assert_eq!(found[0].bytes, [1, 2, 0, 4]);
        assert_eq!(shadow.changes(&ram).unwrap(), []);
        ram.write(GuestAddr(0x5010), &[1, 2, 0, 4]);
        assert_eq!(shadow.changes(&ram).unwrap(), []);
        ram.write(GuestAddr(0x5011), &[0]);
        assert_eq!(shadow.changes(&ram).unwrap(), [Changed { addr: 0x5011, bytes: vec![0] }]);
    }

    #[test]
    fn the_last_page_counts_and_pages_join() {
        let ram = GuestRam::new(1 << 20).unwrap();
        let mut shadow = Shadow::default();
        ram.write(GuestAddr((1 << 20) - 1), &[1]);
        ram.write(GuestAddr(0x1000), &[5; 0x3000]);
        let found = shadow.changes(&ram).unwrap();
        assert_eq!(ranges(&found), [(0x1000, 0x3000), ((1 << 20) - 1, 1)]);
    }
}
