//! Which device an access belongs to, and which of its registers it is.
//!
//! A trace names regions in its source's words. QEMU's names are known here; where a source has
//! none, the address says it. A name that is not known, at an address that no region of the board
//! has, is of a device that the machine does not model: it is replayed and reported apart.

use std::fmt;

use super::functions::Functions;
use crate::base::{BusAccess, BusSpace};
use crate::machine::builtin::Chips;

/// A region of the bus that the builtin machine models.
#[derive(Debug, PartialEq, Eq)]
pub struct Region {
    /// QEMU's name of it; a `*` at its end stands for anything.
    pub name: &'static str,
    /// The device behind it.
    pub device: &'static str,
    /// What the machine must carry to have it; empty for what every machine has.
    pub chips: Chips,
    /// Where it is, when that is fixed: space, first byte, length. PCI's base address registers
    /// and the power management block are where firmware puts them.
    pub place: Option<(BusSpace, u64, u64)>,
    /// It begins at a multiple of this, wherever that is: 1 where it may be anywhere.
    pub aligned: u64,
}

const fn at(
    name: &'static str,
    device: &'static str,
    chips: Chips,
    space: BusSpace,
    base: u64,
    len: u64,
) -> Region {
    Region { name, device, chips, place: Some((space, base, len)), aligned: 1 }
}

const fn port(
    name: &'static str,
    device: &'static str,
    chips: Chips,
    base: u64,
    len: u64,
) -> Region {
    at(name, device, chips, BusSpace::Pio, base, len)
}

const fn anywhere(name: &'static str, device: &'static str, chips: Chips) -> Region {
    Region { name, device, chips, place: None, aligned: 1 }
}

/// Part of a virtio block device, at a multiple of `aligned` bytes.
const fn virtio(name: &'static str, aligned: u64) -> Region {
    let (device, chips) = ("virtio-blk", Chips::empty());
    Region { name, device, chips, place: None, aligned }
}

/// Structures of a virtio function, each in a page of its own (virtio 1.2 §4.1.4).
pub const VIRTIO_COMMON: &str = "virtio-pci-common*";
/// Its notification structure.
pub const VIRTIO_NOTIFY: &str = "virtio-pci-notify*";
/// Its interrupt status.
pub const VIRTIO_ISR: &str = "virtio-pci-isr*";
/// Its device-specific configuration.
pub const VIRTIO_DEVICE: &str = "virtio-pci-device*";
/// Its legacy interface (virtio 1.2 §4.1.4.10).
pub const VIRTIO_LEGACY: &str = "virtio-pci*";
/// Its MSI-X table.
pub const MSIX_TABLE: &str = "msix-table";
/// Its MSI-X pending bits.
pub const MSIX_PBA: &str = "msix-pba";

/// Everything that is modelled. The first entry that holds an address, or has a name, counts.
pub const REGIONS: &[Region] = &[
    port("pci-conf-idx", "pci", Chips::empty(), 0xcf8, 4),
    port("pci-conf-data", "pci", Chips::empty(), 0xcfc, 4),
    anywhere("pcie-mmcfg-mmio", "pci", Chips::empty()),
    port("rtc-index", "rtc", Chips::RTC, 0x70, 1),
    port("rtc", "rtc", Chips::RTC, 0x70, 2),
    port("pit", "pit", Chips::PIT, 0x40, 4),
    port("pcspk", "pit", Chips::PIT, 0x61, 1),
    port("pic", "pic", Chips::PIC, 0x20, 2),
    port("pic", "pic", Chips::PIC, 0xa0, 2),
    port("elcr", "pic", Chips::PIC, 0x4d0, 2),
    at("ioapic", "ioapic", Chips::IOAPIC, BusSpace::Mmio, 0xfec0_0000, 0x1000),
    at("apic-msi", "lapic", Chips::LAPIC, BusSpace::Mmio, 0xfee0_0000, 0x10_0000),
    at("hpet", "hpet", Chips::HPET, BusSpace::Mmio, 0xfed0_0000, 0x400),
    anywhere("acpi-tmr", "acpi-pm", Chips::PM),
    anywhere("acpi-evt", "acpi-pm", Chips::PM),
    anywhere("acpi-cnt", "acpi-pm", Chips::PM),
    port("acpi-gpe0", "acpi-pm", Chips::PM, 0xafe0, 4),
    port("serial", "serial", Chips::SERIAL, 0x3f8, 8),
    port("i8042-data", "i8042", Chips::I8042, 0x60, 1),
    port("i8042-cmd", "i8042", Chips::I8042, 0x64, 1),
    port("fwcfg.dma", "fw_cfg", Chips::FW_CFG, 0x514, 8),
    port("fwcfg", "fw_cfg", Chips::FW_CFG, 0x510, 2),
    port("isa-debugcon", "debugcon", Chips::DEBUGCON, 0x402, 1),
    port("port92", "system", Chips::SYSTEM, 0x92, 1),
    port("apm-io", "system", Chips::SYSTEM, 0xb2, 2),
    port("ioport80", "system", Chips::SYSTEM, 0x80, 1),
    virtio(VIRTIO_COMMON, 0x1000),
    virtio(VIRTIO_NOTIFY, 0x1000),
    virtio(VIRTIO_ISR, 0x1000),
    virtio(VIRTIO_DEVICE, 0x1000),
    virtio(VIRTIO_LEGACY, 0x80),
    virtio(MSIX_TABLE, 0x1000),
    virtio(MSIX_PBA, 0x1000),
];

