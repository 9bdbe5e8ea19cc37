//! The disk as the transport sees it, served in the test thread or in a thread of its own.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use super::bits::PCI_CLASS_STORAGE_SCSI;
use super::chip::{BlkChip, BlkGeometry};
use super::engine::Engine;
use super::iothread::IoThread;
use super::observer::{BlkObserver, SharedObserver};
use super::worker::{Fault, Worker, WorkerConfig};
use crate::base::{Error, Result, SECTOR_SIZE};
use crate::image::Image;
use crate::machine::GuestRam;
use crate::machine::builtin::attention::Attention;
use crate::machine::builtin::devices::virtio_pci::{VirtioDevice, VirtioInterrupts};
use crate::machine::builtin::devices::virtio_queue::QueueConfig;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

/// What a disk is made of.
pub struct BlkConfig {
    /// Its bytes.
    pub image: Arc<dyn Image>,
    /// Its shape.
    pub geometry: BlkGeometry,
    /// Its identifier; 20 bytes of it count.
    pub serial: String,
    /// Requests on the image at once; 0 calls it synchronously.
    pub aio_depth: usize,
    /// A worker for each queue, so that threads that ring for different queues do not wait for each
    /// other.
    pub concurrent_queues: bool,
    /// Sees its requests.
    pub observer: Option<Box<dyn BlkObserver>>,
    /// Guest RAM.
    pub ram: Arc<GuestRam>,
    /// Its interrupts.
    pub interrupts: Arc<VirtioInterrupts>,
    /// Set for a thread of its own: whom that thread wakes.
    pub attention: Option<Arc<Attention>>,
}

enum Owner {
    /// In the thread that rings, a worker for every so many queues.
    Inline(Vec<Mutex<Worker>>),
    Thread(IoThread),
}

/// A virtio block device.
pub struct VirtioBlk {
    owner: Owner,
    interrupts: Arc<VirtioInterrupts>,
    features: u64,
    queues: u16,
    queue_size: u16,
    /// What its image holds.
    bytes_max: u64,
    block_bytes: u32,
}

impl VirtioBlk {
    /// Builds the device, and its thread if it is to have one.
    ///
    /// # Errors
    /// The image has no queue to give, or the system no thread.
    pub fn new(mut config: BlkConfig) -> Result<Self> {
        let (queues, queue_size) = (config.geometry.queues, config.geometry.queue_size);
        let (bytes_max, block_bytes) = (config.image.size(), config.geometry.block_bytes);
        let features = BlkChip::new(config.geometry.clone()).features();
        let interrupts = Arc::clone(&config.interrupts);
        let owner = match config.attention.clone() {
            None => Owner::Inline(workers(&mut config)?),
            Some(attention) => {
                let observer = config.observer.take();
                let worker = config.worker(observer, 0)?;
                let irqs = Arc::clone(&interrupts);
                Owner::Thread(IoThread::spawn(worker, queues, irqs, attention)?)
            }
        };
        Ok(Self { owner, interrupts, features, queues, queue_size, bytes_max, block_bytes })
    }

    /// Has every worker to itself, one after the other; nothing happens when the thread that held
    /// one died.
    fn each(&mut self, mut f: impl FnMut(&mut Worker)) {
        match &mut self.owner {
            Owner::Inline(workers) => workers.iter_mut().map(exclusive).for_each(f),
            Owner::Thread(thread) => {
                thread.with(|worker| f(worker));
            }
        }
    }

    /// Has the worker of a queue to itself.
    fn with<R>(&mut self, queue: u16, f: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        match &mut self.owner {
            Owner::Inline(workers) => lane(workers, queue).map(f),
            Owner::Thread(thread) => thread.with(f),
        }
    }
}

impl BlkConfig {
    fn worker(&self, observer: Option<Box<dyn BlkObserver>>, lane: u16) -> Result<Worker> {
        let chip = BlkChip::new(self.geometry.clone());
        let image = Arc::clone(&self.image);
        // Tokens of all workers are different.
        let first_token = u64::from(lane) << 48;
        let engine = Engine::new(image, chip, &self.serial, self.aio_depth, observer, first_token)
            .map_err(|e| {
                Error::machine("asynchronous image I/O is unavailable")
                    .path(&self.image.info().path)
                    .source(e)
            })?;
        let concurrent = self.concurrent_queues || self.attention.is_some();
        let queues = self.geometry.queues;
        let (ram, interrupts) = (Arc::clone(&self.ram), Arc::clone(&self.interrupts));
        let attention = self.attention.clone();
        Ok(Worker::new(engine, WorkerConfig { ram, queues, interrupts, attention, concurrent }))
    }
}

/// One worker, or one for each queue.
fn workers(config: &mut BlkConfig) -> Result<Vec<Mutex<Worker>>> {
    let observer = config.observer.take();
    if !config.concurrent_queues {
        return Ok(vec![Mutex::new(config.worker(observer, 0)?)]);
    }
    let shared = observer.map(|observer| Arc::new(Mutex::new(observer)));
    let worker = |lane| {
        let observer = shared.clone().map(|o| Box::new(SharedObserver(o)) as Box<dyn BlkObserver>);
        config.worker(observer, lane).map(Mutex::new)
    };
    (0..config.geometry.queues).map(worker).collect()
}

