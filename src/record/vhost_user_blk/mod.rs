//! A vhost-user-blk back-end (vhost-user protocol; virtio 1.2 §5.2) in front of an image: a VMM
//! attaches it as its guest's disk, and every request is recorded with what it wrote or read.
//!
//! - `server`: front-ends come and go; `resize`: the disk gets another size; `protocol`: their messages; `backend`: what they command;
//! - `worker`: the thread of a queue; `queue`: its ring; `engine`: its requests;
//! - `memory`, `guard`: the guest's memory, which its owner may take away at any moment;
//!   `inflight`: what a recorder that is started again finds of the one before.
//!
//! What is hostile is answered by the request's status, by breaking its queue (the error eventfd
//! is rung, and the queue takes nothing until it is started again), or by ending the connection.

mod backend;
mod engine;
mod guard;
mod inflight;
mod memory;
mod news;
mod protocol;
mod queue;
mod resize;
mod server;
#[cfg(test)]
mod tests;
mod worker;

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use self::backend::Backend;
pub use self::backend::NewTap;
use self::engine::Disk;
pub use self::resize::Watch;
pub use self::server::Server;
use crate::base::{Error, Result, SECTOR_SIZE};
use crate::image::Image;
use crate::machine::builtin::devices::virtio_blk::chip::{BlkChip, BlkGeometry};
use crate::trace::{NotRecorded, TraceHeader};

/// Entries of a ring that the limits of a request are made for: what QEMU gives a disk unless told
/// otherwise. Rings may be larger.
const QUEUE_SIZE: u16 = 128;

/// Queues at most: threads, and the index of a vring has 8 bits in some messages.
pub const QUEUES_MAX: u16 = 64;

/// How an image is served.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Queues that a front-end may have.
    pub queues: u16,
    /// Logical block size in bytes.
    pub block_bytes: u32,
    /// The disk's identifier, at most 20 bytes.
    pub serial: String,
}

/// The header of such a recording.
pub fn header(image: &dyn Image) -> TraceHeader {
    TraceHeader {
        tool: concat!("qtrace ", env!("CARGO_PKG_VERSION")).to_owned(),
        source_format: "vhost-user-blk".to_owned(),
        interpretation: vec![
            format!("recorded: {} ({})", image.info().path.display(), image.info().format),
            "fua: writes to a write-through cache".to_owned(),
        ],
        origin_unix_ns: None,
        not_recorded: NotRecorded::CPUS | NotRecorded::PREFLUSH | NotRecorded::HINTS,
    }
}

/// Serves `image` to whoever connects to `listener`; `new_tap` gives the tap of each queue when it
/// is started for the first time.
///
/// # Errors
/// An image that cannot be a disk, or no threads.
pub fn serve(
    listener: UnixListener,
    image: Arc<dyn Image>,
    options: &DiskOptions,
    new_tap: NewTap,
) -> Result<Server> {
    let DiskOptions { queues, block_bytes, ref serial } = *options;
    if !image.size().is_multiple_of(block_bytes.into()) {
        let what = format!("{} bytes are no whole blocks of {block_bytes}", image.size());
        return Err(Error::usage(what).path(&image.info().path));
    }
    let chip = BlkChip::new(BlkGeometry {
        capacity_sectors: image.size() / SECTOR_SIZE,
        block_bytes,
        read_only: image.info().read_only,
        queues,
        queue_size: QUEUE_SIZE,
    });
    let backend = Backend::new(Disk::new(chip, serial), image, queues, new_tap);
    let backend = backend.map_err(|e| Error::machine("no thread for each queue").source(e))?;
    Server::start(listener, backend)
}
