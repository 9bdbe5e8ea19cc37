//! The device at work: takes chains off the queues, has the engine answer them, gives them back.
//!
//! Bounded: one run of a queue takes at most as many chains as the queue has entries. What is left
//! (a driver in another thread that keeps adding, or a ring that the device's own data overwrote)
//! is taken up by the next `poll`.

use std::io;
use std::sync::Arc;

use super::engine::{Engine, Outcome};
use crate::machine::GuestRam;
use crate::machine::builtin::attention::Attention;
use crate::machine::builtin::devices::virtio_pci::VirtioInterrupts;
use crate::machine::builtin::devices::virtio_queue::{Chain, DeviceQueue, QueueConfig, RingError};

/// Why the device stopped until it is reset.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("queue {0}: {1}")]
    Ring(u16, RingError),
    #[error("queue {0}: a request has no writable byte for its status")]
    NoStatus(u16),
    #[error("the image's queue failed: {0}")]
    Image(#[from] io::Error),
}

struct Queue {
    ring: Option<DeviceQueue>,
    /// Chains may be waiting that no doorbell announces.
    left_over: bool,
}

/// Queues, engine and interrupts of one disk.
pub(super) struct Worker {
    pub engine: Engine,
    ram: Arc<GuestRam>,
    queues: Vec<Queue>,
    chain: Chain,
    interrupts: Arc<VirtioInterrupts>,
    /// Told of every batch when the worker runs in its own thread.
    attention: Option<Arc<Attention>>,
    concurrent: bool,
    features: u64,
    fault: Option<Fault>,
}

/// What a worker works for.
pub(super) struct WorkerConfig {
    pub ram: Arc<GuestRam>,
    pub queues: u16,
    pub interrupts: Arc<VirtioInterrupts>,
    /// Set when the worker runs in its own thread: whom to tell.
    pub attention: Option<Arc<Attention>>,
    /// The driver may touch a ring while the worker does.
    pub concurrent: bool,
}

impl Worker {
    pub fn new(engine: Engine, config: WorkerConfig) -> Self {
        let WorkerConfig { ram, queues, interrupts, attention, concurrent } = config;
        let queue = || Queue { ring: None, left_over: false };
        Self {
            engine,
            ram,
            queues: std::iter::repeat_with(queue).take(queues.into()).collect(),
            chain: Chain::default(),
            interrupts,
            attention,
            concurrent,
            features: 0,
            fault: None,
        }
    }

    pub fn set_features(&mut self, features: u64) {
        self.features = features;
        self.engine.chip.set_features(features);
    }

    pub fn start_queue(&mut self, index: u16, config: QueueConfig) {
        let ring = DeviceQueue::new(&self.ram, &config, self.features, self.concurrent);
        let Some(queue) = self.queues.get_mut(usize::from(index)) else { return };
        match ring {
            Ok(ring) => *queue = Queue { ring: Some(ring), left_over: false },
            Err(error) => self.fail(Fault::Ring(index, error)),
        }
    }

