//! The builtin machine: device models in this process, driven by the test thread as a vCPU would.
//!
//! By default a doorbell is answered before its write returns, in the calling thread. A disk with
//! `iothread` has a thread of its own instead.

pub mod attention;
pub mod board;
pub mod bus;
mod chips;
pub mod device;
pub mod devices;
pub mod irq;
pub mod pci;
#[cfg(test)]
mod tests;
mod waiting;
pub mod walk;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use self::attention::Attention;
use self::bus::SystemBus;
use self::devices::virtio_blk::chip::BlkGeometry;
use self::devices::virtio_blk::{BlkConfig, VirtioBlk};
use self::devices::virtio_pci::{VirtioInterrupts, VirtioPci, VirtioPciConfig};
use self::devices::virtio_queue::QUEUE_SIZE_MAX;
use self::irq::{IrqController, IrqHub};
use self::pci::PciBus;
use self::pci::interrupts::PciInterrupts;
use crate::base::{Clock, Error, HostClock, Nanos, Result, SECTOR_SIZE};
use crate::image::Image;
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, Machine};

pub use self::board::Board;
pub use self::chips::Chips;
pub use self::devices::virtio_blk::{BlkObserver, ObservedRequest};
pub use self::devices::virtio_pci::Personality;

/// Request queues of a disk: their doorbells and vectors fit the function's BARs with room.
pub const DISK_QUEUES_MAX: u16 = 256;

/// Requests a disk may have on its image at once.
pub const AIO_DEPTH_MAX: usize = 1 << 15;

/// Guest RAM unless asked otherwise: rings and buffers for the deepest replay.
const RAM_BYTES_DEFAULT: u64 = 256 << 20;

/// 2026-01-01 00:00:00 UTC: the same in every run.
const RTC_BASE_DEFAULT: i64 = 1_767_225_600;

/// A disk of a builtin machine.
#[derive(Clone)]
pub struct DiskConfig {
    /// Its bytes.
    pub image: Arc<dyn Image>,
    /// Request queues.
    pub queues: u16,
    /// Largest queue size, a power of two.
    pub queue_size: u16,
    /// Serve it in a thread of its own.
    pub iothread: bool,
    /// Refuse writes (also when the image does).
    pub read_only: bool,
    /// Identifier; 20 bytes of it count.
    pub serial: String,
    /// Logical block size: a power of two from 512 to 32768.
    pub block_bytes: u32,
    /// Its virtio interfaces.
    pub personality: Personality,
    /// Requests on the image at once; 0 calls it synchronously.
    pub aio_depth: usize,
}

impl DiskConfig {
    /// A transitional disk with one queue of 256 entries, served in the test thread.
    pub fn new(image: Arc<dyn Image>) -> Self {
        Self {
            image,
            queues: 1,
            queue_size: 256,
            iothread: false,
            read_only: false,
            serial: "qtrace".into(),
            block_bytes: SECTOR_SIZE as u32,
            personality: Personality::default(),
            aio_depth: 0,
        }
    }

    fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::usage(what).path(&self.image.info().path));
        if !(1..=DISK_QUEUES_MAX).contains(&self.queues) {
            return bad(format!("{} queues: a disk has 1 to {DISK_QUEUES_MAX}", self.queues));
        }
        if !self.queue_size.is_power_of_two() || self.queue_size > QUEUE_SIZE_MAX {
            return bad(format!("queue size {} is no power of two", self.queue_size));
        }
        if !self.block_bytes.is_power_of_two() || !(512..=32768).contains(&self.block_bytes) {
            return bad(format!(
                "logical block size {}: a power of two from 512 to 32768",
                self.block_bytes
            ));
        }
        if self.aio_depth > AIO_DEPTH_MAX {
            return bad(format!("aio depth {}: at most {AIO_DEPTH_MAX}", self.aio_depth));
        }
        Ok(())
    }
}

/// A machine to build.
#[derive(Clone)]
pub struct BuiltinConfig {
    /// Guest RAM from address 0.
    pub ram_bytes: u64,
    /// Its time.
    pub clock: Arc<dyn Clock>,
    /// Its chipset.
    pub board: Board,
    /// What it carries besides RAM, host bridge and disks. Without [`Chips::SOUTH_BRIDGE`] the
    /// board is as firmware leaves it: interrupt pins are routed to what the interrupt line
    /// registers say, configuration space is mapped. With it the chipset begins in its reset
    /// state, and whoever drives the machine programs it.
    pub chips: Chips,
    /// CPUs, which is to say local APICs.
    pub cpus: u8,
    /// What the real-time clock shows at time 0, in seconds since 1970 (UTC).
    pub rtc_base_unix_s: i64,
    /// Slot of the first disk; the others follow.
    pub first_disk_slot: u8,
    /// Its disks, in slot order.
    pub disks: Vec<DiskConfig>,
}

impl Default for BuiltinConfig {
    fn default() -> Self {
        Self {
            ram_bytes: RAM_BYTES_DEFAULT,
            clock: Arc::new(HostClock::new()),
            board: Board::default(),
            chips: Chips::MINIMAL,
            cpus: 1,
            rtc_base_unix_s: RTC_BASE_DEFAULT,
            first_disk_slot: board::FIRST_DISK_SLOT,
            disks: Vec::new(),
        }
    }
}

/// A PC with virtio disks.
pub struct BuiltinMachine {
    bus: SystemBus,
    ram: Arc<GuestRam>,
    interrupts: IrqController,
    clock: Arc<dyn Clock>,
    waiter: waiting::Waiter,
}

