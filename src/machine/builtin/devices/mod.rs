//! Device models. Each is three files: `bits` (numbers of the specification), `chip` (a pure state
//! machine), `glue` (which wire, which memory).

pub mod rtc;
pub mod virtio_blk;
pub mod virtio_pci;
pub mod virtio_queue;
