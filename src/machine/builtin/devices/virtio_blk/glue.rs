//! The disk as the transport sees it, served in the test thread or in a thread of its own.

use std::os::fd::RawFd;
use std::sync::Arc;

use super::bits::PCI_CLASS_STORAGE_SCSI;
use super::chip::{BlkChip, BlkGeometry};
use super::engine::Engine;
use super::iothread::IoThread;
use super::observer::BlkObserver;
use super::worker::{Fault, Worker};
use crate::base::{Error, Result};
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
    Inline(Box<Worker>),
    Thread(IoThread),
}

/// A virtio block device.
pub struct VirtioBlk {
    owner: Owner,
    interrupts: Arc<VirtioInterrupts>,
    features: u64,
    queues: u16,
    queue_size: u16,
}

impl VirtioBlk {
    /// Builds the device, and its thread if it is to have one.
    ///
    /// # Errors
    /// The image has no queue to give, or the system no thread.
    pub fn new(config: BlkConfig) -> Result<Self> {
        let BlkGeometry { queues, queue_size, .. } = config.geometry;
        let chip = BlkChip::new(config.geometry);
        let features = chip.features();
        let path = config.image.info().path.clone();
        let engine =
            Engine::new(config.image, chip, &config.serial, config.aio_depth, config.observer)
                .map_err(|e| {
                    Error::machine("asynchronous image I/O is unavailable").path(path).source(e)
                })?;
        let interrupts = Arc::clone(&config.interrupts);
        let attention = config.attention.clone();
        let worker = Worker::new(engine, config.ram, queues, config.interrupts, config.attention);
        let owner = match attention {
            None => Owner::Inline(Box::new(worker)),
            Some(attention) => {
                let irqs = Arc::clone(&interrupts);
                Owner::Thread(IoThread::spawn(worker, queues, irqs, attention)?)
            }
        };
        Ok(Self { owner, interrupts, features, queues, queue_size })
    }

    /// Has the worker to itself; nothing happens when the thread that held it died.
    fn with<R>(&mut self, f: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        match &mut self.owner {
            Owner::Inline(worker) => Some(f(worker)),
            Owner::Thread(thread) => thread.with(f),
        }
    }

    /// As `with`, for a call that changes nothing.
    fn peek<R>(&mut self, f: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        match &mut self.owner {
            Owner::Inline(worker) => Some(f(worker)),
            Owner::Thread(thread) => thread.peek(f),
        }
    }
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
        self.peek(read);
    }

    fn config_write(&mut self, offset: u64, bytes: &[u8]) {
        self.with(|worker| {
            if worker.engine.chip.config_write(offset, bytes)
                && let Err(error) = worker.engine.flush_cache()
            {
                // There is no status to answer a register write with.
                worker.fail(Fault::Image(error));
            }
        });
    }

    fn set_features(&mut self, features: u64) {
        self.with(|worker| worker.set_features(features));
    }

    fn start_queue(&mut self, index: u16, config: QueueConfig) {
        self.with(|worker| worker.start_queue(index, config));
    }

    fn stop_queue(&mut self, index: u16) {
        self.with(|worker| worker.stop_queue(index));
    }

    fn reset(&mut self) {
        self.with(Worker::reset);
    }

    #[inline]
    fn kick(&mut self, index: u16) {
        match &mut self.owner {
            Owner::Inline(worker) => worker.run_queue(index),
            Owner::Thread(thread) => thread.kick(index),
        }
    }

    fn poll(&mut self) -> Result<bool> {
        match &mut self.owner {
            Owner::Inline(worker) => Ok(worker.poll()),
            Owner::Thread(thread) => thread.check().map(|()| false),
        }
    }

    fn wait_fds(&mut self, fds: &mut Vec<RawFd>) {
        if let Owner::Inline(worker) = &self.owner {
            fds.extend(worker.engine.event_fd());
        }
    }

    fn is_idle(&mut self) -> bool {
        match &self.owner {
            Owner::Inline(worker) => worker.is_idle(),
            Owner::Thread(thread) => thread.is_idle(),
        }
    }

    fn fault(&mut self) -> Option<String> {
        if !self.interrupts.needs_reset() {
            return None;
        }
        self.peek(|worker| worker.fault().map(ToString::to_string)).flatten()
    }
}
