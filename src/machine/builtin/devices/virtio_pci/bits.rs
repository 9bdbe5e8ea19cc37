//! Registers of virtio over PCI: virtio 1.2 §4.1.

use crate::machine::builtin::devices::virtio_queue::QueueConfig;

/// Vendor ID of every virtio function (§4.1.2).
pub const VIRTIO_PCI_VENDOR_ID: u16 = 0x1af4;
/// Modern device ID: this plus the virtio device ID (§4.1.2.1).
pub const VIRTIO_PCI_MODERN_DEVICE_ID_BASE: u16 = 0x1040;
/// Least revision of a modern-only function (§4.1.2.1).
pub const VIRTIO_PCI_MODERN_REVISION: u8 = 1;

/// Capability types (§4.1.4).
pub const VIRTIO_PCI_CAP_COMMON_CFG: u8 = 1;
/// Notifications.
pub const VIRTIO_PCI_CAP_NOTIFY_CFG: u8 = 2;
/// ISR status.
pub const VIRTIO_PCI_CAP_ISR_CFG: u8 = 3;
/// Device configuration.
pub const VIRTIO_PCI_CAP_DEVICE_CFG: u8 = 4;
/// Access to the BARs through configuration space.
pub const VIRTIO_PCI_CAP_PCI_CFG: u8 = 5;

/// Bytes of struct virtio_pci_cap.
pub const VIRTIO_PCI_CAP_LEN: u8 = 16;
/// With the notify multiplier, or the data of the PCI configuration access, behind it.
pub const VIRTIO_PCI_CAP_EXT_LEN: u8 = 20;
/// Offsets in struct virtio_pci_cap.
pub const VIRTIO_PCI_CAP_BAR: u8 = 4;
/// Offset within the BAR.
pub const VIRTIO_PCI_CAP_OFFSET: u8 = 8;
/// Length of the structure.
pub const VIRTIO_PCI_CAP_LENGTH: u8 = 12;
/// pci_cfg_data of the PCI configuration access capability.
pub const VIRTIO_PCI_CFG_DATA: u8 = 16;

/// struct virtio_pci_common_cfg (§4.1.4.3): offsets.
pub const VIRTIO_PCI_COMMON_DFSELECT: u64 = 0x00;
/// Offered features, the selected 32 bits.
pub const VIRTIO_PCI_COMMON_DF: u64 = 0x04;
/// Which 32 bits of the driver's features.
pub const VIRTIO_PCI_COMMON_GFSELECT: u64 = 0x08;
/// The driver's features.
pub const VIRTIO_PCI_COMMON_GF: u64 = 0x0c;
/// Vector of configuration changes.
pub const VIRTIO_PCI_COMMON_MSIX: u64 = 0x10;
/// Number of queues.
pub const VIRTIO_PCI_COMMON_NUMQ: u64 = 0x12;
/// Device status.
pub const VIRTIO_PCI_COMMON_STATUS: u64 = 0x14;
/// Configuration generation.
pub const VIRTIO_PCI_COMMON_CFGGENERATION: u64 = 0x15;
/// Which queue the rest is about.
pub const VIRTIO_PCI_COMMON_Q_SELECT: u64 = 0x16;
/// Its size.
pub const VIRTIO_PCI_COMMON_Q_SIZE: u64 = 0x18;
/// Its vector.
pub const VIRTIO_PCI_COMMON_Q_MSIX: u64 = 0x1a;
/// Its enable.
pub const VIRTIO_PCI_COMMON_Q_ENABLE: u64 = 0x1c;
/// Its place among the doorbells.
pub const VIRTIO_PCI_COMMON_Q_NOFF: u64 = 0x1e;
/// Its descriptor table, low half (high half 4 behind).
pub const VIRTIO_PCI_COMMON_Q_DESCLO: u64 = 0x20;
/// Its available ring.
pub const VIRTIO_PCI_COMMON_Q_AVAILLO: u64 = 0x28;
/// Its used ring.
pub const VIRTIO_PCI_COMMON_Q_USEDLO: u64 = 0x30;
/// queue_notify_data.
pub const VIRTIO_PCI_COMMON_Q_NDATA: u64 = 0x38;
/// Its reset.
pub const VIRTIO_PCI_COMMON_Q_RESET: u64 = 0x3a;
/// Bytes of the structure.
pub const VIRTIO_PCI_COMMON_LEN: u64 = 0x3c;

/// Fields of struct virtio_pci_common_cfg: offset and width.
pub const COMMON_FIELDS: [(u64, u8); 21] = [
    (VIRTIO_PCI_COMMON_DFSELECT, 4),
    (VIRTIO_PCI_COMMON_DF, 4),
    (VIRTIO_PCI_COMMON_GFSELECT, 4),
    (VIRTIO_PCI_COMMON_GF, 4),
    (VIRTIO_PCI_COMMON_MSIX, 2),
    (VIRTIO_PCI_COMMON_NUMQ, 2),
    (VIRTIO_PCI_COMMON_STATUS, 1),
    (VIRTIO_PCI_COMMON_CFGGENERATION, 1),
    (VIRTIO_PCI_COMMON_Q_SELECT, 2),
    (VIRTIO_PCI_COMMON_Q_SIZE, 2),
    (VIRTIO_PCI_COMMON_Q_MSIX, 2),
    (VIRTIO_PCI_COMMON_Q_ENABLE, 2),
    (VIRTIO_PCI_COMMON_Q_NOFF, 2),
    (VIRTIO_PCI_COMMON_Q_DESCLO, 4),
    (VIRTIO_PCI_COMMON_Q_DESCLO + 4, 4),
    (VIRTIO_PCI_COMMON_Q_AVAILLO, 4),
    (VIRTIO_PCI_COMMON_Q_AVAILLO + 4, 4),
    (VIRTIO_PCI_COMMON_Q_USEDLO, 4),
    (VIRTIO_PCI_COMMON_Q_USEDLO + 4, 4),
    (VIRTIO_PCI_COMMON_Q_NDATA, 2),
    (VIRTIO_PCI_COMMON_Q_RESET, 2),
];

