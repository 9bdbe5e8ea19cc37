//! What a driver asks of a virtio transport, whichever register layout is behind it.

use super::queue::QueueLayout;
use crate::base::{GuestAddr, Result};
use crate::driver::pci::Window;
use crate::machine::Bus;

/// The registers of one virtio device. Methods are named after what virtio 1.2 §3.1 and §4.1 let a
/// driver do; each is one or a few register accesses and never waits.
pub trait DeviceTransport: Send {
    /// Whether this is the interface of before virtio 1.0.
    fn is_legacy(&self) -> bool;
    /// Feature bits the device offers.
    fn device_features(&mut self, bus: &mut dyn Bus) -> u64;
    /// Tells the device which features the driver takes.
    fn set_driver_features(&mut self, bus: &mut dyn Bus, features: u64);
    /// The device status.
    fn status(&mut self, bus: &mut dyn Bus) -> u8;
    /// Writes the device status; 0 resets.
    fn set_status(&mut self, bus: &mut dyn Bus, status: u8);
    /// Reads and clears the interrupt status, which lowers INTx.
    fn isr(&mut self, bus: &mut dyn Bus) -> u8;
    /// Queues the transport itself reports; `u16::MAX` when it cannot say.
    fn queues(&mut self, bus: &mut dyn Bus) -> u16;
    /// Largest size of queue `index`; 0: there is no such queue.
    fn queue_size_max(&mut self, bus: &mut dyn Bus, index: u16) -> u16;
    /// Whether the driver may choose a smaller size.
    fn queue_size_is_ours(&self) -> bool;
    /// Hands queue `index` to the device and returns how to notify it. `vector` is the MSI-X
    /// vector of its interrupts, when MSI-X is in use.
    ///
    /// # Errors
    /// A device that refuses the vector, or a notification address outside its structure.
    fn queue_setup(
        &mut self,
        bus: &mut dyn Bus,
        index: u16,
        layout: &QueueLayout,
        vector: Option<u16>,
    ) -> Result<Doorbell>;
    /// Gives configuration changes an MSI-X vector; what reads back, which is
    /// `VIRTIO_MSI_NO_VECTOR` when the device could not take it (§4.1.5.1.2.1).
    fn set_config_vector(&mut self, bus: &mut dyn Bus, vector: u16) -> u16;
    /// Counts changes of the configuration; constant where the interface has no such thing.
    fn config_generation(&mut self, bus: &mut dyn Bus) -> u8;
    /// The device-specific configuration. `msix`: MSI-X is enabled (it moves the legacy one).
    fn config(&self, msix: bool) -> Window;
}

/// Where a queue's notifications go, and what is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// An I/O port.
    Port(u16, u16),
    /// A memory address.
    Memory(GuestAddr, u16),
}

impl Doorbell {
    /// Notifies the device.
    #[inline]
    pub fn ring(self, bus: &mut dyn Bus) {
        match self {
            Self::Port(port, value) => bus.pio_post(port, 2, u32::from(value)),
            Self::Memory(addr, value) => bus.mmio_post(addr, 2, u64::from(value)),
        }
    }
}
