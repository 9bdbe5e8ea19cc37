//! The thread of a queue. Whoever controls the queue takes its lock between two passes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::news::News;
use super::queue::Queue;
use crate::machine::IrqEvent;

/// What woke the thread.
const WOKEN: u64 = 0;
const KICKED: u64 = 1;
const FINISHED: u64 = 2;

/// How long the end of a thread is waited for: one that a front-end holds up by the descriptors
/// that it gave us is left to itself.
const END_PATIENCE: Duration = Duration::from_secs(5);

struct Shared {
    queue: Mutex<Queue>,
    /// Callers that want the lock.
    wanted: AtomicUsize,
    epoll: Epoll,
    wake: IrqEvent,
    stop: AtomicBool,
}

/// A queue and its thread. Dropping it stops the thread.
pub struct Worker {
    shared: Arc<Shared>,
    /// The front-end's doorbell.
    kick: Option<File>,
    ended: Receiver<()>,
}

impl Worker {
    /// Starts the thread of queue `index`.
    ///
    /// # Errors
    /// There is no thread, or no descriptor for it.
    pub fn start(index: u16, news: Arc<News>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = IrqEvent::new()?;
        epoll.add(wake.fd(), EpollEvent::new(EpollFlags::EPOLLIN, WOKEN))?;
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(index, news)),
            wanted: AtomicUsize::new(0),
            epoll,
            wake,
            stop: AtomicBool::new(false),
        });
        let (end, ended) = channel();
        let for_thread = Arc::clone(&shared);
        std::thread::Builder::new().name(format!("vhost-user-{index}")).spawn(move || {
            for_thread.run();
            drop(for_thread);
            // Dropped at the end of the thread, however it comes.
            drop(end);
        })?;
        Ok(Self { shared, kick: None, ended })
    }

    /// Has the queue while its thread stands still.
    pub fn with<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> T {
        self.shared.wanted.fetch_add(1, Ordering::AcqRel);
        let result = work(&mut self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner));
        self.shared.wanted.fetch_sub(1, Ordering::AcqRel);
        // What was changed may be work.
        self.shared.wake.signal();
        result
    }

    /// Listens to another doorbell, or to none. It is never read, so that a front-end cannot keep
    /// us waiting in a read: each ring is an edge.
    ///
    /// # Errors
    /// The descriptor is nothing to wait for.
    pub fn set_kick(&mut self, kick: Option<File>) -> io::Result<()> {
        if let Some(old) = self.kick.take() {
            self.shared.epoll.delete(old.as_fd())?;
        }
        if let Some(new) = kick {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            self.shared.epoll.add(new.as_fd(), EpollEvent::new(flags, KICKED))?;
            self.kick = Some(new);
        }
        Ok(())
    }

    /// Waits for the image that the queue's engine has now. Its descriptor goes with the engine.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn watch_image(&self) -> io::Result<()> {
        let fd = self.with(|queue| queue.event_fd());
        let Some(fd) = fd else { return Ok(()) };
        // SAFETY: the engine has it open; `with` gave the number a moment ago, and only this
        // thread replaces engines.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        match self.shared.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, FINISHED)) {
            Err(nix::errno::Errno::EEXIST) => Ok(()),
            other => Ok(other?),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.signal();
        if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) =
            self.ended.recv_timeout(END_PATIENCE)
        {
            tracing::warn!("a vhost-user-blk queue does not end and is left to itself");
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut more = false;
        loop {
            let Ok(kicked) = self.wait(more) else { return };
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            while self.wanted.load(Ordering::Acquire) > 0 {
                std::thread::yield_now();
            }
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            more = queue.run(kicked);
        }
    }

    /// Waits for something to do, unless there is something; whether the doorbell rang.
    fn wait(&self, more: bool) -> nix::Result<bool> {
        let mut events = [EpollEvent::empty(); 3];
        let timeout = if more { EpollTimeout::ZERO } else { EpollTimeout::NONE };
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        let mut kicked = false;
        for event in events.iter().take(count) {
            kicked |= event.data() == KICKED;
            if event.data() == WOKEN {
                self.wake.take();
                // Whoever changed something may have started the ring: what is on it was rung for
                // before we listened.
                kicked = true;
            }
        }
        Ok(kicked)
    }
}