/// Devices whose writes may begin I/O, which takes the host's time: so the names of their regions
/// begin.
const DISKS: &[&str] =
    &["virtio-pci", "ide", "piix-bmdma", "ahci", "nvme", "fdc", "sdhci", "lsi", "megasas"];

/// Parts of such devices where no write begins any: a virtio function's registers but for its
/// doorbells.
const CONTROL: &[&str] =
    &["virtio-pci-common", "virtio-pci-isr", "virtio-pci-device", "msix-table", "msix-pba"];

/// Whether a write to a region of that name may begin I/O.
pub fn may_begin_io(name: &str) -> bool {
    let of = |list: &[&str]| list.iter().any(|known| name.starts_with(known));
    of(DISKS) && !of(CONTROL)
}

/// Names that say nothing of a device: QEMU's ports behind which nothing is, and what sources
/// without regions have. Nothing answering is modelled too.
const NAMELESS: &[&str] = &["io", "port", "mmio", ""];

/// Where an access belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A region of [`REGIONS`], by its position.
    Known(usize),
    /// Ports or memory of no known region, in a source that does not name it otherwise.
    Nameless(BusSpace),
    /// A device that is not modelled.
    Foreign,
}

/// What the name of a stream says before any address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A region of [`REGIONS`].
    Known(usize),
    /// Nothing.
    Nameless,
    /// A name that is not known: the address may still be.
    Unknown,
}

impl Named {
    /// What `name` says.
    pub fn new(name: &str) -> Self {
        let known = REGIONS.iter().position(|region| match region.name.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => region.name == name,
        });
        match known {
            Some(at) => Self::Known(at),
            None if NAMELESS.contains(&name) => Self::Nameless,
            None => Self::Unknown,
        }
    }

    /// Where an access of such a stream belongs.
    pub fn place(self, access: &BusAccess) -> Place {
        match (self, by_address(access.space, access.addr)) {
            (Self::Known(at), _) | (_, Some(at)) => Place::Known(at),
            (Self::Nameless, None) => Place::Nameless(access.space),
            (Self::Unknown, None) => Place::Foreign,
        }
    }
}

/// The region at an address, where its place is fixed.
pub fn by_address(space: BusSpace, addr: u64) -> Option<usize> {
    REGIONS.iter().position(|region| {
        region.place.is_some_and(|(at, base, len)| {
            at == space && addr.checked_sub(base).is_some_and(|offset| offset < len)
        })
    })
}

/// A register, as mismatches are grouped and policies choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Register {
    /// Bytes from the region's first one, or the address where that is not known.
    Offset(u64),
    /// Chosen by an index register before.
    Index(u32),
    /// Of a PCI function: bus, device and function, and the register.
    Pci(u16, u16),
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Offset(offset) => write!(f, "+{offset:x}"),
            Self::Index(index) => write!(f, "[{index:02x}]"),
            Self::Pci(bdf, register) => {
                let (bus, slot, function) = (bdf >> 8, bdf >> 3 & 0x1f, bdf & 7);
                write!(f, "[{bus:02x}:{slot:02x}.{function}]+{register:02x}")
            }
        }
    }
}

/// Follows the index registers, so that an access to a data register has a name.
#[derive(Clone, Debug, Default)]
pub struct Indexes {
    /// PCI's CONFIG_ADDRESS.
    config: u32,
    cmos: u32,
    fw_cfg: u32,
    ioapic: u32,
    /// Where PCI functions are.
    pub functions: Functions,
}

impl Indexes {
    /// Takes note of what a read of PCI's CONFIG_DATA returned.
    pub fn read(&mut self, access: &BusAccess, value: u64) {
        if let Some((function, register)) = self.configuration(access) {
            self.functions.note(function, register, access.size, value);
        }
    }

    /// The function and the register that an access of CONFIG_DATA is for (PCI 3.0 §3.2.2.3.2).
    fn configuration(&self, access: &BusAccess) -> Option<(u16, usize)> {
        let data = (access.space, access.addr & !3) == (BusSpace::Pio, 0xcfc);
        let register = (self.config & 0xfc) as usize | (access.addr & 3) as usize;
        (data && self.config >> 31 != 0).then_some(((self.config >> 8) as u16, register))
    }

    /// Takes note of a write.
    pub fn written(&mut self, access: &BusAccess) {
        let value = access.value as u32;
        if let Some((function, register)) = self.configuration(access) {
            self.functions.written(function, register, access.size, access.value);
        }
        match (access.space, access.addr) {
            (BusSpace::Pio, 0xcf8) if access.size == 4 => self.config = value,
            // Bit 7 of port 70h masks the NMI.
            (BusSpace::Pio, 0x70) => self.cmos = value & 0x7f,
            (BusSpace::Pio, 0x510) => self.fw_cfg = value & 0xffff,
            (BusSpace::Mmio, 0xfec0_0000) => self.ioapic = value & 0xff,
            _ => {}
        }
    }