impl BuiltinMachine {
    /// Builds the machine, powered on and not enumerated.
    ///
    /// # Errors
    /// A configuration that makes no machine, or a system that has no memory or thread for it.
    pub fn new(config: BuiltinConfig) -> Result<Self> {
        Self::with_observers(config, Vec::new())
    }

    /// As [`BuiltinMachine::new`]; the n-th observer sees the requests of the n-th disk.
    ///
    /// # Errors
    /// As [`BuiltinMachine::new`].
    pub fn with_observers(
        config: BuiltinConfig,
        observers: Vec<Option<Box<dyn BlkObserver>>>,
    ) -> Result<Self> {
        check(&config)?;
        let ram = Arc::new(GuestRam::new(config.ram_bytes)?);
        let hub = Arc::new(IrqHub::new(Arc::clone(&ram)));
        let attention = match config.disks.iter().any(|disk| disk.iothread) {
            true => Some(Arc::new(Attention::new()?)),
            false => None,
        };
        let mut pci = PciBus::default();
        pci.plug(0, config.board.host_bridge());
        let observers = observers.into_iter().chain(std::iter::repeat_with(|| None));
        for ((disk, observer), slot) in
            config.disks.iter().zip(observers).zip(config.first_disk_slot..)
        {
            let attention = attention.clone().filter(|_| disk.iothread);
            let wiring =
                Wiring { ram: &ram, hub: &hub, line: config.board.interrupt_of(slot), slot };
            pci.plug(slot, Box::new(wiring.disk(disk, observer, attention)?));
        }
        Ok(Self {
            bus: SystemBus::new(Arc::clone(&ram), config.board, pci),
            ram,
            interrupts: IrqController(hub),
            clock: config.clock,
            waiter: waiting::Waiter::new(attention),
        })
    }
}

fn check(config: &BuiltinConfig) -> Result<()> {
    if !(1..=board::RAM_END_MAX).contains(&config.ram_bytes) {
        return Err(Error::usage(format!(
            "guest RAM of {} bytes: at most {} fit below the PCI hole",
            config.ram_bytes,
            board::RAM_END_MAX
        )));
    }
    let room = usize::from(pci::SLOTS.saturating_sub(config.first_disk_slot));
    if config.first_disk_slot == 0 || config.disks.len() > room {
        return Err(Error::usage(format!(
            "{} disks from slot {}: a bus has slots 1 to 31",
            config.disks.len(),
            config.first_disk_slot
        )));
    }
    if config.cpus == 0 {
        return Err(Error::usage("a machine without a CPU"));
    }
    if config.clock.is_virtual() && config.disks.iter().any(|disk| disk.iothread) {
        return Err(Error::usage("an iothread runs in the host's time, not in a virtual clock's")
            .hint("use clock=host, or iothread=off"));
    }
    config.disks.iter().try_for_each(DiskConfig::check)
}

/// Where a function is connected.
struct Wiring<'a> {
    ram: &'a Arc<GuestRam>,
    hub: &'a Arc<IrqHub>,
    line: u8,
    slot: u8,
}

impl Wiring<'_> {
    fn disk(
        &self,
        disk: &DiskConfig,
        observer: Option<Box<dyn BlkObserver>>,
        attention: Option<Arc<Attention>>,
    ) -> Result<VirtioPci<VirtioBlk>> {
        // A vector for each queue and one for configuration changes.
        let vectors = disk.queues + 1;
        let hub = Arc::clone(self.hub);
        let pci_interrupts =
            Arc::new(PciInterrupts::new(hub, self.line.into(), self.slot.into(), vectors));
        let interrupts = Arc::new(VirtioInterrupts::new(Arc::clone(&pci_interrupts), disk.queues));
        let block_sectors = u64::from(disk.block_bytes) / SECTOR_SIZE;
        let sectors = disk.image.size() / SECTOR_SIZE;
        let device = VirtioBlk::new(BlkConfig {
            image: Arc::clone(&disk.image),
            geometry: BlkGeometry {
                capacity_sectors: sectors / block_sectors * block_sectors,
                block_bytes: disk.block_bytes,
                read_only: disk.read_only || disk.image.info().read_only,
                queues: disk.queues,
                queue_size: disk.queue_size,
            },
            serial: disk.serial.clone(),
            aio_depth: disk.aio_depth,
            observer,
            ram: Arc::clone(self.ram),
            interrupts: Arc::clone(&interrupts),
            attention,
        })?;
        VirtioPci::new(
            device,
            VirtioPciConfig {
                personality: disk.personality,
                interrupt_line: self.line,
                pci_interrupts,
                interrupts,
                vectors,
            },
        )
    }
}

impl Machine for BuiltinMachine {
    fn name(&self) -> &str {
        "builtin"
    }

    fn capabilities(&self) -> Capabilities {
        let always = Capabilities::PIO
            | Capabilities::MMIO
            | Capabilities::MEMORY
            | Capabilities::INTX
            | Capabilities::MSIX;
        if self.clock.is_virtual() { always | Capabilities::VIRTUAL_CLOCK } else { always }
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(&mut self.bus)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Ok(Arc::clone(&self.ram))
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        Ok(&mut self.interrupts)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    fn poll(&mut self) -> Result<bool> {
        let mut progress = false;
        for function in self.bus.pci.functions() {
            progress |= function.poll()?;
        }
        Ok(progress)
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        if self.poll()? {
            return Ok(());
        }
        self.waiter.wait(&mut self.bus.pci, fds, deadline, &*self.clock)?;
        self.poll().map(|_| ())
    }
}
