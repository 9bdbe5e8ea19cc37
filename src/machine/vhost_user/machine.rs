//! Vhost-user devices as a [`Machine`].

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::device::Device;
use super::link::{self, Failure};
use super::server::{PROGRAM, ServedDisk, StorageDaemon};
use crate::base::{Clock, Error, HostClock, Nanos, Result, shell};
use crate::machine::child::Lost;
use crate::machine::obituary::End;
use crate::machine::{
    Bus, Capabilities, GuestRam, Interrupts, IrqEvent, Machine, Obituary, Vring, Vrings,
};

/// How long a server may take to write its images out when asked to quit.
const QUIT_PATIENCE: Duration = Duration::from_secs(600);
/// Without anything that could end it, a wait is this long: whoever waits looks again.
const IDLE_NS: u64 = 1_000_000;
/// Of the looks at its back-end that a spinning driver asks for, one in so many is made: each is a
/// system call.
const LOOKS: u32 = 64;
/// Largest ring of a storage daemon (`VIRTQUEUE_MAX_SIZE` of QEMU's libvhost-user), which does not
/// check it.
const STORAGE_DAEMON_RING_MAX: u16 = 1024;

/// Largest split virtqueue (virtio 1.2 §2.7): the protocol has no message that tells less.
const RING_MAX: u16 = 32768;

/// The front-end's side of a machine.
#[derive(Debug)]
pub struct VhostUserConfig {
    /// Bytes of guest RAM.
    pub ram_bytes: u64,
    /// How long a server may take to start.
    pub start_patience: Duration,
    /// How long a back-end may take to answer a message before it counts as hung.
    pub patience: Duration,
}

impl Default for VhostUserConfig {
    fn default() -> Self {
        Self {
            ram_bytes: 128 << 20,
            start_patience: Duration::from_secs(30),
            patience: Duration::from_secs(30),
        }
    }
}

/// A handle of the devices; several test threads may drive them, each through its own clone.
#[derive(Clone)]
pub struct VhostUserMachine {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    clock: Arc<dyn Clock>,
    ram: Arc<GuestRam>,
    description: String,
    capabilities: Capabilities,
    ring_max: u16,
    /// The connections, for waiting without the lock.
    fds: Vec<i32>,
    polls: AtomicU32,
}

struct Inner {
    devices: Vec<Device>,
    names: Vec<String>,
    server: Option<StorageDaemon>,
    /// What people call the other end, and how it was started or reached.
    program: String,
    command: String,
    end: Option<Obituary>,
    ended: bool,
}

impl VhostUserMachine {
    /// Connects to the back-end that listens on the Unix socket `path`.
    ///
    /// # Errors
    /// A machine error: nobody listens there, or who does is no back-end.
    pub fn connect(path: &Path, config: &VhostUserConfig) -> Result<Self> {
        let stream = UnixStream::connect(path).map_err(|e| {
            Error::machine("no vhost-user server can be reached by this socket").path(path).source(e).hint(
                "start the server first; server=qemu-storage-daemon starts one on the target image",
            )
        })?;
        Self::over(stream, &path.display().to_string(), config)
    }

    /// Over a socket that is connected to a back-end, which people call `name`.
    ///
    /// # Errors
    /// A machine error: the other end is no back-end.
    pub fn over(stream: UnixStream, name: &str, config: &VhostUserConfig) -> Result<Self> {
        let name = name.to_owned();
        let program = format!("the vhost-user server at {name}");
        let command = format!("--machine {}", shell::join([format!("vhost-user:{name}").as_str()]));
        let about = About { description: format!("vhost-user:{name}"), program, command };
        Self::new(config, vec![(name, stream)], None, about)
    }

    /// Starts a storage daemon, `binary`, that serves `disks`; `more`: further arguments.
    ///
    /// # Errors
    /// A machine error: it does not start so, in its own words.
    pub fn serve(
        binary: &Path,
        disks: Vec<ServedDisk>,
        more: &[String],
        config: &VhostUserConfig,
    ) -> Result<Self> {
        let (server, streams) = StorageDaemon::start(binary, disks, more, config.start_patience)?;
        let named = streams.into_iter().enumerate();
        let links = named.map(|(index, stream)| (format!("{PROGRAM} disk{index}"), stream));
        let links = links.collect();
        let about = About {
            description: format!("{PROGRAM} {}", server.version()),
            program: PROGRAM.to_owned(),
            command: server.command().to_owned(),
        };
        Self::new(config, links, Some(server), about)
    }

