//! A machine with one disk that somebody else prepared: what a block trace is replayed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::settings::ClockChoice;
use crate::image::Image;
use crate::image::given::GivenImage;
use crate::machine::Machine;

/// Who opens the image of a machine's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageHolder {
    /// This program, which hands an open image to the device.
    Qtrace,
    /// The machine: a program of its own, with a block layer of its own.
    Machine,
    /// A server that was there before, and stays: it serves what it serves.
    Server,
}

/// The image of a disk.
pub enum DiskImage {
    /// Open, for a machine whose images this program holds.
    Held(Arc<dyn Image>),
    /// Described, for a machine that opens it.
    Given(GivenImage),
    /// Whatever the server at the other end has.
    Served,
}

/// The disk, and what it asks of the machine.
pub struct OneDisk {
    /// Its bytes.
    pub image: DiskImage,
    /// Request queues.
    pub queues: u16,
    /// Entries of each of its rings, a power of two.
    pub queue_size: u16,
    /// Served in a thread of its own; `None` where that is faster and changes nothing else.
    pub iothread: Option<bool>,
    /// Requests on a held image at once; 0: one after the other, in order.
    pub aio_depth: usize,
    /// How the image is read and written is left to the machine.
    pub aio_auto: bool,
    /// The machine's time.
    pub clock: ClockChoice,
    /// How long a machine that is a program of its own may be silent before it counts as hung.
    pub patience: Duration,
}

/// A machine built for one disk, with what a report says of it.
pub struct DiskMachine {
    /// The machine.
    pub machine: Box<dyn Machine>,
    /// What is worth knowing of it: a program's version, how it was started.
    pub details: BTreeMap<String, String>,
}
