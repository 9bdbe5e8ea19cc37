//! Virtio drivers (virtio 1.2): the transports, the split queue, the block device.

pub mod blk;
pub mod device;
pub mod irq;
pub mod legacy;
pub mod modern;
pub mod queue;
pub mod ring_memory;
pub mod spec;
pub mod transport;

mod blk_config;
mod blk_queue;
mod blk_wait;
mod on_pci;
mod on_vrings;

pub use blk::{CompletionMode, Transport, VirtioBlk, VirtioBlkOptions};

#[cfg(test)]
mod tests;