    fn new(
        config: &VhostUserConfig,
        links: Vec<(String, UnixStream)>,
        server: Option<StorageDaemon>,
        about: About,
    ) -> Result<Self> {
        let ram = Arc::new(GuestRam::new(config.ram_bytes)?);
        let About { description, program, command } = about;
        let mut capabilities = Capabilities::MEMORY
            | Capabilities::VRINGS
            | Capabilities::VIRTIO
            | Capabilities::QUEUE_EVENTS
            | Capabilities::THREADS;
        capabilities.set(Capabilities::RESIZE, server.is_some());
        let ring_max = if server.is_some() { STORAGE_DAEMON_RING_MAX } else { RING_MAX };
        let (names, streams): (Vec<String>, Vec<UnixStream>) = links.into_iter().unzip();
        let mut inner =
            Inner { devices: Vec::new(), names, server, program, command, end: None, ended: false };
        for stream in streams {
            let device = Device::new(stream, config.patience);
            let device = device.map_err(|failure| inner.failed(failure, &[]))?;
            inner.devices.push(device);
        }
        let fds = inner.devices.iter().map(|device| device.link().as_raw_fd()).collect();
        let shared = Shared {
            inner: Mutex::new(inner),
            clock: Arc::new(HostClock::new()),
            ram,
            description,
            capabilities,
            ring_max,
            fds,
            polls: AtomicU32::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.shared.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the server's process, where it is ours.
    pub fn process_id(&self) -> Option<u32> {
        self.lock().server.as_ref().map(StorageDaemon::id)
    }

    /// Sleeps until one of `fds` is ready, a back-end says something, or `ns` have passed.
    fn sleep(&self, fds: &[BorrowedFd<'_>], ns: u64) -> Result<()> {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let links = self.shared.fds.iter().copied();
        let mut list: Vec<libc::pollfd> =
            links.chain(fds.iter().map(AsRawFd::as_raw_fd)).map(entry).collect();
        let time = libc::timespec {
            tv_sec: (ns / 1_000_000_000).min(1 << 30) as libc::time_t,
            tv_nsec: (ns % 1_000_000_000) as _,
        };
        let len = list.len() as libc::nfds_t;
        // SAFETY: the list and the time are valid for the call.
        let ready = unsafe { libc::ppoll(list.as_mut_ptr(), len, &time, std::ptr::null()) };
        match std::io::Error::last_os_error() {
            error if ready < 0 && error.kind() != std::io::ErrorKind::Interrupted => {
                Err(Error::machine("waiting for the vhost-user server failed").source(error))
            }
            _ => Ok(()),
        }
    }
}

struct About {
    description: String,
    program: String,
    command: String,
}

impl Inner {
    /// An error when the back-end is gone.
    fn alive(&self) -> Result<()> {
        match &self.end {
            Some(end) => Err(Error::machine(end.summary())),
            None if self.ended => Err(Error::machine("the connection to the server was closed")),
            None => Ok(()),
        }
    }

    /// Does something with a device unless the back-end is gone.
    fn with<T>(
        &mut self,
        device: usize,
        work: impl FnOnce(&mut Device) -> link::Result<T>,
    ) -> Result<T> {
        self.alive()?;
        let count = self.devices.len();
        let Some(found) = self.devices.get_mut(device) else {
            return Err(Error::machine(format!("there is no device {device}: there are {count}")));
        };
        work(found).map_err(|failure| {
            let history = self.devices.get(device).map(|d| d.link().history()).unwrap_or_default();
            self.failed(failure, &history)
        })
    }

    /// What a failure means.
    fn failed(&mut self, failure: Failure, history: &[(String, bool)]) -> Error {
        match failure {
            Failure::Lost(lost) => self.bury(Some(lost), history),
            Failure::Refused(what) => Error::machine(format!("{}: {what}", self.program)),
        }
    }

    /// The back-end is lost: sees how it ended, or ends it where it is ours.
    fn bury(&mut self, lost: Option<Lost>, history: &[(String, bool)]) -> Error {
        if let Some(end) = &self.end {
            return Error::machine(end.summary());
        }
        let (what, stderr) = match &mut self.server {
            Some(server) => (server.bury(lost), server.stderr()),
            None => (end_of(lost), String::new()),
        };
        let obituary = Obituary {
            program: self.program.clone(),
            what,
            stderr,
            last_commands: history.to_vec(),
            command: self.command.clone(),
        };
        let error = Error::machine(obituary.summary());
        self.end = Some(obituary);
        // It may be alive, and is not to write to our memory for long.
        self.devices.clear();
        error
    }

    /// Whether all back-ends are there.
    fn look(&mut self) -> Result<()> {
        self.alive()?;
        for device in 0..self.devices.len() {
            self.with(device, |device| Ok(device.look()?))?;
        }
        Ok(())
    }

    fn quit(&mut self) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.look()?;
        self.devices.clear();
        if let Some(server) = &mut self.server {
            match server.quit(QUIT_PATIENCE) {
                (Some(status), true) if status.success() => {}
                (Some(_), _) => return Err(self.bury(None, &[])),
                (None, _) => return Err(self.bury(Some(Lost::Silent(QUIT_PATIENCE)), &[])),
            }
        }
        self.ended = true;
        Ok(())
    }
}

/// What became of a server that is no process of ours.
fn end_of(lost: Option<Lost>) -> End {
    match lost {
        None | Some(Lost::Closed) => End::Closed,
        Some(Lost::Silent(time)) => {
            End::Hung { waited_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX) }
        }
        Some(Lost::Babble(what)) => End::Broken { why: format!("it sent {what}") },
        Some(Lost::Io(error)) => End::Broken { why: format!("the connection failed: {error}") },
    }
}

impl Vrings for VhostUserMachine {
    fn devices(&self) -> usize {
        self.shared.fds.len()
    }

