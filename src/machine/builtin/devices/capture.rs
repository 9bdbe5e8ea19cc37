//! What a guest says through a device, kept for whoever asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes kept of one device's output: a verbose boot's log; further ones are only counted.
pub const CAPTURE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
struct Captured {
    bytes: Vec<u8>,
    dropped: u64,
}

/// A bounded record of bytes. Its clones share it: the device has one, the test another.
#[derive(Clone, Debug, Default)]
pub struct Capture(Arc<Mutex<Captured>>);

impl Capture {
    fn lock(&self) -> MutexGuard<'_, Captured> {
        // A byte is pushed whole or not at all, so a poisoned record is still one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a byte.
    pub fn push(&self, byte: u8) {
        let mut captured = self.lock();
        if captured.bytes.len() < CAPTURE_BYTES_MAX {
            captured.bytes.push(byte);
        } else {
            captured.dropped = captured.dropped.saturating_add(1);
        }
    }

    /// The first [`CAPTURE_BYTES_MAX`] bytes since the last [`Capture::take`].
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// The bytes that came after those.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Takes what was captured and begins anew.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.lock()).bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let capture = Capture::default();
        let device = capture.clone();
        (0..CAPTURE_BYTES_MAX + 3).for_each(|i| device.push(i as u8));
        assert_eq!((capture.bytes().len(), capture.dropped()), (CAPTURE_BYTES_MAX, 3));
        assert_eq!(capture.take()[..3], [0, 1, 2]);
        assert_eq!((capture.bytes().len(), capture.dropped()), (0, 0));
    }
}
