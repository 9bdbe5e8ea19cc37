//! Virtio over PCI, modern and legacy (virtio 1.2 §4.1), for any virtio device behind it.

pub mod bits;
pub mod chip;
pub mod glue;
pub mod interrupts;

pub use glue::{Personality, VirtioPci, VirtioPciConfig};
pub use interrupts::VirtioInterrupts;

use std::os::fd::RawFd;

use super::virtio_queue::QueueConfig;
use crate::base::Result;

/// A virtio device as its transport sees it.
pub trait VirtioDevice: Send + Sync {
    /// Virtio device ID (virtio 1.2 §5).
    fn device_id(&self) -> u16;
    /// PCI class code of a function that is this device, as 0xCCSSPP.
    fn pci_class(&self) -> u32;
    /// Features offered, without those of the transport.
    fn features(&self) -> u64;
    /// Queues.
    fn queues(&self) -> u16;
    /// Largest size of a queue.
    fn queue_size_max(&self) -> u16;
    /// Device configuration, `buf.len()` bytes from `offset`; bytes it does not have read as 0.
    fn config_read(&mut self, offset: u64, buf: &mut [u8]);
    /// Writes device configuration, as far as it is writable.
    fn config_write(&mut self, offset: u64, bytes: &[u8]);
    /// The driver has chosen these features.
    fn set_features(&mut self, features: u64);
    /// Starts a queue. A bad layout puts the device in need of a reset.
    fn start_queue(&mut self, index: u16, config: QueueConfig);
    /// Stops a queue: when this returns, its ring and buffers are not touched again.
    fn stop_queue(&mut self, index: u16);
    /// Stops everything and forgets what was negotiated.
    fn reset(&mut self);
    /// The driver rang for a queue, started or not.
    fn kick(&mut self, index: u16);
    /// As [`VirtioDevice::kick`], by several threads at once.
    fn kick_shared(&self, index: u16);
    /// Makes progress with work left over; whether there was any.
    ///
    /// # Errors
    /// The device died.
    fn poll(&mut self) -> Result<bool>;
    /// Whether `poll` would find work. May say so when there is none.
    fn has_work(&self) -> bool;
    /// Adds the descriptors whose readiness means that `poll` has work.
    fn wait_fds(&mut self, fds: &mut Vec<RawFd>);
    /// Whether nothing is in flight and nothing waits to be taken.
    fn is_idle(&mut self) -> bool;
    /// Why the device needs a reset, when it does.
    fn fault(&mut self) -> Option<String>;
    /// Its capacity is `bytes` from now on; the transport tells the driver.
    ///
    /// # Errors
    /// A device that has no capacity, or cannot have this one.
    fn resize(&mut self, bytes: u64) -> Result<()>;
}
