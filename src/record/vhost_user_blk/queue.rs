//! One queue at work: takes chains off its ring, has the engine answer them, gives them back.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::engine::{Engine, Outcome};
use super::inflight::InflightQueue;
use super::memory::FrontendMemory;
use super::news::News;
use crate::machine::builtin::devices::virtio_queue::{Chain, DeviceQueue, RingError};

/// Why a queue takes nothing any more until it is started again.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The driver broke a rule of the ring.
    #[error("{0}")]
    Ring(#[from] RingError),
    /// There is nowhere to put an answer.
    #[error("a request has no writable byte for its status")]
    NoStatus,
    /// The front-end cut its file short.
    #[error("the front-end took away memory that it shares")]
    Memory,
    /// Not the front-end's fault.
    #[error("the image's queue failed: {0}")]
    Image(io::Error),
}

/// A ring that is started.
pub struct Ring {
    pub queue: DeviceQueue<FrontendMemory>,
    pub memory: Arc<FrontendMemory>,
    pub inflight: Option<InflightQueue>,
    /// Heads that a predecessor took and did not give back, oldest last.
    pub again: Vec<u16>,
}

impl Ring {
    fn give_back(&mut self, head: u16, written: u32) {
        self.queue.push_used(head, written);
        if let Some(inflight) = &mut self.inflight {
            inflight.given_back(head);
        }
    }

    fn is_lost(&self) -> bool {
        self.memory.is_lost() || self.inflight.as_ref().is_some_and(InflightQueue::is_lost)
    }
}

/// A queue, started or not.
pub struct Queue {
    pub ring: Option<Ring>,
    pub engine: Option<Engine>,
    /// The ring is to be served.
    pub enabled: bool,
    /// It is not served for a moment all the same.
    pub paused: bool,
    /// Told when something was given back.
    pub call: Option<File>,
    /// Told when the queue breaks.
    pub error: Option<File>,
    /// Chains may be waiting that nobody rings for.
    pub left_over: bool,
    pub broken: Option<Broken>,
    chain: Chain,
    index: u16,
    news: Arc<News>,
}

impl Queue {
    /// Queue `index`, not started.
    pub fn new(index: u16, news: Arc<News>) -> Self {
        Self {
            ring: None,
            engine: None,
            enabled: false,
            paused: false,
            call: None,
            error: None,
            left_over: false,
            broken: None,
            chain: Chain::default(),
            index,
            news,
        }
    }

    /// Answers what the image finished and takes what is on the ring, at most as many chains as it
    /// has entries. Whether there is more to do at once.
    pub fn run(&mut self, rung: bool) -> bool {
        if self.broken.is_some() {
            return false;
        }
        self.left_over |= rung;
        let serves = self.enabled && !self.paused && self.ring.is_some();
        let worked = self.reap().and_then(|()| match serves && self.left_over {
            true => self.take(),
            false => Ok(()),
        });
        self.publish();
        if let Err(broken) = worked {
            self.fail(broken);
        }
        let has_room = self.engine.as_ref().is_some_and(Engine::has_room);
        self.left_over && serves && self.broken.is_none() && has_room
    }

    fn reap(&mut self) -> Result<(), Broken> {
        let (Some(engine), Some(ring)) = (&mut self.engine, &mut self.ring) else { return Ok(()) };
        engine.reap(|head, written| ring.give_back(head, written)).map_err(Broken::Image)
    }

    fn take(&mut self) -> Result<(), Broken> {
        let (Some(engine), Some(ring)) = (&mut self.engine, &mut self.ring) else { return Ok(()) };
        self.left_over = false;
        let taken = take(ring, engine, &mut self.chain);
        self.left_over = matches!(taken, Ok(true));
        engine.kick().map_err(Broken::Image)?;
        taken.map(drop)
    }

    /// Makes what was given back seen, and rings if the driver wants that.
    fn publish(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        if ring.is_lost() {
            // What it holds now is not the guest's.
            return self.fail(Broken::Memory);
        }
        if !ring.queue.publish() {
            return;
        }
        if let Some(inflight) = &mut ring.inflight {
            inflight.published(ring.queue.next_used());
        }
        if ring.queue.wants_interrupt()
            && let Some(call) = &self.call
        {
            signal(call);
        }
    }

