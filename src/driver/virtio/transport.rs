//! What a driver asks of a virtio transport, whatever carries it: registers of a PCI function, or
//! messages to a vhost-user back-end.

use std::fmt::Display;
use std::sync::Arc;

use super::queue::QueueLayout;
use crate::base::{Error, GuestAddr, Result};
use crate::driver::pci::Function;
use crate::machine::{IrqEvent, Machine};

/// The way to one virtio device. Methods are named after what virtio 1.2 §3.1 and §4.1 let a driver
/// do; each is one or a few register accesses, or messages. All may fail with the machine that has
/// the device.
pub trait DeviceTransport: Send {
    /// The device's name in reports: `00:04.0 1af4:1001`.
    fn name(&self) -> String;
    /// A machine error about the device.
    fn error(&self, what: &dyn Display) -> Error;
    /// What it is called in reports: `modern`, `legacy`, `vhost-user`.
    fn interface(&self) -> &'static str;
    /// The PCI function, where it is one.
    fn function(&self) -> Option<&Function> {
        None
    }
    /// Whether this is the interface of before virtio 1.0.
    fn is_legacy(&self) -> bool;
    /// Feature bits the device offers.
    fn device_features(&mut self, machine: &mut dyn Machine) -> Result<u64>;
    /// Tells the device which features the driver takes.
    fn set_driver_features(&mut self, machine: &mut dyn Machine, features: u64) -> Result<()>;
    /// The device status.
    fn status(&mut self, machine: &mut dyn Machine) -> Result<u8>;
    /// Writes the device status; 0 resets.
    fn set_status(&mut self, machine: &mut dyn Machine, status: u8) -> Result<()>;
    /// Reads and clears the interrupt status, which lowers INTx; 0 where there is none.
    fn isr(&mut self, machine: &mut dyn Machine) -> Result<u8>;
    /// Queues the transport itself reports; `u16::MAX` when it cannot say.
    fn queues(&mut self, machine: &mut dyn Machine) -> Result<u16>;
    /// Largest size of queue `index`; 0: there is no such queue.
    fn queue_size_max(&mut self, machine: &mut dyn Machine, index: u16) -> Result<u16>;
    /// Whether the driver may choose a smaller size.
    fn queue_size_is_ours(&self) -> bool;
    /// Hands queue `index` to the device and returns how to notify it. `vector` is the MSI-X
    /// vector of its interrupts, when MSI-X is in use.
    ///
    /// # Errors
    /// A device that refuses the queue or its vector, or a notification address outside its
    /// structure.
    fn queue_setup(
        &mut self,
        machine: &mut dyn Machine,
        index: u16,
        layout: &QueueLayout,
        vector: Option<u16>,
    ) -> Result<Doorbell>;
    /// Gives configuration changes an MSI-X vector; what reads back, which is
    /// `VIRTIO_MSI_NO_VECTOR` when the device could not take it (§4.1.5.1.2.1).
    fn set_config_vector(&mut self, machine: &mut dyn Machine, vector: u16) -> Result<u16>;
    /// Counts changes of the configuration; constant where the interface has no such thing.
    fn config_generation(&mut self, machine: &mut dyn Machine) -> Result<u8>;
    /// Bytes of the device-specific configuration; `u64::MAX` when it cannot say. `msix`: MSI-X is
    /// enabled (it moves the legacy one).
    fn config_len(&self, msix: bool) -> u64;
    /// A field of 1, 2 or 4 bytes of the device-specific configuration, which lies within it.
    fn config_field(
        &mut self,
        machine: &mut dyn Machine,
        msix: bool,
        offset: u64,
        size: u8,
    ) -> Result<u32>;
    /// Takes guest RAM away from a device that was reset, as far as the transport can.
    fn detach(&mut self, machine: &mut dyn Machine) -> Result<()>;
}

/// Where a queue's notifications go, and what is written there.
#[derive(Clone, Debug)]
pub enum Doorbell {
    /// An I/O port.
    Port(u16, u16),
    /// A memory address.
    Memory(GuestAddr, u16),
    /// An event that the device watches.
    Event(Arc<IrqEvent>),
}

impl Doorbell {
    /// Notifies the device.
    ///
    /// # Errors
    /// A machine that is gone.
    #[inline]
    pub fn ring(&self, machine: &mut dyn Machine) -> Result<()> {
        match self {
            Self::Port(port, value) => machine.bus()?.pio_post(*port, 2, u32::from(*value)),
            Self::Memory(addr, value) => machine.bus()?.mmio_post(*addr, 2, u64::from(*value)),
            Self::Event(event) => event.signal(),
        }
        Ok(())
    }
}
