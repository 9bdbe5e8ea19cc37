//! The user's wish to stop: Ctrl-C or SIGTERM.
//!
//! Signals are the process's, and so is this. Work that goes on in steps gets a flag of its own to
//! look at; this one is for the waits below it that would otherwise last until another program
//! answers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long such a wait lasts before it looks again: a person takes less for at once.
pub const LOOK: Duration = Duration::from_millis(100);

static WANTED: AtomicBool = AtomicBool::new(false);

/// The user wants to stop; there is no way back. Safe to call from a thread that handles signals.
pub fn want() {
    WANTED.store(true, Ordering::Relaxed);
}

/// Whether the user wants to stop.
pub fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}
