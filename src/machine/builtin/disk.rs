//! Connecting a disk to the board.

use std::sync::Arc;

use super::attention::Attention;
use super::config::DiskConfig;
use super::device::Wire;
use super::devices::virtio_blk::chip::BlkGeometry;
use super::devices::virtio_blk::{BlkConfig, BlkObserver, VirtioBlk};
use super::devices::virtio_pci::{VirtioInterrupts, VirtioPci, VirtioPciConfig};
use super::irq::IrqHub;
use super::pci::interrupts::PciInterrupts;
use crate::base::{Result, SECTOR_SIZE};
use crate::machine::GuestRam;

/// Where a disk is connected.
pub(super) struct Connection<'a> {
    pub ram: &'a Arc<GuestRam>,
    pub hub: &'a Arc<IrqHub>,
    /// INTA# of its slot.
    pub pin: Wire,
    /// The interrupt line register after a reset.
    pub interrupt_line: u8,
    /// Set for a disk with a thread of its own: whom that wakes.
    pub attention: Option<Arc<Attention>>,
}

impl Connection<'_> {
    /// The disk as a PCI function.
    pub fn disk(
        self,
        disk: &DiskConfig,
        observer: Option<Box<dyn BlkObserver>>,
    ) -> Result<VirtioPci<VirtioBlk>> {
        // A vector for each queue and one for configuration changes.
        let vectors = disk.queues + 1;
        let messages = Arc::clone(self.hub) as _;
        let pci_interrupts = Arc::new(PciInterrupts::new(messages, self.pin, vectors));
        let interrupts = Arc::new(VirtioInterrupts::new(Arc::clone(&pci_interrupts), disk.queues));
        let device = VirtioBlk::new(BlkConfig {
            image: Arc::clone(&disk.image),
            geometry: geometry(disk),
            serial: disk.serial.clone(),
            aio_depth: disk.aio_depth,
            concurrent_queues: disk.concurrent_queues,
            observer,
            ram: Arc::clone(self.ram),
            interrupts: Arc::clone(&interrupts),
            attention: self.attention,
        })?;
        VirtioPci::new(
            device,
            VirtioPciConfig {
                personality: disk.personality,
                interrupt_line: self.interrupt_line,
                pci_interrupts,
                interrupts,
                vectors,
            },
        )
    }
}

fn geometry(disk: &DiskConfig) -> BlkGeometry {
    let block_sectors = u64::from(disk.block_bytes) / SECTOR_SIZE;
    let sectors = disk.image.size() / SECTOR_SIZE;
    BlkGeometry {
        capacity_sectors: sectors / block_sectors * block_sectors,
        block_bytes: disk.block_bytes,
        read_only: disk.read_only || disk.image.info().read_only,
        queues: disk.queues,
        queue_size: disk.queue_size,
    }
}
