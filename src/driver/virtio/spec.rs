//! Numbers of the virtio 1.2 specification that the drivers share, in its own spelling.

/// PCI vendor of every virtio device (§4.1.2).
pub const VIRTIO_PCI_VENDOR: u16 = 0x1af4;
/// Block device with a legacy interface (§4.1.2.1).
pub const VIRTIO_PCI_DEVICE_BLOCK_TRANSITIONAL: u16 = 0x1001;
/// Block device without one: 0x1040 plus the virtio device id 2 (§4.1.2).
pub const VIRTIO_PCI_DEVICE_BLOCK: u16 = 0x1042;

/// Device status bits (§2.1).
pub const ACKNOWLEDGE: u8 = 1;
/// The guest knows how to drive the device.
pub const DRIVER: u8 = 2;
/// The driver is ready.
pub const DRIVER_OK: u8 = 4;
/// Feature negotiation is complete.
pub const FEATURES_OK: u8 = 8;
/// The device cannot go on without a reset.
pub const DEVICE_NEEDS_RESET: u8 = 64;
/// The driver gave up on the device.
pub const FAILED: u8 = 128;

/// Indirect descriptors (§6).
pub const VIRTIO_F_INDIRECT_DESC: u64 = 1 << 28;
/// `used_event` and `avail_event` (§6).
pub const VIRTIO_F_EVENT_IDX: u64 = 1 << 29;
/// The device follows the 1.x specification (§6).
pub const VIRTIO_F_VERSION_1: u64 = 1 << 32;
/// The device's memory accesses may be translated; without an IOMMU that is the identity (§6).
pub const VIRTIO_F_ACCESS_PLATFORM: u64 = 1 << 33;

/// `config_msix_vector`/`queue_msix_vector`: none (§4.1.4.3).
pub const VIRTIO_MSI_NO_VECTOR: u16 = 0xffff;

/// Descriptor flags (§2.7.5): the chain goes on at `next`.
pub const VIRTQ_DESC_F_NEXT: u16 = 1;
/// The device writes this buffer.
pub const VIRTQ_DESC_F_WRITE: u16 = 2;
/// The buffer holds a table of descriptors.
pub const VIRTQ_DESC_F_INDIRECT: u16 = 4;
/// Available ring flag (§2.7.6): do not interrupt.
pub const VIRTQ_AVAIL_F_NO_INTERRUPT: u16 = 1;
/// Used ring flag (§2.7.8): do not notify.
pub const VIRTQ_USED_F_NO_NOTIFY: u16 = 1;
/// Largest split virtqueue (§2.7).
pub const VIRTQ_SIZE_MAX: u16 = 32768;
/// Alignment of the used ring in a legacy queue (§2.7.2).
pub const LEGACY_QUEUE_ALIGN: u64 = 4096;

/// Block device features (§5.2.3): `size_max` is valid.
pub const VIRTIO_BLK_F_SIZE_MAX: u64 = 1 << 1;
/// `seg_max` is valid.
pub const VIRTIO_BLK_F_SEG_MAX: u64 = 1 << 2;
/// The device is read-only.
pub const VIRTIO_BLK_F_RO: u64 = 1 << 5;
/// `blk_size` is valid.
pub const VIRTIO_BLK_F_BLK_SIZE: u64 = 1 << 6;
/// Flush is supported.
pub const VIRTIO_BLK_F_FLUSH: u64 = 1 << 9;
/// `num_queues` is valid.
pub const VIRTIO_BLK_F_MQ: u64 = 1 << 12;
/// Discard is supported.
pub const VIRTIO_BLK_F_DISCARD: u64 = 1 << 13;
/// Write-zeroes is supported.
pub const VIRTIO_BLK_F_WRITE_ZEROES: u64 = 1 << 14;

/// Block request types (§5.2.6).
pub const VIRTIO_BLK_T_IN: u32 = 0;
/// Write.
pub const VIRTIO_BLK_T_OUT: u32 = 1;
/// Flush.
pub const VIRTIO_BLK_T_FLUSH: u32 = 4;
/// The 20-byte identifier.
pub const VIRTIO_BLK_T_GET_ID: u32 = 8;
/// Discard.
pub const VIRTIO_BLK_T_DISCARD: u32 = 11;
/// Write zeroes.
pub const VIRTIO_BLK_T_WRITE_ZEROES: u32 = 13;
/// Bytes of the answer to `VIRTIO_BLK_T_GET_ID`.
pub const VIRTIO_BLK_ID_BYTES: u32 = 20;
/// Segment flag of write-zeroes: the range may be deallocated.
pub const VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP: u32 = 1;
/// Status byte (§5.2.6): success.
pub const VIRTIO_BLK_S_OK: u8 = 0;
/// Device or driver error.
pub const VIRTIO_BLK_S_IOERR: u8 = 1;
/// Request unsupported by the device.
pub const VIRTIO_BLK_S_UNSUPP: u8 = 2;
