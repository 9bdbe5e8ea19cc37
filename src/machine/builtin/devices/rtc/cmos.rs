//! What the maker of a PC leaves in the CMOS RAM for its firmware: the layout of the AT, and the
//! bytes above it that QEMU's and Bochs' PCs added.

use super::bits::BYTES;

/// Types of both diskette drives, A in the high half (AT).
const DISKETTE_DRIVES: usize = 0x10;
/// Equipment (AT): diskette drives, coprocessor, pointing device.
const EQUIPMENT: usize = 0x14;
/// Base memory in KiB, two bytes (AT).
const BASE_MEMORY: usize = 0x15;
/// Memory above 1 MiB in KiB, two bytes (AT).
const EXTENDED_MEMORY: usize = 0x17;
/// The same, as found by the firmware's test (AT).
const EXTENDED_MEMORY_FOUND: usize = 0x30;
/// Memory above 16 MiB in 64 KiB, two bytes.
const HIGH_MEMORY: usize = 0x34;
/// Third boot device in the high half; bit 0: do not check a diskette's boot signature.
const BOOT_THIRD: usize = 0x38;
/// First boot device in the low half, second in the high half.
const BOOT_FIRST_SECOND: usize = 0x3d;
/// Memory above 4 GiB in 64 KiB, three bytes.
const MEMORY_ABOVE_4G: usize = 0x5b;
/// CPUs besides the first.
const FURTHER_CPUS: usize = 0x5f;

const EQUIPMENT_COPROCESSOR: u8 = 0x02;
const EQUIPMENT_POINTING_DEVICE: u8 = 0x04;
const EQUIPMENT_ONE_DISKETTE: u8 = 0x01;
const EQUIPMENT_TWO_DISKETTES: u8 = 0x41;

/// A diskette drive's type, as the AT numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum FloppyDrive {
    /// No drive.
    #[default]
    None = 0,
    /// 1.2 MB, 5.25 inch.
    Mb1_2 = 2,
    /// 1.44 MB, 3.5 inch.
    Mb1_44 = 4,
    /// 2.88 MB, 3.5 inch.
    Mb2_88 = 5,
}

/// Where firmware looks for an operating system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum BootDevice {
    /// Nowhere.
    #[default]
    None = 0,
    /// A diskette.
    Floppy = 1,
    /// A hard disk.
    Disk = 2,
    /// A CD-ROM.
    CdRom = 3,
    /// The network.
    Network = 4,
}

/// What firmware reads of the machine in its CMOS RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CmosConfig {
    /// Guest RAM below 4 GiB.
    pub ram_bytes: u64,
    /// Guest RAM above 4 GiB.
    pub ram_above_4g_bytes: u64,
    /// CPUs.
    pub cpus: u8,
    /// Diskette drives A and B.
    pub floppies: [FloppyDrive; 2],
    /// Boot devices in their order.
    pub boot: [BootDevice; 3],
}

impl Default for CmosConfig {
    /// A PC with one CPU, one diskette drive and no RAM to speak of.
    fn default() -> Self {
        Self {
            ram_bytes: 0,
            ram_above_4g_bytes: 0,
            cpus: 1,
            floppies: [FloppyDrive::Mb2_88, FloppyDrive::None],
            boot: [BootDevice::Disk, BootDevice::Floppy, BootDevice::CdRom],
        }
    }
}

impl CmosConfig {
    /// The bytes, by index.
    pub fn bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        self.put_memory(&mut bytes);
        let [a, b] = self.floppies.map(|drive| drive as u8);
        bytes[DISKETTE_DRIVES] = a << 4 | b;
        bytes[EQUIPMENT] = self.equipment();
        let [first, second, third] = self.boot.map(|device| device as u8);
        bytes[BOOT_FIRST_SECOND] = second << 4 | first;
        bytes[BOOT_THIRD] = third << 4;
        bytes[FURTHER_CPUS] = self.cpus.saturating_sub(1);
        bytes
    }

    fn equipment(&self) -> u8 {
        let diskettes = match self.floppies.iter().filter(|d| **d != FloppyDrive::None).count() {
            0 => 0,
            1 => EQUIPMENT_ONE_DISKETTE,
            _ => EQUIPMENT_TWO_DISKETTES,
        };
        EQUIPMENT_COPROCESSOR | EQUIPMENT_POINTING_DEVICE | diskettes
    }

    fn put_memory(&self, bytes: &mut [u8; BYTES]) {
        let beyond = |start: u64, unit: u64| self.ram_bytes.saturating_sub(start) / unit;
        let mut put = |at: usize, len: usize, value: u64| {
            let most = (1 << (8 * len)) - 1;
            bytes[at..at + len].copy_from_slice(&value.min(most).to_le_bytes()[..len]);
        };
        put(BASE_MEMORY, 2, beyond(0, 1 << 10).min(640));
        put(EXTENDED_MEMORY, 2, beyond(1 << 20, 1 << 10));
        put(EXTENDED_MEMORY_FOUND, 2, beyond(1 << 20, 1 << 10));
        put(HIGH_MEMORY, 2, beyond(16 << 20, 64 << 10));
        put(MEMORY_ABOVE_4G, 3, self.ram_above_4g_bytes / (64 << 10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_written_in_each_unit() {
        let bytes = CmosConfig { ram_bytes: 128 << 20, ..CmosConfig::default() }.bytes();
        assert_eq!(bytes[0x15..0x19], [0x80, 0x02, 0xff, 0xff]);
        assert_eq!(bytes[0x30..0x32], [0xff, 0xff]);
        assert_eq!(u16::from_le_bytes([bytes[0x34], bytes[0x35]]), 112 * 16);
        let small = CmosConfig { ram_bytes: 512 << 10, cpus: 0, ..CmosConfig::default() }.bytes();
        assert_eq!(small[0x15..0x19], [0x00, 0x02, 0, 0]);
        assert_eq!((small[0x34], small[0x5f]), (0, 0));
    }

    #[test]
    fn memory_above_4_gib_has_three_bytes_and_saturates() {
        let above = |bytes| CmosConfig { ram_above_4g_bytes: bytes, ..CmosConfig::default() };
        assert_eq!(above(5 << 30).bytes()[0x5b..0x5e], [0, 0x40, 0x01]);
        assert_eq!(above(u64::MAX).bytes()[0x5b..0x5e], [0xff, 0xff, 0xff]);
    }

    #[test]
    fn drives_and_boot_order_are_qemus() {
        let bytes = CmosConfig::default().bytes();
        assert_eq!((bytes[0x10], bytes[0x14]), (0x50, 0x07));
        assert_eq!((bytes[0x3d], bytes[0x38]), (0x12, 0x30));
        let none = CmosConfig { floppies: [FloppyDrive::None; 2], ..CmosConfig::default() };
        assert_eq!((none.bytes()[0x10], none.bytes()[0x14]), (0, 0x06));
    }
}
