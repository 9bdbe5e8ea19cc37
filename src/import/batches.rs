//! Batches that a thread of its own fills, ahead of whoever takes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::{Error, Result};

/// Batches that may wait.
const WAITING_BATCHES: usize = 4;

/// How long to wait for a batch between two looks at what else there is.
const WAIT: Duration = Duration::from_millis(1);

/// Says to the thread that nobody wants more.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The thread and its batches. Dropped, it is left to end by itself: it may wait for a pipe.
pub(super) struct Batches<B, S> {
    full: Receiver<B>,
    /// Batches for use again.
    empty: Sender<B>,
    thread: JoinHandle<S>,
    stop: Stop,
}

impl<B: Default + Send + 'static, S: Send + 'static> Batches<B, S> {
    /// Starts a thread that does `fill` with `state` and one batch after the other, fresh or used,
    /// until it says that there is no more. The flag becomes true when nobody wants any.
    ///
    /// # Errors
    /// Incomplete: the system has no thread to give.
    pub(super) fn start(
        mut state: S,
        mut fill: impl FnMut(&mut S, &mut B, &AtomicBool) -> bool + Send + 'static,
    ) -> Result<Self> {
        let (sender, full) = mpsc::sync_channel(WAITING_BATCHES);
        let (empty, again) = mpsc::channel::<B>();
        let stop = Stop(Arc::default());
        let stopped = Arc::clone(&stop.0);
        let work = move || loop {
            let mut batch = again.try_recv().unwrap_or_default();
            let more = fill(&mut state, &mut batch, &stopped);
            if sender.send(batch).is_err() || !more {
                return state;
            }
        };
        let thread = std::thread::Builder::new().name("import-reader".to_owned()).spawn(work);
        let thread = thread
            .map_err(|e| Error::incomplete("cannot start a thread to read the input").source(e))?;
        Ok(Self { full, empty, thread, stop })
    }

    /// The next batch, instead of one that is `used`; `waiting` is called while there is none.
    ///
    /// # Errors
    /// Those of `waiting`; Incomplete when the thread is lost.
    pub(super) fn next(&mut self, used: B, mut waiting: impl FnMut() -> Result<()>) -> Result<B> {
        // At the end nobody wants it.
        drop(self.empty.send(used));
        loop {
            match self.full.recv_timeout(WAIT) {
                Ok(batch) => return Ok(batch),
                Err(RecvTimeoutError::Timeout) => waiting()?,
                Err(RecvTimeoutError::Disconnected) => return Err(lost()),
            }
        }
    }

    /// What the thread has worked with, once the last batch is here.
    ///
    /// # Errors
    /// Incomplete: the thread is lost.
    pub(super) fn finish(self) -> Result<S> {
        let Self { full, empty, thread, stop } = self;
        drop((full, empty));
        let state = thread.join().map_err(|_| lost());
        drop(stop);
        state
    }
}

fn lost() -> Error {
    Error::incomplete("the thread that reads the input is gone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;

    fn count(to: u64) -> Batches<Vec<u64>, u64> {
        Batches::start(0, move |next: &mut u64, batch: &mut Vec<u64>, _| {
            batch.clear();
            batch.extend(*next..*next + 3);
            *next += 3;
            *next < to
        })
        .unwrap()
    }

    #[test]
    fn batches_come_in_their_order_and_the_state_comes_back() {
        let mut batches = count(3000);
        let (mut batch, mut all) = (Vec::new(), Vec::new());
        while all.len() < 3000 {
            batch = batches.next(batch, || Ok(())).unwrap();
            all.extend_from_slice(&batch);
        }
        assert!(all.into_iter().eq(0..3000));
        let error = batches.next(batch, || Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incomplete);
        assert_eq!(batches.finish().unwrap(), 3000);
    }

    #[test]
    fn a_thread_that_nobody_takes_from_ends() {
        drop(count(u64::MAX));
        let (told, heard) = mpsc::channel();
        let batches = Batches::start((), move |(): &mut (), _: &mut (), stop: &AtomicBool| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            told.send(()).ok();
            true
        });
        let mut batches = batches.unwrap();
        // Whoever waits can do something else meanwhile, and leave.
        let error = batches.next((), || Err(Error::usage("enough"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        drop(batches);
        heard.recv_timeout(Duration::from_secs(10)).unwrap();
    }
}
