//! The far end of the line: what the guest sends, and what it is sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::machine::builtin::devices::capture::Capture;

/// Characters that wait for the guest to take them: a script typed at once.
pub const INPUT_BYTES_MAX: usize = 64 << 10;

/// The far end of a serial line. Its clones share it: the device has one, the test another.
#[derive(Clone, Debug, Default)]
pub struct SerialLine {
    output: Capture,
    input: Arc<Mutex<VecDeque<u8>>>,
}

impl SerialLine {
    fn input(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the guest has sent.
    pub fn output(&self) -> &Capture {
        &self.output
    }

    /// Sends characters, which the device takes as fast as its receiver has room. How many the line
    /// holds of them: the rest is not sent.
    pub fn send(&self, bytes: &[u8]) -> usize {
        let mut input = self.input();
        let room = INPUT_BYTES_MAX.saturating_sub(input.len());
        let taken = bytes.len().min(room);
        input.extend(bytes.iter().take(taken));
        taken
    }

    /// Whether characters wait.
    pub fn is_waiting(&self) -> bool {
        !self.input().is_empty()
    }

    /// Takes at most `room` characters.
    pub(super) fn take(&self, room: usize) -> Vec<u8> {
        let mut input = self.input();
        let taken = room.min(input.len());
        input.drain(..taken).collect()
    }
}
