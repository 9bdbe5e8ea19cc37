//! Which devices a board carries.

use bitflags::bitflags;

bitflags! {
    /// The chips of a PC. A minimal machine has the chosen ones, a full one all.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Chips: u32 {
        /// MC146818 real-time clock with CMOS RAM: ports 70h to 71h, interrupt 8.
        const RTC = 1 << 0;
        /// i8254 interval timer with port 61h: ports 40h to 43h, interrupt 0.
        const PIT = 1 << 1;
        /// i8259 pair with the edge/level registers: ports 20h, a0h, 4d0h.
        const PIC = 1 << 2;
        /// I/O APIC: 24 inputs at fec0_0000h.
        const IOAPIC = 1 << 3;
        /// A local APIC for each CPU at fee0_0000h.
        const LAPIC = 1 << 4;
        /// ACPI power management: timer, event and control registers, interrupt 9.
        const PM = 1 << 5;
        /// High-precision event timer at fed0_0000h.
        const HPET = 1 << 6;
        /// 16550 serial port: ports 3f8h to 3ffh, interrupt 4.
        const SERIAL = 1 << 7;
        /// i8042 keyboard controller: ports 60h and 64h, interrupts 1 and 12.
        const I8042 = 1 << 8;
        /// fw_cfg: ports 510h to 51bh.
        const FW_CFG = 1 << 9;
        /// Debug console: port 402h.
        const DEBUGCON = 1 << 10;
        /// System control: ports 92h, b2h and b3h, POST code port 80h.
        const SYSTEM = 1 << 11;
        /// The chipset's PCI functions: ISA bridge, IDE, power management.
        const SOUTH_BRIDGE = 1 << 12;
    }
}

/// Whose behaviour chips have where QEMU's PCs differ from the data sheets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reference {
    /// The data sheets'.
    #[default]
    DataSheets,
    /// QEMU's: recordings made there compare equal.
    Qemu,
}

impl Chips {
    /// None: RAM, the host bridge and disks only.
    pub const MINIMAL: Self = Self::empty();
    /// A whole PC.
    pub const FULL: Self = Self::all();
}