    /// Takes nothing more, and tells the front-end.
    pub fn fail(&mut self, broken: Broken) {
        self.news.say(format!("queue {}: {broken}", self.index));
        if let Some(error) = &self.error {
            signal(error);
        }
        if matches!(broken, Broken::Memory) {
            self.news.hang_up();
        }
        self.broken.get_or_insert(broken);
    }

    /// Waits for what is in flight and answers it.
    pub fn drain(&mut self) {
        let (Some(engine), Some(ring)) = (&mut self.engine, &mut self.ring) else { return };
        let drained = engine.drain(|head, written| ring.give_back(head, written));
        self.publish();
        if let Err(error) = drained {
            self.fail(Broken::Image(error));
        }
    }

    /// Drains it and takes its ring away; the entry that would have been taken next.
    pub fn stop(&mut self) -> Option<u16> {
        self.drain();
        self.left_over = false;
        self.broken = None;
        self.ring.take().map(|ring| ring.queue.next_avail())
    }

    /// Readable when the image has finished something.
    pub fn event_fd(&self) -> Option<RawFd> {
        self.engine.as_ref().and_then(Engine::event_fd)
    }
}

/// Takes at most one ring's worth of chains; whether some may be left.
fn take(ring: &mut Ring, engine: &mut Engine, chain: &mut Chain) -> Result<bool, Broken> {
    while engine.has_room()
        && let Some(head) = ring.again.pop()
    {
        ring.queue.take_again(head, chain)?;
        execute(ring, engine, chain)?;
    }
    let mut budget = ring.queue.size();
    ring.queue.refresh()?;
    loop {
        ring.queue.suppress_notifications();
        while budget > 0 && engine.has_room() && ring.queue.pop(chain)? {
            budget -= 1;
            if let Some(inflight) = &mut ring.inflight {
                inflight.taken(chain.head());
            }
            execute(ring, engine, chain)?;
        }
        if !ring.queue.enable_notifications()? {
            return Ok(!ring.again.is_empty());
        }
        if budget == 0 || !engine.has_room() || ring.is_lost() {
            return Ok(true);
        }
    }
}

fn execute(ring: &mut Ring, engine: &mut Engine, chain: &mut Chain) -> Result<(), Broken> {
    match engine.execute(chain) {
        Outcome::Done(written) => ring.give_back(chain.head(), written),
        Outcome::Pending => {}
        Outcome::Unanswerable => return Err(Broken::NoStatus),
    }
    Ok(())
}

/// Adds 1 to an eventfd. At the counter's end the wake-up is already pending, and a write would wait
/// for a reader for ever: whether it may is the front-end's to change, and so is not relied on.
fn signal(event: &File) {
    let mut room = [PollFd::new(event.as_fd(), PollFlags::POLLOUT)];
    if !matches!(poll(&mut room, PollTimeout::ZERO), Ok(1)) {
        return;
    }
    let one = 1u64.to_ne_bytes();
    // SAFETY: 8 bytes that are there; the descriptor is open as long as `event`.
    unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use nix::sys::eventfd::{EfdFlags, EventFd};

    use super::*;

    #[test]
    fn an_eventfd_at_its_end_is_not_waited_for() {
        // It blocks, as one does whose flags were changed after it was handed over.
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).unwrap();
        let file = File::from(event.as_fd().try_clone_to_owned().unwrap());
        signal(&file);
        assert_eq!(event.read().unwrap(), 1);
        event.write(u64::MAX - 1).unwrap();
        let (done, is_done) = mpsc::channel();
        let writer = std::thread::spawn(move || {
            signal(&file);
            done.send(()).unwrap();
        });
        let got = is_done.recv_timeout(Duration::from_secs(60));
        // Whoever still waits can go on.
        assert_eq!(event.read().unwrap(), u64::MAX - 1);
        writer.join().unwrap();
        assert_eq!(got, Ok(()), "it waited for somebody to read");
    }
}