    /// Requests of all queues in flight are waited for: they share the image's queue. Those of the
    /// others are answered; the stopped ring is not touched.
    pub fn stop_queue(&mut self, index: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(index)) {
            *queue = Queue { ring: None, left_over: false };
        }
        self.drain();
    }

    pub fn reset(&mut self) {
        self.queues.iter_mut().for_each(|q| *q = Queue { ring: None, left_over: false });
        self.drain();
        self.features = 0;
        self.engine.chip.reset();
        self.fault = None;
    }

    fn drain(&mut self) {
        let queues = &mut self.queues;
        self.engine.drain(|f| give_back(queues, f.queue, f.head, f.written));
        self.publish_all();
    }

    /// Why the device needs a reset, when it does.
    pub fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    pub fn fail(&mut self, fault: Fault) {
        tracing::warn!(%fault, "virtio-blk needs a reset");
        self.fault.get_or_insert(fault);
        self.interrupts.set_needs_reset();
        if let Some(attention) = &self.attention {
            attention.progress();
        }
    }

    /// Takes what is available on a queue.
    pub fn run_queue(&mut self, index: u16) {
        // The fault may be that of another queue's worker.
        if self.fault.is_some() || self.concurrent && self.interrupts.needs_reset() {
            return;
        }
        let Some(queue) = self.queues.get_mut(usize::from(index)) else { return };
        let Some(ring) = &mut queue.ring else { return };
        queue.left_over = false;
        let result = take(ring, index, &mut self.engine, &mut self.chain);
        queue.left_over = matches!(result, Ok(true));
        let kicked = self.engine.kick();
        self.publish(index);
        if let Err(fault) = result {
            self.fail(fault);
        }
        if let Err(error) = kicked {
            self.fail(Fault::Image(error));
        }
    }

    #[inline]
    fn publish(&mut self, index: u16) {
        let queue = self.queues.get_mut(usize::from(index));
        let Some(ring) = queue.and_then(|q| q.ring.as_mut()) else { return };
        if !ring.publish() {
            return;
        }
        if ring.wants_interrupt() {
            self.interrupts.queue(index);
        }
        if let Some(attention) = &self.attention {
            attention.progress();
        }
    }

    fn publish_all(&mut self) {
        for index in 0..self.queues.len() as u16 {
            self.publish(index);
        }
    }

    /// Answers what the image finished and takes up what was left over; whether there was any.
    pub fn poll(&mut self) -> bool {
        let mut progress = false;
        if self.engine.in_flight() > 0 {
            let queues = &mut self.queues;
            let reaped = self.engine.reap(|f| {
                progress = true;
                give_back(queues, f.queue, f.head, f.written);
            });
            if progress {
                self.publish_all();
            }
            if let Err(error) = reaped {
                self.fail(Fault::Image(error));
            }
        }
        for index in 0..self.queues.len() {
            let left_over = self.queues.get(index).is_some_and(|q| q.left_over);
            if left_over && self.engine.has_room() && self.fault.is_none() {
                self.run_queue(index as u16);
                progress = true;
            }
        }
        progress
    }

    /// Whether `poll` would find work now without anything finishing first.
    pub fn has_work(&self) -> bool {
        self.fault.is_none()
            && self.engine.has_room()
            && self.queues.iter().any(|queue| queue.left_over)
    }

    /// Whether nothing is in flight and nothing was left over.
    pub fn is_idle(&self) -> bool {
        self.engine.in_flight() == 0 && !self.has_work()
    }
}

/// Takes at most one ring's worth of chains; whether some may be left.
#[inline]
fn take(
    ring: &mut DeviceQueue,
    index: u16,
    engine: &mut Engine,
    chain: &mut Chain,
) -> Result<bool, Fault> {
    let broken = |error| Fault::Ring(index, error);
    let mut budget = ring.size();
    ring.refresh().map_err(broken)?;
    loop {
        ring.suppress_notifications();
        while budget > 0 && engine.has_room() && ring.pop(chain).map_err(broken)? {
            budget -= 1;
            match engine.execute(index, chain) {
                Outcome::Done(written) => ring.push_used(chain.head(), written),
                Outcome::Pending => {}
                Outcome::Unanswerable => return Err(Fault::NoStatus(index)),
            }
        }
        if !ring.enable_notifications().map_err(broken)? {
            return Ok(false);
        }
        if budget == 0 || !engine.has_room() {
            return Ok(true);
        }
    }
}

/// Puts an answered request on its used ring; one whose queue was stopped is forgotten.
fn give_back(queues: &mut [Queue], queue: u16, head: u16, written: u32) {
    let queue = queues.get_mut(usize::from(queue));
    if let Some(ring) = queue.and_then(|q| q.ring.as_mut()) {
        ring.push_used(head, written);
    }
}
