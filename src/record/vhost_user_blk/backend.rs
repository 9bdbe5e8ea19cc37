//! The device as a front-end commands it: features, memory, rings, configuration.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::engine::{Disk, Engine};
use super::inflight::Inflight;
use super::memory::FrontendMemory;
use super::news::News;
use super::queue::{Broken, Ring};
use super::worker::Worker;
use crate::base::{Result, SECTOR_SIZE};
use crate::image::{self, Image};
use crate::machine::builtin::devices::virtio_blk::bits::feature;
use crate::machine::builtin::devices::virtio_queue::{DeviceQueue, QueueConfig};
use crate::record::recording::Tap;

/// VHOST_USER_F_PROTOCOL_FEATURES: bit 30 of the features.
pub const F_PROTOCOL_FEATURES: u32 = 30;

/// Gives the tap of a queue when it is started for the first time.
pub type NewTap = Box<dyn Fn(u16) -> Tap + Send>;

/// Where the front-end has the parts of a ring, by its own addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptor table.
    pub desc: u64,
    /// Available ring.
    pub avail: u64,
    /// Used ring.
    pub used: u64,
}

/// A queue as it was described, and its thread.
struct Vring {
    size: u16,
    base: u16,
    addresses: RingAddresses,
    worker: Worker,
}

/// The device.
pub struct Backend {
    pub disk: Arc<Disk>,
    pub news: Arc<News>,
    image: Arc<dyn Image>,
    new_tap: NewTap,
    vrings: Vec<Vring>,
    memory: Arc<FrontendMemory>,
    inflight: Option<Inflight>,
    /// Features that the front-end chose.
    pub features: u64,
    /// Protocol features that it chose.
    pub protocol_features: u64,
    /// Where it listens for our requests.
    channel: Option<UnixStream>,
}

