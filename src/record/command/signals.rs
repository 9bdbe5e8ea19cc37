//! Signals that end a recording, taken one by one from a descriptor.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::base::{Error, Result};

/// What asks us to end.
const ENDING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// A signal that was sent to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// The kernel sent it, for a key that was pressed: the whole process group has got it.
    pub by_terminal: bool,
}

/// SIGINT, SIGTERM and SIGHUP, held back so that nothing is interrupted. When it is dropped they
/// end the process as ever: a user who is tired of waiting for the end sends a second one.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    set: SigSet,
}

impl Signals {
    /// Holds them back in this thread and all that it starts from now on: to be called before any
    /// other thread is there.
    ///
    /// # Errors
    /// A machine error when the kernel refuses.
    pub fn take_over() -> Result<Self> {
        let mut set = SigSet::empty();
        ENDING.into_iter().for_each(|signal| set.add(signal));
        let fail = |e| Error::machine("cannot watch for signals").source(e);
        set.thread_block().map_err(fail)?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
        Ok(Self { fd: fd.map_err(fail)?, set })
    }

    /// The next one, if there is one.
    pub fn take(&self) -> Option<Received> {
        let info = self.fd.read_signal().ok().flatten()?;
        let signal = i32::try_from(info.ssi_signo).ok()?;
        Some(Received { signal, by_terminal: info.ssi_code == libc::SI_KERNEL })
    }
}

impl Signals {
    /// Waits for one, at most `patience`.
    pub fn wait(&self, patience: Duration) {
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout);
    }
}

impl AsFd for Signals {
    /// Readable when there is one.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        let _ = self.set.thread_unblock();
    }
}
