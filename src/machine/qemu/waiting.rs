//! How a QEMU machine waits: for what its process says, for words in guest RAM, for time.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::client::Client;
use super::command::Command;
use super::config::Time;
use super::machine::{Inner, QemuMachine};
use super::probe::Mode;
use crate::base::{Error, Nanos, Result};

/// Without anything that could end it, a wait is this long: whoever waits looks again.
const IDLE_NS: u64 = 1_000_000;
/// Words of guest RAM wake nobody: they are looked at without a pause for so long…
const SPIN_NS: u64 = 30_000;
/// …and then after pauses that grow to this.
const NAP_NS_MAX: u64 = 500_000;

/// The first step of time while an interrupt is waited for: as exact as its moment can be known.
const STEP_NS: u64 = 1_000;
/// Steps grow with the time waited, so that a moment is known to this part of it.
const STEP_PART: u64 = 128;

/// What a doorbell began: it takes the host's time, not the machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum UnderWay {
    #[default]
    Nothing,
    /// QEMU may not have taken the doorbell yet.
    Doorbell,
    /// It has, and may be reading or writing for it.
    Requests,
}

/// The longest step that is not waited for: QEMU runs all timers of it before it answers.
const POSTED_STEP_NS_MAX: u64 = 1_000_000_000;
/// A longer one is waited for: QEMU may have an idle century before it, or a kilohertz of timers.
/// Steps that take less of the host's time than this get longer.
const STRIDE_TIME: Duration = Duration::from_millis(20);

/// The virtual clock's progress.
#[derive(Debug, Default)]
pub(super) struct Pace {
    under_way: UnderWay,
    /// How far a step goes that is waited for and has no other end.
    stride_ns: u64,
    /// The host's time when QEMU's clock was last brought up to it.
    followed: Nanos,
}

impl Pace {
    /// A doorbell was rung.
    pub fn kicked(&mut self) {
        self.under_way = UnderWay::Doorbell;
    }
}

impl Inner {
    /// Moves QEMU's virtual clock by `ns`; timers fire at their own moments within it.
    fn step(&mut self, ns: u64) -> Result<()> {
        let now = self.with(|client| client.value(&Command::ClockStep(Some(ns))))?;
        self.stepped.set(Nanos(now));
        Ok(())
    }

    /// Moves it to the next deadline of a device, wherever that is.
    fn step_to_deadline(&mut self) -> Result<()> {
        let now = self.with(|client| client.value(&Command::ClockStep(None)))?;
        self.stepped.set(Nanos(now));
        Ok(())
    }

    /// Moves it towards `to` without waiting for the answer: QEMU's clock stops nowhere else.
    pub fn post_step(&mut self, to: Nanos) -> Result<()> {
        let now = crate::base::Clock::now(&*self.stepped);
        let step = to - now;
        if step > POSTED_STEP_NS_MAX {
            let start = Instant::now();
            let stride = self.pace.stride_ns.max(POSTED_STEP_NS_MAX);
            self.step(step.min(stride))?;
            let slow = start.elapsed() > STRIDE_TIME;
            self.pace.stride_ns = if slow { stride / 2 } else { stride.saturating_mul(2) };
        } else if step > 0 {
            self.with(|client| client.post(&Command::ClockStep(Some(step))))?;
            self.stepped.set(Nanos(now.0.saturating_add(step)));
        }
        Ok(())
    }

    /// Waits for the answers to everything posted, and for the I/O that it began.
    pub fn settle(&mut self, has_disks: bool) -> Result<()> {
        self.with(Client::settle)?;
        match std::mem::take(&mut self.pace.under_way) {
            UnderWay::Doorbell | UnderWay::Requests if has_disks => self.drain_disks(),
            _ => self.look().map(|_| ()),
        }
    }

    /// Waits until no request is in flight: stopping a machine drains its block devices.
    fn drain_disks(&mut self) -> Result<()> {
        self.monitor("stop", serde_json::Value::Null)?;
        self.monitor("cont", serde_json::Value::Null)?;
        self.look().map(|_| ())
    }
}

