//! Registers and layouts of the firmware configuration device (QEMU, `docs/specs/fw_cfg`): the
//! section names below are that document's.

/// "Selector Register": bit 14 asked for writing, which the data port no longer does.
pub const FW_CFG_WRITE_CHANNEL: u16 = 1 << 14;
/// Bit 15: the item belongs to the architecture.
pub const FW_CFG_ARCH_LOCAL: u16 = 1 << 15;

/// "Signature": the bytes `QEMU`.
pub const FW_CFG_SIGNATURE: u16 = 0x00;
/// "Revision / feature bitmap", 32 bits, little endian.
pub const FW_CFG_ID: u16 = 0x01;
/// Machine UUID, 16 bytes.
pub const FW_CFG_UUID: u16 = 0x02;
/// RAM in bytes, 64 bits, little endian as all numbers but those of the directory and of DMA.
pub const FW_CFG_RAM_SIZE: u16 = 0x03;
/// 16 bits: no display.
pub const FW_CFG_NOGRAPHIC: u16 = 0x04;
/// CPUs at boot, 16 bits.
pub const FW_CFG_NB_CPUS: u16 = 0x05;
/// NUMA: nodes, then the node of each CPU, then the bytes of each node; 64 bits each.
pub const FW_CFG_NUMA: u16 = 0x0d;
/// 16 bits: show the boot menu.
pub const FW_CFG_BOOT_MENU: u16 = 0x0e;
/// CPUs that may come to be, 16 bits.
pub const FW_CFG_MAX_CPUS: u16 = 0x0f;
/// "File Directory".
pub const FW_CFG_FILE_DIR: u16 = 0x19;
/// The first file's selector.
pub const FW_CFG_FILE_FIRST: u16 = 0x20;
/// x86: 32 bits, ISA interrupt 0 arrives at I/O APIC input 2.
pub const FW_CFG_IRQ0_OVERRIDE: u16 = FW_CFG_ARCH_LOCAL | 2;

/// Feature: the selector and data ports.
pub const FW_CFG_VERSION: u32 = 1 << 0;
/// Feature: the DMA interface.
pub const FW_CFG_VERSION_DMA: u32 = 1 << 1;

/// Files that a directory may have: the selectors that QEMU's machines reserve.
pub const FW_CFG_FILE_SLOTS: u16 = 0x20;
/// Bytes of a directory entry: size and selector (big endian), two reserved bytes, name.
pub const FW_CFG_FILE_ENTRY_BYTES: usize = 64;
/// Bytes of a file's name, its final NUL included.
pub const FW_CFG_MAX_FILE_PATH: usize = 56;

/// "Guest-side DMA Interface": what a read of the DMA address register returns, `QEMU CFG`.
pub const FW_CFG_DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;
/// Bytes of the structure at that address: control and length of 32 bits, address of 64, all big
/// endian.
pub const FW_CFG_DMA_BYTES: usize = 16;
/// Control: it failed. Every other bit is 0 when the transfer is over.
pub const FW_CFG_DMA_CTL_ERROR: u32 = 1 << 0;
/// Control: the item's bytes to memory.
pub const FW_CFG_DMA_CTL_READ: u32 = 1 << 1;
/// Control: pass over bytes.
pub const FW_CFG_DMA_CTL_SKIP: u32 = 1 << 2;
/// Control: first select the item of bits 31:16.
pub const FW_CFG_DMA_CTL_SELECT: u32 = 1 << 3;
/// Control: memory to the item.
pub const FW_CFG_DMA_CTL_WRITE: u32 = 1 << 4;
