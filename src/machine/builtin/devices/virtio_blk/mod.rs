//! virtio-blk (virtio 1.2 §5.2).
//!
//! `chip` decides what a request means, `worker` carries it out between ring and image, `glue`
//! gives the worker to the transport, in the test thread or (`iothread`) in one of its own.

pub mod bits;
pub mod chip;
mod engine;
pub mod glue;
mod iothread;
pub mod observer;
mod worker;

pub use glue::{BlkConfig, VirtioBlk};
pub use observer::{BlkObserver, ObservedRequest};