    fn name(&self, device: usize) -> String {
        self.lock().names.get(device).cloned().unwrap_or_default()
    }

    fn features(&mut self, device: usize) -> Result<u64> {
        self.lock().with(device, |device| Ok(device.features()))
    }

    fn set_features(&mut self, device: usize, features: u64) -> Result<()> {
        self.lock().with(device, |device| device.set_features(features, &self.shared.ram))
    }

    fn queues(&mut self, device: usize) -> Result<u16> {
        self.lock().with(device, |device| Ok(device.queues()))
    }

    fn ring_size_max(&self) -> u16 {
        self.shared.ring_max
    }

    fn set_vring(&mut self, device: usize, queue: u16, vring: &Vring) -> Result<Arc<IrqEvent>> {
        self.lock().with(device, |device| device.set_vring(queue, vring, &self.shared.ram))
    }

    fn call(&mut self, device: usize, queue: u16) -> Result<Arc<IrqEvent>> {
        self.lock().with(device, |device| device.call(queue))
    }

    fn status(&mut self, device: usize) -> Result<u8> {
        self.lock().with(device, Device::status)
    }

    fn set_status(&mut self, device: usize, status: u8) -> Result<()> {
        self.lock().with(device, |device| device.set_status(status))
    }

    fn config(&mut self, device: usize, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.lock().with(device, |device| device.config(offset, buf))
    }

    fn config_generation(&mut self, device: usize) -> Result<u8> {
        self.lock().with(device, |device| Ok(device.generation()))
    }
}

impl Machine for VhostUserMachine {
    fn name(&self) -> &str {
        "vhost-user"
    }

    fn describe(&self) -> String {
        self.shared.description.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        self.lock().alive()?;
        Err(Error::machine("machine 'vhost-user' has vrings, and no bus"))
    }

    fn vrings(&mut self) -> Result<&mut dyn Vrings> {
        self.lock().alive()?;
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Ok(Arc::clone(&self.shared.ram))
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        self.lock().alive()?;
        Err(Error::machine("machine 'vhost-user' has calls of vrings, and no interrupt lines"))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.shared.clock)
    }

    fn another_handle(&self) -> Result<Box<dyn Machine + Send>> {
        Ok(Box::new(self.clone()))
    }

    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()> {
        let mut inner = self.lock();
        inner.alive()?;
        match &mut inner.server {
            Some(server) => server.resize(disk, bytes),
            None => Err(Error::machine("the disk of a server that runs already is not resized")),
        }
    }

    fn obituary(&self) -> Option<Obituary> {
        self.lock().end.clone()
    }

    fn poll(&mut self) -> Result<bool> {
        // A device of another process makes progress by itself.
        if self.shared.polls.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOKS) {
            self.lock().look()?;
        }
        Ok(false)
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.lock().look()?;
        let left = match deadline {
            Some(deadline) => deadline - self.shared.clock.now(),
            None if fds.is_empty() => IDLE_NS,
            None => u64::MAX,
        };
        if left > 0 {
            self.sleep(fds, left)?;
            self.lock().look()?;
        }
        Ok(())
    }

    fn quit(&mut self) -> Result<()> {
        self.lock().quit()
    }
}
