//! Waiting for devices, descriptors and time, without ever waiting for nothing.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;

use super::attention::Attention;
use super::pci::PciBus;
use crate::base::{Clock, Error, Nanos, Result};

/// The lists of a wait, reused.
pub(super) struct Waiter {
    attention: Option<Arc<Attention>>,
    /// Batches of iothreads that the driver had a chance to see.
    seen: u64,
    device_fds: Vec<RawFd>,
    poll_fds: Vec<libc::pollfd>,
    slack_set: bool,
}

impl Waiter {
    pub fn new(attention: Option<Arc<Attention>>) -> Self {
        let (device_fds, poll_fds) = (Vec::new(), Vec::new());
        Self { attention, seen: 0, device_fds, poll_fds, slack_set: false }
    }

    /// Waits as `Machine::wait` promises; the caller polls the devices before and after.
    pub fn wait(
        &mut self,
        pci: &mut PciBus,
        fds: &[BorrowedFd<'_>],
        deadline: Option<Nanos>,
        clock: &dyn Clock,
    ) -> Result<()> {
        self.device_fds.clear();
        pci.functions().for_each(|function| function.wait_fds(&mut self.device_fds));
        if clock.is_virtual() {
            return self.step(pci, fds, deadline, clock);
        }
        if deadline.is_none() {
            self.refuse_for_ever(pci, fds.is_empty())?;
        }
        let attention = self.attention.clone();
        if let Some(attention) = &attention
            && !attention.arm(self.seen)
        {
            self.seen = attention.disarm();
            return Ok(());
        }
        self.device_fds.extend(attention.as_ref().map(|attention| attention.fd()));
        let timeout = deadline.map(|deadline| clock.host_duration(Nanos(deadline - clock.now())));
        self.set_slack();
        let result = self.poll(fds, timeout);
        if let Some(attention) = &attention {
            self.seen = attention.disarm();
        }
        result.map(|_| ())
    }

    /// A virtual clock: image I/O under way is finished first, since it takes no virtual time; an
    /// event that is there already needs no time to pass; else time steps to the deadline.
    fn step(
        &mut self,
        pci: &mut PciBus,
        fds: &[BorrowedFd<'_>],
        deadline: Option<Nanos>,
        clock: &dyn Clock,
    ) -> Result<()> {
        if !self.device_fds.is_empty() {
            return self.poll(&[], None).map(|_| ());
        }
        if !fds.is_empty() && self.poll(fds, Some(Nanos(0)))? {
            return Ok(());
        }
        match deadline {
            Some(deadline) => clock.advance_to(deadline),
            None => return Err(stuck(pci)),
        }
        Ok(())
    }

    /// Without a deadline something must be able to happen: a descriptor of the caller's, image
    /// I/O, or a disk in another thread with something to do. A device that needs a reset will
    /// not fire an interrupt any more.
    fn refuse_for_ever(&self, pci: &mut PciBus, no_fds: bool) -> Result<()> {
        let broken = pci.functions().any(|function| function.fault().is_some());
        if !no_fds && !broken {
            return Ok(());
        }
        let idle = self.device_fds.is_empty() && pci.functions().all(|f| f.is_idle());
        // Batches already published are for the caller to see first.
        let news = self.attention.as_ref().is_some_and(|a| !a.arm(self.seen));
        if !news && idle {
            return Err(stuck(pci));
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

fn stuck(pci: &mut PciBus) -> Error {
    match pci.functions().find_map(|function| function.fault()) {
        Some(fault) => Error::machine(format!("a device stopped and needs a reset: {fault}")),
        None => {
            Error::machine("nothing can happen any more: no device has work and no time is set")
                .hint("a request that was not kicked, or one that the device lost")
        }
    }
}
