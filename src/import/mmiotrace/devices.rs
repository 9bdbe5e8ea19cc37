//! Which device an address belongs to, as far as PCIDEV and MAP lines say.

use std::collections::{BTreeMap, HashMap};

use super::line::Pci;

/// PCI functions kept: four full buses. A machine has tens.
const PCI_MAX: usize = 1024;

/// Maps alive at once; the kernel's own limit of mapped pages is far below.
const MAPS_MAX: usize = 1 << 16;

/// The regions known so far.
#[derive(Default)]
pub struct Devices {
    /// By first byte: last byte and name.
    bars: BTreeMap<u64, (u64, String)>,
    functions: usize,
    /// By id: first byte.
    maps: HashMap<i64, u64>,
    /// The name of the last access's region, kept since accesses come in runs.
    last: Option<(i64, u64, u64, String)>,
}

impl Devices {
    /// Takes note of a PCI function; `None` when there are too many.
    pub fn add(&mut self, pci: &Pci) -> Option<String> {
        if self.functions >= PCI_MAX {
            return None;
        }
        self.functions += 1;
        self.last = None;
        let name = format!("{:02x}:{:02x}.{}", pci.bus, pci.devfn >> 3, pci.devfn & 7);
        for (bar, start, len) in &pci.memory {
            let end = start.saturating_add(len.saturating_sub(1));
            self.bars.insert(*start, (end, format!("{name}/bar{bar}")));
        }
        Some(name)
    }

    /// Takes note of a map; `false` when there are too many.
    pub fn map(&mut self, id: i64, phys: u64) -> bool {
        self.last = None;
        if self.maps.len() >= MAPS_MAX {
            return false;
        }
        self.maps.insert(id, phys);
        true
    }

    /// Forgets a map.
    pub fn unmap(&mut self, id: i64) {
        self.last = None;
        self.maps.remove(&id);
    }

    /// The name of the region that an access through map `id` to `addr` is in: the PCI function
    /// and its BAR, else the map, else the address space.
    pub fn name(&mut self, id: i64, addr: u64) -> &str {
        let hit =
            |last: &(i64, u64, u64, String)| last.0 == id && (last.1..=last.2).contains(&addr);
        let last = match self.last.take() {
            Some(last) if hit(&last) => last,
            _ => self.find(id, addr),
        };
        &self.last.insert(last).3
    }

    fn find(&self, id: i64, addr: u64) -> (i64, u64, u64, String) {
        if let Some((start, (end, name))) = self.bars.range(..=addr).next_back()
            && addr <= *end
        {
            return (id, *start, *end, name.clone());
        }
        let name = match self.maps.get(&id) {
            Some(phys) => format!("map{id}@{phys:#x}"),
            None => "mmio".to_owned(),
        };
        (id, addr, addr, name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic() -> Pci {
        let memory = vec![(0, 0xfebc_0000, 0x2_0000), (4, u64::MAX - 0xfff, 0x1000)];
        Pci { bus: 2, devfn: 0x1b, vendor: 0x8086, device: 0x100e, memory, driver: String::new() }
    }

    #[test]
    fn a_bar_goes_before_a_map() {
        let mut devices = Devices::default();
        assert_eq!(devices.add(&nic()).unwrap(), "02:03.3");
        assert!(devices.map(7, 0xfebc_1000));
        assert!(devices.map(8, 0xfed0_0000));
        for (id, addr, name) in [
            (7, 0xfebc_1010, "02:03.3/bar0"),
            (7, 0xfebd_ffff, "02:03.3/bar0"),
            (7, 0xfebe_0000, "map7@0xfebc1000"),
            (8, 0xfed0_00f0, "map8@0xfed00000"),
            (9, 0xfed0_00f0, "mmio"),
            (9, u64::MAX, "02:03.3/bar4"),
        ] {
            assert_eq!(devices.name(id, addr), name);
            assert_eq!(devices.name(id, addr), name, "again, from what was kept");
        }
        devices.unmap(8);
        assert_eq!(devices.name(8, 0xfed0_00f0), "mmio");
    }

    #[test]
    fn hostile_counts_are_bounded() {
        let mut devices = Devices::default();
        let added = (0..2 * PCI_MAX).filter(|_| devices.add(&nic()).is_some()).count();
        assert_eq!(added, PCI_MAX);
        let mapped = (0..2 * MAPS_MAX as i64).filter(|id| devices.map(*id, 0)).count();
        assert_eq!(mapped, MAPS_MAX);
    }
}
