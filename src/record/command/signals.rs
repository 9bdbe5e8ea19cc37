//! Signals that end a recording, taken one by one from a descriptor.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// How long after it is dropped signals still count as the first one: a terminal that closes and
/// service managers send SIGHUP and SIGTERM together, and Ctrl-C is easily pressed twice.
const SAME: Duration = Duration::from_secs(1);

/// SIGINT, SIGTERM and SIGHUP, held back so that nothing is interrupted. A moment after it is
/// dropped they end the process as ever: a user who is tired of waiting for the end sends another.
#[derive(Debug)]
pub struct Signals {
    fd: Arc<SignalFd>,
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
        Ok(Self { fd: Arc::new(fd.map_err(fail)?), set })
    }

    /// The next one, if there is one.
    pub fn take(&self) -> Option<Received> {
        take(&self.fd)
    }
}

fn take(fd: &SignalFd) -> Option<Received> {
    let info = fd.read_signal().ok().flatten()?;
    let signal = i32::try_from(info.ssi_signo).ok()?;
    Some(Received { signal, by_terminal: info.ssi_code == libc::SI_KERNEL })
}

/// Takes those that come within `patience`, and none that come later.
fn take_all(fd: &SignalFd, patience: Duration) {
    let end = Instant::now() + patience;
    loop {
        while take(fd).is_some() {}
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        wait(fd, left);
    }
}

fn wait(fd: &SignalFd, patience: Duration) {
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    let _ = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout);
}

impl Signals {
    /// Waits for one, at most `patience`.
    pub fn wait(&self, patience: Duration) {
        wait(&self.fd, patience);
    }
}

impl AsFd for Signals {
    /// Readable when there is one.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    /// What has come by now, and a moment later, is part of the first one. Then one thread lets them
    /// through, which is enough: they are the process's.
    fn drop(&mut self) {
        take_all(&self.fd, Duration::ZERO);
        let (fd, set) = (Arc::clone(&self.fd), self.set);
        let watch = std::thread::Builder::new().name("signals".to_owned());
        let started = watch.spawn(move || {
            take_all(&fd, SAME);
            let _ = set.thread_unblock();
            // The thread that has them unblocked must stay.
            loop {
                std::thread::park();
            }
        });
        if started.is_err() {
            let _ = self.set.thread_unblock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_came_are_part_of_the_first_one() {
        let signals = Signals::take_over().unwrap();
        // They are this thread's own, and would end the process if one were let through.
        for signal in ENDING {
            nix::sys::signal::raise(signal).unwrap();
        }
        signals.wait(Duration::from_secs(60));
        assert_eq!(signals.take().map(|got| got.signal), Some(libc::SIGHUP));
        take_all(&signals.fd, Duration::ZERO);
        assert_eq!(signals.take(), None);
        nix::sys::signal::raise(Signal::SIGTERM).unwrap();
        let set = signals.set;
        drop(signals);
        set.thread_unblock().unwrap();
    }
}