impl Backend {
    /// A device with so many queues, and a thread for each.
    ///
    /// # Errors
    /// There are no threads.
    pub fn new(
        disk: Disk,
        image: Arc<dyn Image>,
        queues: u16,
        new_tap: NewTap,
    ) -> io::Result<Self> {
        let news = Arc::new(News::default());
        let vring = |index| {
            let worker = Worker::start(index, Arc::clone(&news))?;
            Ok(Vring { size: 0, base: 0, addresses: RingAddresses::default(), worker })
        };
        let vrings = (0..queues).map(vring).collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            disk: Arc::new(disk),
            news,
            image,
            new_tap,
            vrings,
            memory: Arc::default(),
            inflight: None,
            features: 0,
            protocol_features: 0,
            channel: None,
        })
    }

    /// What is offered.
    pub fn offered(&self) -> u64 {
        let chip = self.disk.chip.read().unwrap_or_else(PoisonError::into_inner);
        chip.features() | feature(VIRTIO_F_VERSION_1) | feature(F_PROTOCOL_FEATURES)
    }

    /// Queues.
    pub fn queues(&self) -> u16 {
        self.vrings.len() as u16
    }

    /// The front-end's choice. One that does not speak of protocol features has all rings enabled.
    ///
    /// # Errors
    /// What is not offered.
    pub fn set_features(&mut self, features: u64) -> io::Result<()> {
        if features & !self.offered() != 0 {
            return Err(invalid("features that are not offered"));
        }
        self.features = features;
        let mut chip = self.disk.chip.write().unwrap_or_else(PoisonError::into_inner);
        chip.set_features(features);
        drop(chip);
        if features & feature(F_PROTOCOL_FEATURES) == 0 {
            self.vrings.iter().for_each(|vring| vring.worker.with(|queue| queue.enabled = true));
        }
        Ok(())
    }

    fn vring(&mut self, index: u32) -> io::Result<(u16, &mut Vring)> {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let vring = self.vrings.get_mut(at).ok_or_else(|| invalid("there is no such queue"))?;
        Ok((at as u16, vring))
    }

    /// Memory is somewhere else now: rings that are started are stopped where they are and go on
    /// in the new place.
    ///
    /// # Errors
    /// A ring is not in the new memory.
    pub fn set_memory(&mut self, memory: FrontendMemory) -> io::Result<()> {
        let running: Vec<bool> =
            self.vrings.iter().map(|vring| vring.worker.with(|q| q.ring.is_some())).collect();
        for vring in &mut self.vrings {
            if let Some(base) = vring.worker.with(|queue| queue.stop()) {
                vring.base = base;
            }
        }
        self.memory = Arc::new(memory);
        let running = running.into_iter().enumerate().filter(|(_, running)| *running);
        running.map(|(index, _)| index as u32).try_for_each(|index| self.start(index))
    }

    /// The memory there is.
    pub fn memory(&self) -> FrontendMemory {
        (*self.memory).clone()
    }

    /// Entries of a ring.
    ///
    /// # Errors
    /// There is no such queue.
    pub fn set_size(&mut self, index: u32, size: u32) -> io::Result<()> {
        let size = u16::try_from(size).ok().filter(|size| size.is_power_of_two());
        let size = size.ok_or_else(|| invalid("a ring's size is a power of two up to 32768"))?;
        self.vring(index)?.1.size = size;
        Ok(())
    }

    /// Where it lies.
    ///
    /// # Errors
    /// There is no such queue.
    pub fn set_addresses(&mut self, index: u32, addresses: RingAddresses) -> io::Result<()> {
        self.vring(index)?.1.addresses = addresses;
        Ok(())
    }

    /// The entry of the available ring to begin with.
    ///
    /// # Errors
    /// There is no such queue, or it has no such entry.
    pub fn set_base(&mut self, index: u32, base: u32) -> io::Result<()> {
        let base = u16::try_from(base).map_err(|_| invalid("an index has 16 bits"))?;
        self.vring(index)?.1.base = base;
        Ok(())
    }

    /// Stops a ring; the entry that would have been taken next.
    ///
    /// # Errors
    /// There is no such queue.
    pub fn stop(&mut self, index: u32) -> io::Result<u16> {
        let (_, vring) = self.vring(index)?;
        vring.worker.set_kick(None)?;
        if let Some(base) = vring.worker.with(|queue| queue.stop()) {
            vring.base = base;
        }
        Ok(vring.base)
    }

    /// Gives a ring its doorbell, which starts it.
    ///
    /// # Errors
    /// The ring is not one, or its doorbell.
    pub fn set_kick(&mut self, index: u32, kick: Option<File>) -> io::Result<()> {
        let kick = kick.ok_or_else(|| invalid("a ring without a doorbell would be polled"))?;
        let kick = eventfd(kick)?;
        self.vring(index)?.1.worker.set_kick(Some(kick))?;
        self.start(index)
    }

    /// Who is told when something was given back; nobody where the driver looks by itself.
    ///
    /// # Errors
    /// There is no such queue, or it is no eventfd.
    pub fn set_call(&mut self, index: u32, call: Option<File>) -> io::Result<()> {
        let call = call.map(eventfd).transpose()?;
        self.vring(index)?.1.worker.with(|queue| queue.call = call);
        Ok(())
    }

    /// Who is told when it breaks.
    ///
    /// # Errors
    /// There is no such queue, or it is no eventfd.
    pub fn set_error(&mut self, index: u32, error: Option<File>) -> io::Result<()> {
        let error = error.map(eventfd).transpose()?;
        self.vring(index)?.1.worker.with(|queue| queue.error = error);
        Ok(())
    }

    /// Whether a ring is served.
    ///
    /// # Errors
    /// There is no such queue.
    pub fn set_enabled(&mut self, index: u32, enabled: bool) -> io::Result<()> {
        self.vring(index)?.1.worker.with(|queue| queue.enabled = enabled);
        Ok(())
    }

    fn start(&mut self, index: u32) -> io::Result<()> {
        let (number, _) = self.vring(index)?;
        let (disk, image) = (Arc::clone(&self.disk), Arc::clone(&self.image));
        if self.vring(index)?.1.worker.with(|queue| queue.engine.is_none()) {
            let engine = Engine::new(disk, image, (self.new_tap)(number))?;
            let worker = &self.vring(index)?.1.worker;
            worker.with(|queue| queue.engine = Some(engine));
            worker.watch_image()?;
        }
        let (memory, features) = (Arc::clone(&self.memory), self.features);
        let inflight = self.inflight.clone();
        let vring = self.vring(index)?.1;
        let ring = ring(vring, number, memory, features, inflight)
            .map_err(|error| io::Error::other(format!("queue {number}: {error}")))?;
        vring.worker.with(|queue| {
            queue.stop();
            queue.ring = Some(ring);
            // What is on it already was rung for at somebody else's door, or nobody's.
            queue.left_over = true;
        });
        Ok(())
    }

    /// Where requests in flight are kept.
    pub fn set_inflight(&mut self, inflight: Inflight) {
        self.inflight = Some(inflight);
    }

    /// Where the front-end listens for our requests.
    pub fn set_channel(&mut self, channel: UnixStream) {
        self.channel = Some(channel);
    }

    /// Device configuration (virtio 1.2 §5.2.4).
    pub fn config(&self, offset: u32, len: u32) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        let chip = self.disk.chip.read().unwrap_or_else(PoisonError::into_inner);
        chip.config_read(offset.into(), &mut bytes);
        bytes
    }

    /// Writes it. What is cached becomes durable when the cache becomes write-through.
    ///
    /// # Errors
    /// The image cannot be flushed.
    pub fn set_config(&mut self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let mut chip = self.disk.chip.write().unwrap_or_else(PoisonError::into_inner);
        let flush = chip.config_write(offset.into(), bytes);
        drop(chip);
        if flush { self.image.flush() } else { Ok(()) }
    }

    /// Opens the image again, whose size is another now: requests in flight are answered, the old
    /// image is let go of, since only one may have it open, and the front-end is told to look at
    /// the configuration.
    ///
    /// # Errors
    /// The image cannot be opened: queues break at their next request.
    pub fn reopen(&mut self, open: &dyn Fn() -> Result<Arc<dyn Image>>) -> Result<()> {
        let mut taps = Vec::with_capacity(self.vrings.len());
        for vring in &self.vrings {
            taps.push(vring.worker.with(|queue| {
                queue.drain();
                queue.paused = true;
                queue.engine.take().map(|engine| engine.tap().clone())
            }));
        }
        self.image = image::null(self.image.size());
        let opened = open();
        if let Ok(image) = &opened {
            self.image = Arc::clone(image);
        }
        for (vring, tap) in self.vrings.iter().zip(taps) {
            let engine = tap
                .filter(|_| opened.is_ok())
                .map(|tap| Engine::new(Arc::clone(&self.disk), Arc::clone(&self.image), tap));
            vring.worker.with(|queue| {
                queue.paused = false;
                match engine {
                    Some(Ok(engine)) => queue.engine = Some(engine),
                    Some(Err(error)) => queue.fail(Broken::Image(error)),
                    None if opened.is_err() => {
                        queue.fail(Broken::Image(io::Error::other("it cannot be opened again")));
                    }
                    None => {}
                }
            });
            // A queue that cannot wait for its image finds out when it is rung.
            let _ = vring.worker.watch_image();
        }
        let image = opened?;
        let mut chip = self.disk.chip.write().unwrap_or_else(PoisonError::into_inner);
        chip.set_capacity(image.size() / SECTOR_SIZE);
        drop(chip);
        self.news.say(format!("the disk has {} bytes now", image.size()));
        self.tell_of_config();
        Ok(())
    }

    /// VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, without a reply asked for.
    fn tell_of_config(&self) {
        const CONFIG_CHANGE: u32 = 2;
        const VERSION_1: u32 = 1;
        let Some(channel) = &self.channel else {
            self.news.say("the front-end has no channel on which it could be told".to_owned());
            return;
        };
        let mut message = [0; 12];
        let words = [CONFIG_CHANGE, VERSION_1, 0];
        for (to, word) in message.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: 12 bytes that are there; the socket is open as long as `channel`.
        let sent = unsafe {
            libc::send(channel.as_raw_fd(), message.as_ptr().cast(), message.len(), flags)
        };
        if sent != message.len() as isize {
            let error = io::Error::last_os_error();
            self.news.say(format!("the front-end cannot be told of the new size: {error}"));
        }
    }

    /// The front-end is gone: requests in flight are answered where it left its rings, and nothing
    /// of it is kept.
    pub fn end_session(&mut self) {
        for vring in &mut self.vrings {
            // An epoll that gives no descriptor back will not tell of it either.
            let _ = vring.worker.set_kick(None);
            vring.worker.with(|queue| {
                queue.stop();
                (queue.enabled, queue.call, queue.error) = (false, None, None);
            });
            (vring.size, vring.base) = (0, 0);
            vring.addresses = RingAddresses::default();
        }
        self.memory = Arc::default();
        self.inflight = None;
        self.channel = None;
        (self.features, self.protocol_features) = (0, 0);
        self.disk.chip.write().unwrap_or_else(PoisonError::into_inner).reset();
    }
}