/// No vector is assigned (§4.1.5.1.2).
pub const VIRTIO_MSI_NO_VECTOR: u16 = 0xffff;

/// ISR status: a queue has used buffers (§4.1.4.5).
pub const VIRTIO_PCI_ISR_INTR: u8 = 1;
/// ISR status: the configuration (or DEVICE_NEEDS_RESET) changed.
pub const VIRTIO_PCI_ISR_CONFIG: u8 = 2;

/// Legacy interface (§4.1.4.8): offsets in the I/O BAR.
pub const VIRTIO_PCI_HOST_FEATURES: u64 = 0x00;
/// Driver features.
pub const VIRTIO_PCI_GUEST_FEATURES: u64 = 0x04;
/// Queue address in pages.
pub const VIRTIO_PCI_QUEUE_PFN: u64 = 0x08;
/// Queue size, read only.
pub const VIRTIO_PCI_QUEUE_NUM: u64 = 0x0c;
/// Queue select.
pub const VIRTIO_PCI_QUEUE_SEL: u64 = 0x0e;
/// Doorbell.
pub const VIRTIO_PCI_QUEUE_NOTIFY: u64 = 0x10;
/// Device status.
pub const VIRTIO_PCI_STATUS: u64 = 0x12;
/// ISR status.
pub const VIRTIO_PCI_ISR: u64 = 0x13;
/// Configuration vector, there while MSI-X is enabled.
pub const VIRTIO_MSI_CONFIG_VECTOR: u64 = 0x14;
/// Queue vector, as above.
pub const VIRTIO_MSI_QUEUE_VECTOR: u64 = 0x16;

/// Fields of the legacy header: offset and width.
pub const LEGACY_FIELDS: [(u64, u8); 10] = [
    (VIRTIO_PCI_HOST_FEATURES, 4),
    (VIRTIO_PCI_GUEST_FEATURES, 4),
    (VIRTIO_PCI_QUEUE_PFN, 4),
    (VIRTIO_PCI_QUEUE_NUM, 2),
    (VIRTIO_PCI_QUEUE_SEL, 2),
    (VIRTIO_PCI_QUEUE_NOTIFY, 2),
    (VIRTIO_PCI_STATUS, 1),
    (VIRTIO_PCI_ISR, 1),
    (VIRTIO_MSI_CONFIG_VECTOR, 2),
    (VIRTIO_MSI_QUEUE_VECTOR, 2),
];

/// Where device configuration begins in the legacy BAR: MSI-X shifts it by 4.
pub fn legacy_config_offset(msix_enabled: bool) -> u64 {
    if msix_enabled { 0x18 } else { 0x14 }
}

/// Bytes of the legacy BAR: header, vectors, and room for any device's configuration.
pub const LEGACY_BAR_SIZE: u64 = 128;

/// Legacy queue pages (§4.1.5.1.3.1).
pub const VIRTIO_PCI_QUEUE_ADDR_SHIFT: u32 = 12;
/// Legacy alignment of the used ring (§2.7.2, "Queue Align").
pub const VIRTIO_PCI_VRING_ALIGN: u64 = 4096;

/// The areas of a legacy queue at page `pfn` (§2.7.2).
pub fn legacy_layout(pfn: u32, size: u16) -> QueueConfig {
    let desc = u64::from(pfn) << VIRTIO_PCI_QUEUE_ADDR_SHIFT;
    let avail = desc + 16 * u64::from(size);
    let avail_end = avail + 2 * (3 + u64::from(size));
    QueueConfig { size, desc, avail, used: avail_end.next_multiple_of(VIRTIO_PCI_VRING_ALIGN) }
}

/// BARs of our function. I/O for the legacy interface.
pub const BAR_LEGACY: u8 = 0;
/// MSI-X table and pending bits.
pub const BAR_MSIX: u8 = 1;
/// The modern structures.
pub const BAR_MODERN: u8 = 4;

/// Places in the modern BAR: a page each, so that a hypervisor could map them apart.
pub const MODERN_COMMON: u64 = 0x0000;
/// ISR status.
pub const MODERN_ISR: u64 = 0x1000;
/// Device configuration.
pub const MODERN_DEVICE: u64 = 0x2000;
/// Doorbells.
pub const MODERN_NOTIFY: u64 = 0x3000;
/// Bytes of each place, and of all.
pub const MODERN_PAGE: u64 = 0x1000;
/// Bytes of the modern BAR.
pub const MODERN_BAR_SIZE: u64 = 0x4000;
/// notify_off_multiplier: one doorbell every 4 bytes (§4.1.4.4).
pub const NOTIFY_OFF_MULTIPLIER: u32 = 4;

/// Bytes of config space that a device may have (fits behind the legacy header).
pub const DEVICE_CONFIG_MAX: u64 = 0x60;
