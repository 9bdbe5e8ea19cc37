//! A disk's own thread: woken by an eventfd, it takes the worker's lock for one pass at a time.
//!
//! The test thread quiesces it by taking the same lock (reset, configuration), and is let in before
//! the next pass. A panic poisons the lock; whatever ends the thread early leaves the device in
//! need of a reset and every later `poll` an error.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::worker::Worker;
use crate::base::{Error, Result};
use crate::machine::IrqEvent;
use crate::machine::builtin::attention::Attention;
use crate::machine::builtin::devices::virtio_pci::VirtioInterrupts;

struct Shared {
    worker: Mutex<Worker>,
    /// Test-thread callers that want the lock.
    wanted: AtomicUsize,
    /// Queues that were rung.
    rung: Vec<AtomicBool>,
    /// The doorbell event is written and not yet taken.
    awake: AtomicBool,
    doorbell: IrqEvent,
    stop: AtomicBool,
    dead: AtomicBool,
    interrupts: Arc<VirtioInterrupts>,
    attention: Arc<Attention>,
}

/// Handle of a disk's thread. Dropping it stops and joins it.
pub(super) struct IoThread {
    shared: Arc<Shared>,
    handle: Option<JoinHandle<()>>,
}

impl IoThread {
    pub fn spawn(
        worker: Worker,
        queues: u16,
        interrupts: Arc<VirtioInterrupts>,
        attention: Arc<Attention>,
    ) -> Result<Self> {
        let fail = |what: &str, e| Error::machine(format!("iothread: {what}")).source(e);
        let shared = Arc::new(Shared {
            worker: Mutex::new(worker),
            wanted: AtomicUsize::new(0),
            rung: (0..queues).map(|_| AtomicBool::new(false)).collect(),
            awake: AtomicBool::new(false),
            doorbell: IrqEvent::new().map_err(|e| fail("no eventfd", e))?,
            stop: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            interrupts,
            attention,
        });
        let for_thread = Arc::clone(&shared);
        let handle = std::thread::Builder::new()
            .name("qtrace-iothread".into())
            .spawn(move || for_thread.run())
            .map_err(|e| fail("no thread", e))?;
        Ok(Self { shared, handle: Some(handle) })
    }

    /// Rings for a queue.
    pub fn kick(&self, index: u16) {
        if let Some(rung) = self.shared.rung.get(usize::from(index)) {
            rung.store(true, Ordering::Release);
            self.shared.wake();
        }
    }

    /// Has the worker while its thread stands still; `None` when that thread panicked with it.
    pub fn with<R>(&self, f: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        let result = self.peek(f);
        // What the call changed (a new ring, freed room) may be work.
        self.shared.wake();
        result
    }

    /// As [`IoThread::with`], for a call that changes nothing.
    pub fn peek<R>(&self, f: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        self.shared.wanted.fetch_add(1, Ordering::AcqRel);
        let result = self.shared.worker.lock().ok().map(|mut worker| f(&mut worker));
        self.shared.wanted.fetch_sub(1, Ordering::AcqRel);
        result
    }

    /// Whether every doorbell was answered and nothing is in flight. A rung queue is marked until
    /// its pass has the lock, so there is no moment at which neither shows.
    pub fn is_idle(&self) -> bool {
        self.peek(|worker| {
            let rung = self.shared.rung.iter().any(|rung| rung.load(Ordering::Acquire));
            !rung && worker.is_idle()
        })
        .unwrap_or(true)
    }

    /// An error once the thread has died.
    pub fn check(&self) -> Result<()> {
        if !self.shared.dead.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::machine("the disk's iothread died").hint("run with iothread=off to see where"))
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.doorbell.signal();
        if let Some(handle) = self.handle.take() {
            // A panic was reported when it happened.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// Writes the eventfd unless it is written already. `awake` and `rung` pair with the swaps in
    /// `run`: whoever finds `awake` set is seen by the pass that clears it.
    fn wake(&self) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            self.doorbell.signal();
        }
    }

    fn run(&self) {
        let _last_words = LastWords(self);
        let mut image = None;
        while wait_for(self.doorbell.fd().as_raw_fd(), image) {
            self.doorbell.take();
            self.awake.swap(false, Ordering::AcqRel);
            loop {
                if self.stop.load(Ordering::Acquire) {
                    return;
                }
                while self.wanted.load(Ordering::Acquire) > 0 {
                    std::thread::yield_now();
                }
                let Ok(mut worker) = self.worker.lock() else { return };
                for (index, rung) in self.rung.iter().enumerate() {
                    if rung.swap(false, Ordering::AcqRel) {
                        worker.run_queue(index as u16);
                    }
                }
                worker.poll();
                image = worker.engine.event_fd();
                if !worker.has_work() {
                    break;
                }
            }
        }
    }
}

/// Says that the thread ended, however it ended.
struct LastWords<'a>(&'a Shared);

impl Drop for LastWords<'_> {
    fn drop(&mut self) {
        if !self.0.stop.load(Ordering::Acquire) {
            self.0.dead.store(true, Ordering::Release);
            self.0.interrupts.set_needs_reset();
            self.0.attention.progress();
        }
    }
}

/// Waits for the doorbell or the image; `false` when that is not possible any more.
fn wait_for(doorbell: RawFd, image: Option<RawFd>) -> bool {
    let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // A negative descriptor is left out by poll(2).
    let mut fds = [entry(doorbell), entry(image.unwrap_or(-1))];
    // SAFETY: two valid entries for the duration of the call.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
    ready >= 0 || std::io::Error::last_os_error().kind() == std::io::ErrorKind::Interrupted
}