/// Finds a ring in memory, and takes over what a predecessor left of it.
fn ring(
    vring: &Vring,
    index: u16,
    memory: Arc<FrontendMemory>,
    features: u64,
    inflight: Option<Inflight>,
) -> io::Result<Ring> {
    let RingAddresses { desc, avail, used } = vring.addresses;
    let guest = |user| memory.guest_of(user).ok_or_else(|| invalid("a ring is outside memory"));
    let (desc, avail, used) = (guest(desc)?, guest(avail)?, guest(used)?);
    let config = QueueConfig { size: vring.size, desc, avail, used };
    let queue = DeviceQueue::new(&memory, &config, features, true).map_err(io::Error::other)?;
    let used = queue.used_index();
    let mut inflight = inflight.and_then(|inflight| inflight.queue(index, vring.size));
    let left = inflight.as_mut().and_then(|inflight| inflight.resume(used));
    let (base, again) = match left {
        Some(heads) => (used.wrapping_add(heads.len() as u16), heads),
        None => (vring.base, Vec::new()),
    };
    let again = again.into_iter().rev().collect();
    Ok(Ring { queue: queue.resumed_at(base), memory, inflight, again })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what.to_owned())
}

/// A descriptor to ring or to be rung by: writing to it must not block, and waiting for it must
/// mean something.
fn eventfd(file: File) -> io::Result<File> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let name = std::fs::read_link(link)?;
    if name.as_os_str() != "anon_inode:[eventfd]" {
        return Err(invalid("a doorbell is no eventfd"));
    }
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(file)
}
