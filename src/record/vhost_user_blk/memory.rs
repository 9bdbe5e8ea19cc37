//! The guest's memory as a front-end shares it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::guard::GuardedMap;
use crate::base::GuestAddr;
use crate::machine::DeviceMemory;

/// Memory slots: what QEMU has at most, and each takes a descriptor.
pub const SLOTS_MAX: usize = 256;

/// A region as the front-end describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// Guest physical address.
    pub guest: u64,
    /// Bytes.
    pub len: u64,
    /// Where the front-end has it: ring addresses are given so.
    pub user: u64,
    /// Where in its file it begins.
    pub offset: u64,
}

/// A region that is mapped.
#[derive(Clone, Debug)]
struct Region {
    spec: RegionSpec,
    host: *mut u8,
    map: Arc<GuardedMap>,
}

// SAFETY: `host` points into `map`, which goes where the region goes.
unsafe impl Send for Region {}
// SAFETY: as above; what is behind it is shared memory by design.
unsafe impl Sync for Region {}

impl Region {
    fn new(spec: RegionSpec, file: &File) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
        let RegionSpec { guest, len, user, offset } = spec;
        let ends = [guest, user, offset].map(|start| start.checked_add(len));
        let [Some(_), Some(_), Some(end)] = ends else {
            return Err(bad("a memory region wraps around"));
        };
        if len == 0 {
            return Err(bad("a memory region is empty"));
        }
        let map = GuardedMap::new(file, end)?;
        // SAFETY: the mapping has `end` bytes, of which `offset` is less.
        let host = unsafe { map.base().add(offset as usize) };
        Ok(Self { spec, host, map: Arc::new(map) })
    }

    fn end(&self) -> u64 {
        self.spec.guest.saturating_add(self.spec.len)
    }
}

/// All regions, in order of guest addresses; they do not overlap.
#[derive(Clone, Debug, Default)]
pub struct FrontendMemory {
    regions: Vec<Region>,
}

impl FrontendMemory {
    /// Maps what the front-end sent.
    ///
    /// # Errors
    /// A region that is not what its file holds, or overlaps another.
    pub fn new(specs: &[RegionSpec], files: &[File]) -> io::Result<Self> {
        if specs.len() != files.len() {
            return Err(io::Error::other("memory regions and their files differ in number"));
        }
        specs
            .iter()
            .zip(files)
            .try_fold(Self::default(), |memory, (spec, file)| memory.with(*spec, file))
    }

    /// The same and one more.
    ///
    /// # Errors
    /// As [`FrontendMemory::new`].
    pub fn with(mut self, spec: RegionSpec, file: &File) -> io::Result<Self> {
        if self.regions.len() >= SLOTS_MAX {
            return Err(io::Error::other(format!("more than {SLOTS_MAX} memory regions")));
        }
        let region = Region::new(spec, file)?;
        let at = self.regions.partition_point(|other| other.spec.guest < spec.guest);
        let after = self.regions.get(at).is_some_and(|next| next.spec.guest < region.end());
        let before = at.checked_sub(1).and_then(|at| self.regions.get(at));
        if after || before.is_some_and(|last| last.end() > spec.guest) {
            return Err(io::Error::other("memory regions overlap"));
        }
        self.regions.insert(at, region);
        Ok(self)
    }

    /// The same and one less.
    ///
    /// # Errors
    /// There is no such region.
    pub fn without(mut self, guest: u64, len: u64) -> io::Result<Self> {
        let same = |region: &Region| (region.spec.guest, region.spec.len) == (guest, len);
        let at = self.regions.iter().position(same);
        let at = at.ok_or_else(|| io::Error::other("no such memory region"))?;
        self.regions.remove(at);
        Ok(self)
    }

    /// The guest's address of something that the front-end has at `user`.
    pub fn guest_of(&self, user: u64) -> Option<u64> {
        self.regions.iter().find_map(|Region { spec, .. }| {
            let offset = user.checked_sub(spec.user).filter(|offset| *offset < spec.len)?;
            Some(spec.guest + offset)
        })
    }

