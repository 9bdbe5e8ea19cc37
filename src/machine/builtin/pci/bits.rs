//! PCI Local Bus Specification 3.0: configuration header and MSI-X registers.

/// Vendor ID (§6.2.1).
pub const PCI_VENDOR_ID: u8 = 0x00;
/// Device ID.
pub const PCI_DEVICE_ID: u8 = 0x02;
/// Command (§6.2.2).
pub const PCI_COMMAND: u8 = 0x04;
/// Decode I/O BARs.
pub const PCI_COMMAND_IO: u16 = 1 << 0;
/// Decode memory BARs.
pub const PCI_COMMAND_MEMORY: u16 = 1 << 1;
/// May start transactions: DMA and MSI.
pub const PCI_COMMAND_MASTER: u16 = 1 << 2;
/// Parity error response.
pub const PCI_COMMAND_PARITY: u16 = 1 << 6;
/// SERR# enable.
pub const PCI_COMMAND_SERR: u16 = 1 << 8;
/// The INTx pin stays deasserted.
pub const PCI_COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status (§6.2.3).
pub const PCI_STATUS: u8 = 0x06;
/// An INTx interrupt is pending, whether or not the pin is disabled.
pub const PCI_STATUS_INTERRUPT: u16 = 1 << 3;
/// There is a capability list (§6.7).
pub const PCI_STATUS_CAP_LIST: u16 = 1 << 4;
/// Fast back-to-back transactions are accepted.
pub const PCI_STATUS_FAST_BACK: u16 = 1 << 7;
/// DEVSEL# timing: medium.
pub const PCI_STATUS_DEVSEL_MEDIUM: u16 = 1 << 9;
/// Revision ID, followed by the three class code bytes.
pub const PCI_REVISION_ID: u8 = 0x08;
/// Cache line size: storage for software, no effect.
pub const PCI_CACHE_LINE_SIZE: u8 = 0x0c;
/// Latency timer: as above.
pub const PCI_LATENCY_TIMER: u8 = 0x0d;
/// Header type; 0 for an ordinary function of a single-function device.
pub const PCI_HEADER_TYPE: u8 = 0x0e;
/// Header type bit: the device has more functions (§6.2.1).
pub const PCI_HEADER_TYPE_MULTIFUNCTION: u8 = 1 << 7;
/// First of six base address registers (§6.2.5).
pub const PCI_BASE_ADDRESS_0: u8 = 0x10;
/// Registers in a type 0 header that hold BARs.
pub const PCI_BARS: usize = 6;
/// BAR bit 0: I/O space.
pub const PCI_BASE_ADDRESS_SPACE_IO: u32 = 0x01;
/// Memory BAR bits 2:1: 64 bits wide.
pub const PCI_BASE_ADDRESS_MEM_TYPE_64: u32 = 0x04;
/// Memory BAR bit 3: prefetchable.
pub const PCI_BASE_ADDRESS_MEM_PREFETCH: u32 = 0x08;
/// Subsystem vendor ID.
pub const PCI_SUBSYSTEM_VENDOR_ID: u8 = 0x2c;
/// Subsystem ID.
pub const PCI_SUBSYSTEM_ID: u8 = 0x2e;
/// Offset of the first capability.
pub const PCI_CAPABILITY_LIST: u8 = 0x34;
/// Interrupt line: the routing that firmware writes for the operating system.
pub const PCI_INTERRUPT_LINE: u8 = 0x3c;
/// Interrupt pin: 1 for INTA#.
pub const PCI_INTERRUPT_PIN: u8 = 0x3d;
/// First byte behind the header.
pub const PCI_HEADER_END: u8 = 0x40;

/// Capability ID of MSI-X (§6.8.2).
pub const PCI_CAP_ID_MSIX: u8 = 0x11;
/// Vendor-specific capability.
pub const PCI_CAP_ID_VNDR: u8 = 0x09;
/// Message control, from the capability's start.
pub const PCI_MSIX_FLAGS: u8 = 2;
/// Message control: all vectors masked.
pub const PCI_MSIX_FLAGS_MASKALL: u16 = 1 << 14;
/// Message control: MSI-X in use, INTx not.
pub const PCI_MSIX_FLAGS_ENABLE: u16 = 1 << 15;
/// Bytes of the capability.
pub const PCI_CAP_MSIX_SIZEOF: u8 = 12;
/// Bytes of a table entry.
pub const PCI_MSIX_ENTRY_SIZE: u64 = 16;
/// Vector control: masked.
pub const PCI_MSIX_ENTRY_CTRL_MASKBIT: u32 = 1;
/// Table entries at most (§6.8.2.3).
pub const PCI_MSIX_VECTORS_MAX: u16 = 2048;

/// Configuration mechanism #1 (§3.2.2.3.2): the address port, only as a 32-bit access.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// The data port, four bytes.
pub const CONFIG_DATA: u16 = 0xcfc;
/// Address port bit 31: the data port reaches configuration space.
pub const CONFIG_ADDRESS_ENABLE: u32 = 1 << 31;
