//! The ranges of one address space, and which of them an access falls into.

use crate::base::BusSpace;

/// Who answers in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A BAR of the function with this index.
    Bar {
        /// Index of the function on its bus.
        function: usize,
        /// Number of the BAR.
        bar: u8,
    },
    /// A window of the device with this index.
    Window {
        /// Index of the device.
        device: usize,
        /// Number of the window.
        window: usize,
    },
}

/// A range and who answers in it.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes, at least 1.
    pub size: u64,
    /// Who.
    pub target: Target,
    /// Offset of the first address in the target.
    pub offset: u64,
}

impl Range {
    /// Where in the target `size` bytes from `addr` lie, when the range holds them whole.
    #[inline]
    fn hit(&self, addr: u64, size: u8) -> Option<(Target, u64)> {
        let offset = addr.wrapping_sub(self.start);
        // A hit does not wrap, because no range does.
        let whole = offset < self.size && self.size - offset >= u64::from(size);
        whole.then_some((self.target, self.offset.wrapping_add(offset)))
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// A window of a device at a place in an address space.
#[derive(Clone, Copy, Debug)]
pub struct Placement {
    /// Which space.
    pub space: BusSpace,
    /// Where, and which window.
    pub range: Range,
}

impl Placement {
    /// `size` ports from `port`, which are those of window `window` of device `device`.
    pub fn ports(device: usize, window: usize, port: u16, size: u64) -> Self {
        Self::new(BusSpace::Pio, device, window, port.into(), size)
    }

    /// `size` bytes of memory from `addr`, likewise.
    pub fn memory(device: usize, window: usize, addr: u64, size: u64) -> Self {
        Self::new(BusSpace::Mmio, device, window, addr, size)
    }

    fn new(space: BusSpace, device: usize, window: usize, start: u64, size: u64) -> Self {
        let target = Target::Window { device, window };
        Self { space, range: Range { start, size, target, offset: 0 } }
    }

    /// The same place, where the window's byte `offset` is the first.
    #[must_use]
    pub fn from_offset(mut self, offset: u64) -> Self {
        self.range.offset = offset;
        self
    }
}

/// The ranges of one address space.
#[derive(Default)]
pub struct Windows {
    /// In address order, or in order of precedence while some overlap.
    list: Vec<Range>,
    /// The last hit: a doorbell is rung far more often than anything else is touched.
    last: usize,
    overlap: bool,
}

impl Windows {
    /// Replaces the ranges; where two overlap, the former answers.
    pub fn set(&mut self, list: Vec<Range>) {
        let mut sorted = list.clone();
        sorted.sort_by_key(|range| range.start);
        self.overlap =
            sorted.iter().zip(sorted.iter().skip(1)).any(|(low, high)| low.end() > high.start);
        self.list = if self.overlap { list } else { sorted };
        self.last = 0;
    }

    /// Who answers `size` bytes from `addr`, and at which offset. Remembers the hit.
    #[inline]
    pub fn find(&mut self, addr: u64, size: u8) -> Option<(Target, u64)> {
        if !self.overlap
            && let Some(found) = self.list.get(self.last).and_then(|range| range.hit(addr, size))
        {
            return Some(found);
        }
        let (index, found) = self.search(addr, size)?;
        self.last = index;
        Some(found)
    }

    /// As [`Windows::find`], for several threads at once.
    #[inline]
    pub fn peek(&self, addr: u64, size: u8) -> Option<(Target, u64)> {
        self.search(addr, size).map(|(_, found)| found)
    }

    fn search(&self, addr: u64, size: u8) -> Option<(usize, (Target, u64))> {
        if self.overlap {
            let hits = self.list.iter().enumerate();
            return hits.into_iter().find_map(|(i, range)| Some((i, range.hit(addr, size)?)));
        }
        let index = self.list.partition_point(|range| range.start <= addr).checked_sub(1)?;
        Some((index, self.list.get(index)?.hit(addr, size)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(start: u64, size: u64, bar: u8) -> Range {
        Range { start, size, target: Target::Bar { function: 0, bar }, offset: 0x10 }
    }

    #[test]
    fn an_access_is_found_whole_or_not_at_all() {
        let mut windows = Windows::default();
        assert_eq!(windows.find(0, 1), None);
        windows.set(vec![bar(0x70, 2, 0), bar(0x40, 4, 1), bar(u64::MAX - 3, 4, 2)]);
        for _ in 0..2 {
            let found = windows.find(0x42, 2);
            assert_eq!(found, Some((Target::Bar { function: 0, bar: 1 }, 0x12)));
            assert_eq!(windows.find(0x43, 2), None);
            assert_eq!(windows.find(0x3f, 1), None);
            assert_eq!(windows.peek(0x71, 1).map(|hit| hit.1), Some(0x11));
            assert_eq!(windows.find(u64::MAX, 1).map(|hit| hit.1), Some(0x13));
        }
    }

    #[test]
    fn the_first_of_overlapping_ranges_answers() {
        let mut windows = Windows::default();
        windows.set(vec![bar(0x100, 8, 0), bar(0x80, 0x100, 1)]);
        let who = |found: Option<(Target, u64)>| found.map(|hit| hit.0);
        for _ in 0..2 {
            assert_eq!(who(windows.find(0x81, 1)), Some(Target::Bar { function: 0, bar: 1 }));
            assert_eq!(who(windows.find(0x104, 4)), Some(Target::Bar { function: 0, bar: 0 }));
            // One that straddles the end of the first lies whole in the second.
            assert_eq!(who(windows.find(0x106, 4)), Some(Target::Bar { function: 0, bar: 1 }));
        }
    }
}