    /// The register that `access` to `place` reaches.
    pub fn register(&self, place: Place, access: &BusAccess) -> Register {
        match (access.space, access.addr) {
            (BusSpace::Pio, 0xcfc..=0xcff) => {
                let low = (access.addr & 3) as u16;
                Register::Pci((self.config >> 8) as u16, (self.config as u16 & 0xfc) | low)
            }
            (BusSpace::Pio, 0x71) => Register::Index(self.cmos),
            (BusSpace::Pio, 0x511) => Register::Index(self.fw_cfg),
            (BusSpace::Mmio, 0xfec0_0010..=0xfec0_0013) => Register::Index(self.ioapic),
            _ => Register::Offset(offset_in(place, access.addr)),
        }
    }
}

fn offset_in(place: Place, addr: u64) -> u64 {
    let region = match place {
        Place::Known(at) => REGIONS.get(at),
        Place::Nameless(_) | Place::Foreign => None,
    };
    if let Some(unit) = region.map(|region| region.aligned).filter(|unit| *unit > 1) {
        return addr % unit;
    }
    let base = region.and_then(|region| region.place);
    // The second place of a region with two (the pair of PICs) is shown by its address.
    match base {
        Some((_, base, len)) if addr.wrapping_sub(base) < len => addr - base,
        _ => addr,
    }
}

/// Whether a machine may be reset by a write to a port, which it may do only after the access is
/// over: the keyboard controller's pulse of its outputs, bit 0 of port 92h, and the reset control
/// register (PIIX3 §2.5.2, §2.5.4).
pub fn may_reset(access: &BusAccess) -> bool {
    let value = access.value;
    access.space == BusSpace::Pio
        && access.write
        && match access.addr {
            0x64 => value & 0xf0 == 0xf0,
            0x92 => value & 1 != 0,
            0xcf9 => value & 4 != 0,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(space: BusSpace, addr: u64) -> BusAccess {
        BusAccess { space, write: false, addr, size: 1, value: 0 }
    }

    fn device(name: &str, space: BusSpace, addr: u64) -> Option<&'static str> {
        match Named::new(name).place(&access(space, addr)) {
            Place::Known(at) => Some(REGIONS[at].device),
            Place::Nameless(_) => Some("nameless"),
            Place::Foreign => None,
        }
    }

    #[test]
    fn a_name_goes_before_the_address_and_the_address_before_nothing() {
        assert_eq!(device("rtc", BusSpace::Pio, 0x71), Some("rtc"));
        assert_eq!(device("port", BusSpace::Pio, 0x71), Some("rtc"));
        assert_eq!(device("acpi-tmr", BusSpace::Pio, 0x608), Some("acpi-pm"));
        assert_eq!(device("virtio-pci-common-virtio-blk", BusSpace::Mmio, 9), Some("virtio-blk"));
        assert_eq!(device("map8@0xfed00000", BusSpace::Mmio, 0xfed0_00f0), Some("hpet"));
        assert_eq!(device("io", BusSpace::Pio, 0x2e), Some("nameless"));
        assert_eq!(device("vga-lowmem", BusSpace::Mmio, 0xa_0000), None);
        assert_eq!(device("ide", BusSpace::Pio, 0x1f7), None);
        assert_eq!(device("kvmvapic", BusSpace::Pio, 0x7e), None);
    }

    #[test]
    fn regions_do_not_overlap_but_where_one_is_part_of_another() {
        for (number, region) in REGIONS.iter().enumerate() {
            let Some((space, base, len)) = region.place else { continue };
            for addr in [base, base + len - 1] {
                let first = &REGIONS[by_address(space, addr).unwrap()];
                assert!(first.device == region.device, "{number}: {}", region.name);
            }
        }
    }

    #[test]
    fn registers_behind_an_index_have_its_name() {
        let mut indexes = Indexes::default();
        let mut name = |index: Option<(u64, u8, u64)>, space, addr| {
            if let Some((addr, size, value)) = index {
                indexes.written(&BusAccess { space, write: true, addr, size, value });
            }
            let access = access(space, addr);
            indexes.register(Named::Nameless.place(&access), &access).to_string()
        };
        assert_eq!(name(Some((0x70, 1, 0x8a)), BusSpace::Pio, 0x71), "[0a]");
        assert_eq!(name(Some((0xcf8, 4, 0x8000_0910)), BusSpace::Pio, 0xcfe), "[00:01.1]+12");
        assert_eq!(name(Some((0x510, 2, 0x19)), BusSpace::Pio, 0x511), "[19]");
        let ioapic = 0xfec0_0000;
        assert_eq!(name(Some((ioapic, 4, 0x10)), BusSpace::Mmio, ioapic + 0x10), "[10]");
        assert_eq!(name(None, BusSpace::Pio, 0x41), "+1");
        assert_eq!(name(None, BusSpace::Pio, 0xa1), "+1");
        assert_eq!(name(None, BusSpace::Pio, 0xc000), "+c000");
    }
}
