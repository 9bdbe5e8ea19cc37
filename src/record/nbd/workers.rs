//! Threads for what would hold a connection up, shared by all connections.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::backend::{Job, Outcome, run};
use crate::image::Image;

/// Threads at most: enough for a disk to have something to choose from.
const WORKERS_MAX: usize = 8;

/// Where what workers have done waits for its connection.
#[derive(Debug)]
pub(super) struct Mailbox {
    done: Mutex<Vec<(u64, Outcome)>>,
    event: EventFd,
}

impl Mailbox {
    pub(super) fn new() -> std::io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self { done: Mutex::default(), event: EventFd::from_flags(flags)? })
    }

    fn post(&self, token: u64, outcome: Outcome) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.push((token, outcome));
        // Only a counter at its end could refuse, and then the reader wakes too.
        let _ = self.event.write(1);
    }

    /// Moves what is there to `into`.
    pub(super) fn collect(&self, into: &mut Vec<(u64, Outcome)>) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if !done.is_empty() {
            into.append(&mut done);
            let _ = self.event.read();
        }
    }
}

impl AsFd for Mailbox {
    /// Readable when something is there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

struct Order {
    token: u64,
    job: Job,
    mailbox: Arc<Mailbox>,
}

#[derive(Default)]
struct State {
    orders: VecDeque<Order>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    closed: bool,
}

struct Shared {
    image: Arc<dyn Image>,
    state: Mutex<State>,
    work: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module. Dropped, it waits for what is under way.
pub(super) struct Workers(Arc<Shared>);

impl Workers {
    pub(super) fn new(image: Arc<dyn Image>) -> Self {
        Self(Arc::new(Shared { image, state: Mutex::default(), work: Condvar::new() }))
    }

    /// Has `job` done, and its outcome put into `mailbox` under `token`.
    pub(super) fn give(&self, token: u64, job: Job, mailbox: &Arc<Mailbox>) {
        let mut state = self.0.lock();
        let wanted = state.idle <= state.orders.len() && state.threads.len() < WORKERS_MAX;
        if wanted {
            let shared = Arc::clone(&self.0);
            let thread = std::thread::Builder::new().name("nbd-worker".to_owned());
            // Where there is no thread to be had, those that are there do it, or else we.
            state.threads.extend(thread.spawn(move || work(&shared)));
        }
        if state.threads.is_empty() {
            drop(state);
            return mailbox.post(token, run(&*self.0.image, job));
        }
        state.orders.push_back(Order { token, job, mailbox: Arc::clone(mailbox) });
        drop(state);
        self.0.work.notify_one();
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let threads = {
            let mut state = self.0.lock();
            state.closed = true;
            std::mem::take(&mut state.threads)
        };
        self.0.work.notify_all();
        for thread in threads {
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        if let Some(Order { token, job, mailbox }) = state.orders.pop_front() {
            drop(state);
            mailbox.post(token, run(&*shared.image, job));
            state = shared.lock();
        } else if state.closed {
            return;
        } else {
            state.idle += 1;
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}