    /// Whether the front-end cut off what it shared.
    pub fn is_lost(&self) -> bool {
        self.regions.iter().any(|region| region.map.is_lost())
    }
}

impl DeviceMemory for FrontendMemory {
    #[inline]
    fn host(&self, addr: GuestAddr, len: u64) -> Option<*mut u8> {
        self.part(addr, len).filter(|(_, part)| *part == len).map(|(host, _)| host)
    }

    #[inline]
    fn part(&self, addr: GuestAddr, len: u64) -> Option<(*mut u8, u64)> {
        let at = self.regions.partition_point(|region| region.spec.guest <= addr.0);
        let region = self.regions.get(at.checked_sub(1)?)?;
        let offset = addr.0 - region.spec.guest;
        let left = region.spec.len.checked_sub(offset).filter(|left| *left > 0)?;
        // SAFETY: `offset` is less than the region's length, and `host` is its first byte.
        Some((unsafe { region.host.add(offset as usize) }, left.min(len)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(guest: u64, len: u64, user: u64, offset: u64) -> RegionSpec {
        RegionSpec { guest, len, user, offset }
    }

    fn file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn addresses_are_found_in_their_regions_and_nowhere_else() {
        let specs = [spec(0x10_0000, 0x2000, 0x7f00_0000, 0x1000), spec(0, 0x1000, 0x100, 0)];
        let memory = FrontendMemory::new(&specs, &[file(0x3000), file(0x1000)]).unwrap();
        for (addr, len, found) in [
            (0, 0x1000, true),
            (0xfff, 1, true),
            (0xfff, 2, false),
            (0x1000, 1, false),
            (0x10_0000, 0x2000, true),
            (0x10_1fff, 1, true),
            (0x10_2000, 1, false),
            (u64::MAX, 1, false),
        ] {
            assert_eq!(memory.host(GuestAddr(addr), len).is_some(), found, "{addr:#x} {len}");
        }
        assert_eq!(memory.guest_of(0x7f00_0008), Some(0x10_0008));
        assert_eq!(memory.guest_of(0x7f00_2000), None);
        assert_eq!(memory.guest_of(0xff), None);
        let memory = memory.without(0, 0x1000).unwrap();
        assert!(memory.host(GuestAddr(0), 1).is_none());
        assert!(memory.without(0, 0x1000).is_err());
    }

    #[test]
    fn a_buffer_over_a_border_is_in_parts() {
        let specs = [spec(0, 0x1000, 0, 0), spec(0x1000, 0x1000, 0x10_0000, 0)];
        let memory = FrontendMemory::new(&specs, &[file(0x1000), file(0x1000)]).unwrap();
        let (_, part) = memory.part(GuestAddr(0xff0), 0x20).unwrap();
        assert_eq!(part, 0x10);
        assert!(memory.host(GuestAddr(0xff0), 0x20).is_none());
    }

    #[test]
    fn hostile_regions_are_refused() {
        for (specs, len) in [
            (vec![spec(0, 0x2000, 0, 0)], 0x1000),
            (vec![spec(0, 0x1000, 0, 0x1000)], 0x1000),
            (vec![spec(0, 0, 0, 0)], 0x1000),
            (vec![spec(u64::MAX, 2, 0, 0)], 0x1000),
            (vec![spec(0, 1 << 63, 0, 1 << 63)], 0x1000),
            (vec![spec(0, 0x1000, 0, 0), spec(0xfff, 1, 0, 0)], 0x1000),
            (vec![spec(0xfff, 1, 0, 0), spec(0, 0x1000, 0, 0)], 0x1000),
        ] {
            let files: Vec<File> = specs.iter().map(|_| file(len)).collect();
            assert!(FrontendMemory::new(&specs, &files).is_err(), "{specs:?}");
        }
    }
}
