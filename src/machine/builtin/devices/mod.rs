//! Device models. Each is three files: `bits` (numbers of the specification), `chip` (a pure state
//! machine), `glue` (which wire, which memory).

pub mod capture;
pub mod debugcon;
pub mod fw_cfg;
pub mod hpet;
pub mod i8042;
pub mod ioapic;
pub mod lanes;
pub mod lapic;
pub mod pic;
pub mod pit;
pub mod pm;
#[cfg(test)]
mod recorded;
pub mod rtc;
pub mod serial;
pub mod system;
pub mod virtio_blk;
pub mod virtio_pci;
pub mod virtio_queue;
