//! What a builtin machine is made of.

use std::sync::Arc;

use super::board::{self, Board};
use super::devices::virtio_pci::Personality;
use super::devices::virtio_queue::QUEUE_SIZE_MAX;
use super::{Chips, Reference, pci};
use crate::base::{Clock, Error, HostClock, Result, SECTOR_SIZE};
use crate::image::Image;

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
    /// Serve each queue by itself, so that the threads of a [`SharedMachine`](super::SharedMachine)
    /// that ring for different queues work in parallel.
    pub concurrent_queues: bool,
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
            concurrent_queues: false,
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
        if self.concurrent_queues && self.iothread {
            return bad("an iothread serves all queues of its disk: none by itself".into());
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
    /// Whose behaviour chips have where QEMU's differ from their data sheets.
    pub reference: Reference,
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
            reference: Reference::default(),
            first_disk_slot: board::FIRST_DISK_SLOT,
            disks: Vec::new(),
        }
    }
}

impl BuiltinConfig {
    /// Whether it makes a machine.
    ///
    /// # Errors
    /// A usage error that names what does not.
    pub(super) fn check(&self) -> Result<()> {
        if !(1..=board::RAM_END_MAX).contains(&self.ram_bytes) {
            return Err(Error::usage(format!(
                "guest RAM of {} bytes: at most {} fit below the PCI hole",
                self.ram_bytes,
                board::RAM_END_MAX
            )));
        }
        self.check_slots()?;
        if self.cpus == 0 {
            return Err(Error::usage("a machine without a CPU"));
        }
        if self.clock.is_virtual() && self.disks.iter().any(|disk| disk.iothread) {
            return Err(Error::usage(
                "an iothread runs in the host's time, not in a virtual clock's",
            )
            .hint("use clock=host, or iothread=off"));
        }
        self.disks.iter().try_for_each(DiskConfig::check)
    }

    fn check_slots(&self) -> Result<()> {
        let first = self.first_disk_slot;
        let room = usize::from(pci::SLOTS.saturating_sub(first));
        if first == 0 || self.disks.len() > room {
            return Err(Error::usage(format!(
                "{} disks from slot {first}: a bus has slots 1 to 31",
                self.disks.len()
            )));
        }
        let south_bridge = self.board.south_bridge_slot();
        let taken = usize::from(first)..usize::from(first) + self.disks.len();
        if self.chips.contains(Chips::SOUTH_BRIDGE) && taken.contains(&south_bridge.into()) {
            return Err(Error::usage(format!(
                "a disk in slot {south_bridge}, which is the south bridge's"
            )));
        }
        Ok(())
    }
}
