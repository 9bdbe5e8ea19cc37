//! Waiting for devices, descriptors and time, without ever waiting for nothing.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use super::attention::{Attention, Waker};
use super::bus::SystemBus;
use crate::base::{Clock, Error, Nanos, Result};

/// The lists of a wait, reused.
pub(super) struct Waiter {
    /// Set where somebody else may have news: an iothread, another test thread.
    attention: Option<Arc<Attention>>,
    waker: Option<Arc<Waker>>,
    /// Batches of iothreads that the driver had a chance to see.
    seen: u64,
    device_fds: Vec<RawFd>,
    poll_fds: Vec<libc::pollfd>,
    slack_set: bool,
}

/// What is left of a wait once the devices were looked at.
pub(super) enum Waiting {
    /// Nothing: something is there already, or virtual time has passed.
    Over,
    /// The host's time.
    Sleep(Sleep),
}

/// A sleep, which needs the machine no more.
pub(super) struct Sleep {
    /// The longest, on the host's clock; `None` for ever.
    timeout: Option<Nanos>,
    /// Whether the caller's descriptors end it, or only the devices'.
    with_fds: bool,
}

impl Waiter {
    pub fn new(attention: Option<Arc<Attention>>) -> Self {
        let (device_fds, poll_fds) = (Vec::new(), Vec::new());
        Self { attention, waker: None, seen: 0, device_fds, poll_fds, slack_set: false }
    }

    /// A waiter for another thread, which sleeps by itself.
    pub fn for_another_thread(&self) -> Self {
        Self::new(self.attention.clone())
    }

    /// Begins to wait as `Machine::wait` promises; the caller polls the devices before and after.
    pub fn prepare(
        &mut self,
        bus: &mut SystemBus,
        fds: &[BorrowedFd<'_>],
        deadline: Option<Nanos>,
        clock: &dyn Clock,
    ) -> Result<Waiting> {
        self.device_fds.clear();
        bus.pci().functions().for_each(|function| function.wait_fds(&mut self.device_fds));
        let until = earlier(deadline, bus.deadline());
        if clock.is_virtual() {
            return self.step(bus, fds, until, clock);
        }
        if until.is_none() {
            self.refuse_for_ever(bus, fds.is_empty())?;
        }
        if let Some(attention) = &self.attention {
            let waker = match self.waker.take() {
                Some(waker) => waker,
                None => attention.waker()?,
            };
            // Other threads cannot move a deadline before this one sleeps, or is armed to.
            waker.arm(until);
            self.device_fds.push(waker.fd());
            self.waker = Some(waker);
        }
        let timeout = until.map(|until| clock.host_duration(Nanos(until - clock.now())));
        Ok(Waiting::Sleep(Sleep { timeout, with_fds: true }))
    }

    /// Sleeps as `prepare` found it right, unless there is news already.
    pub fn sleep(&mut self, sleep: &Sleep, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let count = self.attention.as_ref().map_or(self.seen, |attention| attention.count());
        let news = std::mem::replace(&mut self.seen, count) != count;
        let mut result = Ok(false);
        if !news {
            self.set_slack();
            result = self.poll(if sleep.with_fds { fds } else { &[] }, sleep.timeout);
        }
        if let Some(waker) = &self.waker {
            waker.disarm();
        }
        if let Some(attention) = &self.attention {
            self.seen = attention.count();
        }
        result.map(|_| ())
    }

    /// A virtual clock: image I/O under way is finished first, since it takes no virtual time; an
    /// event that is there already needs no time to pass; else time steps to the next moment at
    /// which something happens.
    fn step(
        &mut self,
        bus: &mut SystemBus,
        fds: &[BorrowedFd<'_>],
        until: Option<Nanos>,
        clock: &dyn Clock,
    ) -> Result<Waiting> {
        if !self.device_fds.is_empty() {
            return Ok(Waiting::Sleep(Sleep { timeout: None, with_fds: false }));
        }
        if !fds.is_empty() && self.poll(fds, Some(Nanos(0)))? {
            return Ok(Waiting::Over);
        }
        match until {
            Some(until) => clock.advance_to(until),
            None => return Err(stuck(bus)),
        }
        Ok(Waiting::Over)
    }

    /// Without a deadline something must be able to happen: a descriptor of the caller's, image
    /// I/O, or a disk in another thread with something to do. A device that needs a reset will
    /// not fire an interrupt any more.
    fn refuse_for_ever(&self, bus: &mut SystemBus, no_fds: bool) -> Result<()> {
        let broken = bus.pci().functions().any(|function| function.fault().is_some());
        if !no_fds && !broken {
            return Ok(());
        }
        let idle = self.device_fds.is_empty() && bus.pci().functions().all(|f| f.is_idle());
        // Batches already published are for the caller to see first.
        let news = self.attention.as_ref().is_some_and(|a| a.count() != self.seen);
        if !news && idle {
            return Err(stuck(bus));
        }
        Ok(())
    }

    /// The kernel may delay a sleep by the thread's timer slack, 50 us by default: too much for a
    /// deadline in a trace.
    fn set_slack(&mut self) {
        if !std::mem::replace(&mut self.slack_set, true) {
            // SAFETY: a plain system call on the calling thread; failure leaves the default.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
        }
    }

    /// ppoll(2) over devices and `fds`; whether any is ready. A signal ends it early, so that the
    /// caller can look at what it means.
    fn poll(&mut self, fds: &[BorrowedFd<'_>], timeout: Option<Nanos>) -> Result<bool> {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        self.poll_fds.clear();
        self.poll_fds.extend(self.device_fds.iter().map(|fd| entry(*fd)));
        self.poll_fds.extend(fds.iter().map(|fd| entry(fd.as_raw_fd())));
        let spec = timeout.map(|t| libc::timespec {
            tv_sec: (t.0 / 1_000_000_000) as libc::time_t,
            tv_nsec: (t.0 % 1_000_000_000) as _,
        });
        let spec = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let (list, len) = (self.poll_fds.as_mut_ptr(), self.poll_fds.len());
        // SAFETY: the list holds `len` entries and the timeout is null or valid, for the call.
        let ready = unsafe { libc::ppoll(list, len as libc::nfds_t, spec, std::ptr::null()) };
        if ready >= 0 {
            return Ok(ready > 0);
        }
        match std::io::Error::last_os_error() {
            error if error.kind() == std::io::ErrorKind::Interrupted => Ok(false),
            error => Err(Error::machine("waiting for devices failed").source(error)),
        }
    }
}

fn earlier(a: Option<Nanos>, b: Option<Nanos>) -> Option<Nanos> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn stuck(bus: &mut SystemBus) -> Error {
    match bus.pci().functions().find_map(|function| function.fault()) {
        Some(fault) => Error::machine(format!("a device stopped and needs a reset: {fault}")),
        None => {
            Error::machine("nothing can happen any more: no device has work and no time is set")
                .hint("a request that was not kicked, or one that the device lost")
        }
    }
}
