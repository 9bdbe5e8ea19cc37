//! How an iothread wakes a test thread that waits for any device.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::base::{Error, Result};
use crate::machine::IrqEvent;

/// A count of batches, and an event for whoever sleeps on it. Nobody asleep costs no system call.
pub struct Attention {
    event: IrqEvent,
    count: AtomicU64,
    armed: AtomicBool,
}

impl Attention {
    /// A count of 0.
    ///
    /// # Errors
    /// The system has no eventfd.
    pub fn new() -> Result<Self> {
        let event = IrqEvent::new().map_err(|e| Error::machine("no eventfd").source(e))?;
        Ok(Self { event, count: AtomicU64::new(0), armed: AtomicBool::new(false) })
    }

    /// Something happened.
    pub fn progress(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.armed.load(Ordering::SeqCst) {
            self.event.signal();
        }
    }

    /// Before sleeping: whether nothing happened since `seen` was read. The order of this store and
    /// load against `progress`'s is what lets neither side miss the other.
    pub fn arm(&self, seen: u64) -> bool {
        self.armed.store(true, Ordering::SeqCst);
        self.count.load(Ordering::SeqCst) == seen
    }

    /// After sleeping, or not: the count now.
    pub fn disarm(&self) -> u64 {
        self.armed.store(false, Ordering::SeqCst);
        self.event.take();
        self.count.load(Ordering::SeqCst)
    }

    /// For poll(2).
    pub fn fd(&self) -> RawFd {
        self.event.fd().as_raw_fd()
    }
}
