//! What a recorder sees of a device, without the device knowing of traces.

use std::io::IoSlice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::base::BlockOp;

/// A request as the device understood it.
#[derive(Debug)]
pub struct ObservedRequest<'a> {
    /// Queue it came on.
    pub queue: u16,
    /// What is asked.
    pub op: BlockOp,
    /// First byte; 0 for operations without a range.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// Write-zeroes may deallocate.
    pub unmap: bool,
    /// What a write writes; empty otherwise.
    pub data: &'a [IoSlice<'a>],
}

/// Sees the requests that reach the image, each range of a discard or write-zeroes by itself.
/// Called in the thread that serves the device. All methods do nothing by default.
pub trait BlkObserver: Send {
    /// A request begins. `token` names it until it completes.
    fn issue(&mut self, token: u64, request: &ObservedRequest<'_>) {
        let _ = (token, request);
    }
    /// The request with this token is answered with this status byte. Every range of one request
    /// has the same token and there is one answer for all.
    fn complete(&mut self, token: u64, status: u8) {
        let _ = (token, status);
    }
}

/// One observer for the workers of several queues.
pub(super) struct SharedObserver(pub Arc<Mutex<Box<dyn BlkObserver>>>);

impl SharedObserver {
    fn lock(&self) -> MutexGuard<'_, Box<dyn BlkObserver>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlkObserver for SharedObserver {
    fn issue(&mut self, token: u64, request: &ObservedRequest<'_>) {
        self.lock().issue(token, request);
    }

    fn complete(&mut self, token: u64, status: u8) {
        self.lock().complete(token, status);
    }
}
