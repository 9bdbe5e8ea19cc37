//! How a test thread that waits for any device is woken: by an iothread that finished a batch, or
//! by another test thread that set a timer.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::base::{Error, Nanos, Result};
use crate::machine::IrqEvent;

/// A count of batches, and those who sleep on it. Nobody asleep costs no system call.
#[derive(Default)]
pub struct Attention {
    count: AtomicU64,
    asleep: AtomicUsize,
    wakers: Mutex<Vec<Weak<Waker>>>,
}

/// One thread's sleep.
pub struct Waker {
    attention: Arc<Attention>,
    event: IrqEvent,
    armed: AtomicBool,
    /// When the sleep ends by itself.
    until: AtomicU64,
}

impl Attention {
    /// A new thread that may sleep.
    ///
    /// # Errors
    /// The system has no eventfd.
    pub fn waker(self: &Arc<Self>) -> Result<Arc<Waker>> {
        let event = IrqEvent::new().map_err(|e| Error::machine("no eventfd").source(e))?;
        let waker = Arc::new(Waker {
            attention: Arc::clone(self),
            event,
            armed: AtomicBool::new(false),
            until: AtomicU64::new(u64::MAX),
        });
        let mut wakers = self.wakers();
        wakers.retain(|waker| waker.strong_count() > 0);
        wakers.push(Arc::downgrade(&waker));
        Ok(waker)
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<Weak<Waker>>> {
        // Nothing in here panics while it holds the lock.
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, who: impl Fn(&Waker) -> bool) {
        for waker in self.wakers().iter().filter_map(Weak::upgrade) {
            if waker.armed.load(Ordering::SeqCst) && who(&waker) {
                waker.event.signal();
            }
        }
    }

    /// A batch was finished.
    pub fn progress(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) > 0 {
            self.wake(|_| true);
        }
    }

    /// The devices' next deadline is `next` now: who sleeps longer must look again.
    pub fn deadline(&self, next: Nanos) {
        if self.asleep.load(Ordering::SeqCst) > 0 {
            self.wake(|waker| waker.until.load(Ordering::SeqCst) > next.0);
        }
    }

    /// Batches so far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}

impl Waker {
    /// Before sleeping until `until`: from here on the thread is woken. The order of this store and
    /// of a later look at what it sleeps for, against those of whoever wakes it, is what lets
    /// neither side miss the other.
    pub fn arm(&self, until: Option<Nanos>) {
        self.until.store(until.map_or(u64::MAX, |until| until.0), Ordering::SeqCst);
        if !self.armed.swap(true, Ordering::SeqCst) {
            self.attention.asleep.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// After sleeping, or not.
    pub fn disarm(&self) {
        if self.armed.swap(false, Ordering::SeqCst) {
            self.attention.asleep.fetch_sub(1, Ordering::SeqCst);
        }
        self.event.take();
    }

    /// For poll(2).
    pub fn fd(&self) -> RawFd {
        self.event.fd().as_raw_fd()
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        self.disarm();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sleeper_is_woken_for_what_concerns_it() {
        let attention = Arc::new(Attention::default());
        let (a, b) = (attention.waker().unwrap(), attention.waker().unwrap());
        attention.progress();
        assert_eq!((a.event.take(), attention.count()), (0, 1), "nobody sleeps");
        a.arm(Some(Nanos(100)));
        b.arm(None);
        attention.deadline(Nanos(200));
        assert_eq!((a.event.take(), b.event.take()), (0, 1));
        attention.deadline(Nanos(50));
        assert_eq!((a.event.take(), b.event.take()), (1, 1));
        b.disarm();
        attention.progress();
        assert_eq!((a.event.take(), b.event.take()), (1, 0));
        drop(a);
        assert_eq!(attention.asleep.load(Ordering::SeqCst), 0);
    }
}