impl QemuMachine {
    pub(super) fn wait_for(
        &mut self,
        fds: &[BorrowedFd<'_>],
        deadline: Option<Nanos>,
    ) -> Result<()> {
        match self.shared.time {
            Time::Stepped => self.wait_stepped(fds, deadline),
            Time::Host { follow } => {
                let follow = follow && self.shared.mode == Mode::Qtest;
                self.wait_host(fds, deadline, follow)
            }
        }
    }

    /// Virtual time: what is there needs none; I/O under way needs none; then it passes.
    fn wait_stepped(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        let mut inner = self.lock();
        inner.look()?;
        if is_ready(fds)? {
            return Ok(());
        }
        // The caller looks at its rings after each of these, before time passes.
        match std::mem::take(&mut inner.pace.under_way) {
            UnderWay::Nothing => {}
            UnderWay::Doorbell => {
                inner.with(Client::settle)?;
                if self.has_disks() {
                    inner.pace.under_way = UnderWay::Requests;
                }
                return inner.look().map(|_| ());
            }
            UnderWay::Requests => return inner.drain_disks(),
        }
        let now = self.shared.clock.now();
        match deadline {
            None if fds.is_empty() => {
                inner.step_to_deadline()?;
                if self.shared.clock.now() == now {
                    return Err(nothing_can_happen());
                }
            }
            None => inner.step_to_deadline()?,
            Some(deadline) if fds.is_empty() => inner.step(deadline - now)?,
            Some(deadline) => {
                let left = |inner: &Inner| deadline - crate::base::Clock::now(&*inner.stepped);
                while left(&inner) > 0 {
                    let waited = crate::base::Clock::now(&*inner.stepped) - now;
                    let step = (waited / STEP_PART).max(STEP_NS).min(left(&inner));
                    inner.step(step)?;
                    inner.look()?;
                    if is_ready(fds)? {
                        break;
                    }
                }
            }
        }
        inner.look().map(|_| ())
    }

    /// The host's time.
    fn wait_host(
        &mut self,
        fds: &[BorrowedFd<'_>],
        deadline: Option<Nanos>,
        follow: bool,
    ) -> Result<()> {
        let clock = std::sync::Arc::clone(&self.shared.clock);
        let start = clock.now();
        loop {
            let words = {
                let mut inner = self.lock();
                if follow {
                    let now = clock.now();
                    let passed = now - std::mem::replace(&mut inner.pace.followed, now);
                    inner.step(passed)?;
                }
                if inner.look()? {
                    return Ok(());
                }
                !inner.messages.is_empty()
            };
            let now = clock.now();
            let left = deadline.map_or(u64::MAX, |deadline| deadline - now);
            if left == 0 || is_ready(fds)? {
                return Ok(());
            }
            let waited = now - start;
            if fds.is_empty() && deadline.is_none() && waited >= IDLE_NS {
                return Ok(());
            }
            let nap = match (words, follow) {
                (true, _) if waited < SPIN_NS => 0,
                (true, _) => (waited / 4).min(NAP_NS_MAX),
                (false, true) => NAP_NS_MAX,
                (false, false) if fds.is_empty() && deadline.is_none() => IDLE_NS,
                (false, false) => u64::MAX,
            };
            self.sleep(fds, nap.min(left))?;
        }
    }

    /// Sleeps until QEMU says something, one of `fds` is ready, or `ns` have passed.
    fn sleep(&self, fds: &[BorrowedFd<'_>], ns: u64) -> Result<()> {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut list: Vec<libc::pollfd> = std::iter::once(self.shared.qtest_fd)
            .chain(fds.iter().map(AsRawFd::as_raw_fd))
            .map(entry)
            .collect();
        let time = libc::timespec {
            tv_sec: (ns / 1_000_000_000).min(1 << 30) as libc::time_t,
            tv_nsec: (ns % 1_000_000_000) as _,
        };
        let len = list.len() as libc::nfds_t;
        // SAFETY: the list and the time are valid for the call.
        let ready = unsafe { libc::ppoll(list.as_mut_ptr(), len, &time, std::ptr::null()) };
        match std::io::Error::last_os_error() {
            error if ready < 0 && error.kind() != std::io::ErrorKind::Interrupted => {
                Err(Error::machine("waiting for QEMU failed").source(error))
            }
            _ => Ok(()),
        }
    }
}

fn is_ready(fds: &[BorrowedFd<'_>]) -> Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    if fds.is_empty() {
        return Ok(false);
    }
    let mut list: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut list, PollTimeout::ZERO) {
        Ok(count) => Ok(count > 0),
        Err(nix::errno::Errno::EINTR) => Ok(false),
        Err(e) => Err(Error::machine("polling interrupts failed").source(e)),
    }
}

fn nothing_can_happen() -> Error {
    Error::machine("nothing can happen any more: no device of QEMU's has a deadline")
        .hint("a request that was not kicked, or one that the device lost")
}