/// The worker of a lock that nobody else can hold.
#[inline]
fn exclusive(worker: &mut Mutex<Worker>) -> &mut Worker {
    // A thread that panicked left a worker whose every field is whole.
    worker.get_mut().unwrap_or_else(PoisonError::into_inner)
}

#[inline]
fn lane(workers: &mut [Mutex<Worker>], queue: u16) -> Option<&mut Worker> {
    let index = if workers.len() == 1 { 0 } else { usize::from(queue) };
    workers.get_mut(index).map(exclusive)
}

impl VirtioDevice for VirtioBlk {
    fn device_id(&self) -> u16 {
        VIRTIO_ID_BLOCK as u16
    }

    fn pci_class(&self) -> u32 {
        PCI_CLASS_STORAGE_SCSI
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queues(&self) -> u16 {
        self.queues
    }

    fn queue_size_max(&self) -> u16 {
        self.queue_size
    }

    fn config_read(&mut self, offset: u64, buf: &mut [u8]) {
        let read = |worker: &mut Worker| worker.engine.chip.config_read(offset, buf);
        match &mut self.owner {
            Owner::Inline(workers) => lane(workers, 0).map(read),
            Owner::Thread(thread) => thread.peek(read),
        };
    }

    fn config_write(&mut self, offset: u64, bytes: &[u8]) {
        self.each(|worker| {
            if worker.engine.chip.config_write(offset, bytes)
                && let Err(error) = worker.engine.flush_cache()
            {
                // There is no status to answer a register write with.
                worker.fail(Fault::Image(error));
            }
        });
    }

    fn set_features(&mut self, features: u64) {
        self.each(|worker| worker.set_features(features));
    }

    fn start_queue(&mut self, index: u16, config: QueueConfig) {
        self.with(index, |worker| worker.start_queue(index, config));
    }

    fn stop_queue(&mut self, index: u16) {
        self.with(index, |worker| worker.stop_queue(index));
    }

    fn reset(&mut self) {
        self.each(Worker::reset);
    }

    #[inline]
    fn kick(&mut self, index: u16) {
        match &mut self.owner {
            Owner::Inline(workers) => {
                if let Some(worker) = lane(workers, index) {
                    worker.run_queue(index);
                }
            }
            Owner::Thread(thread) => thread.kick(index),
        }
    }

    fn kick_shared(&self, index: u16) {
        match &self.owner {
            Owner::Inline(workers) => {
                let lane = if workers.len() == 1 { 0 } else { usize::from(index) };
                if let Some(worker) = workers.get(lane) {
                    let mut worker = worker.lock().unwrap_or_else(PoisonError::into_inner);
                    worker.run_queue(index);
                }
            }
            Owner::Thread(thread) => thread.kick(index),
        }
    }

    fn has_work(&self) -> bool {
        match &self.owner {
            // Whoever holds a worker's lock is at work on it.
            Owner::Inline(workers) => {
                workers.iter().any(|worker| worker.try_lock().is_ok_and(|worker| !worker.is_idle()))
            }
            Owner::Thread(thread) => thread.check().is_err(),
        }
    }

    fn poll(&mut self) -> Result<bool> {
        match &mut self.owner {
            Owner::Inline(workers) => {
                Ok(workers.iter_mut().fold(false, |any, worker| exclusive(worker).poll() | any))
            }
            Owner::Thread(thread) => thread.check().map(|()| false),
        }
    }

    fn wait_fds(&mut self, fds: &mut Vec<RawFd>) {
        if let Owner::Inline(workers) = &mut self.owner {
            fds.extend(workers.iter_mut().filter_map(|worker| exclusive(worker).engine.event_fd()));
        }
    }

    fn is_idle(&mut self) -> bool {
        match &mut self.owner {
            Owner::Inline(workers) => workers.iter_mut().all(|worker| exclusive(worker).is_idle()),
            Owner::Thread(thread) => thread.is_idle(),
        }
    }

    fn resize(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.bytes_max || !bytes.is_multiple_of(self.block_bytes.into()) {
            return Err(Error::usage(format!(
                "a disk of {bytes} bytes: its image holds {} in blocks of {}",
                self.bytes_max, self.block_bytes
            )));
        }
        self.each(|worker| worker.engine.chip.set_capacity(bytes / SECTOR_SIZE));
        Ok(())
    }

    fn fault(&mut self) -> Option<String> {
        if !self.interrupts.needs_reset() {
            return None;
        }
        let fault = |worker: &mut Worker| worker.fault().map(ToString::to_string);
        match &mut self.owner {
            Owner::Inline(workers) => workers.iter_mut().find_map(|w| fault(exclusive(w))),
            Owner::Thread(thread) => thread.peek(fault).flatten(),
        }
    }
}
