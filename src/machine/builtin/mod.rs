//! The builtin machine: device models in this process, driven by the test thread as a vCPU would.
//!
//! By default a doorbell is answered before its write returns, in the calling thread. A disk with
//! `iothread` has a thread of its own instead. Several test threads drive one machine through
//! clones of a [`SharedMachine`].

mod acpi;
mod assembly;
pub mod attention;
pub mod board;
pub mod bus;
mod chips;
mod config;
mod controllers;
pub mod device;
pub mod devices;
mod disk;
pub mod irq;
pub mod pci;
mod shared;
#[cfg(test)]
mod tests;
pub mod timeline;
mod waiting;
pub mod walk;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use self::assembly::Assembly;
use self::attention::Attention;
use self::bus::SystemBus;
use self::disk::Connection;
use self::irq::{IrqController, IrqHub};
use self::pci::devfn;
use self::waiting::{Waiter, Waiting};
use crate::base::{Clock, Error, Nanos, Result};
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, Machine};

pub use self::assembly::FarEnds;
pub use self::board::Board;
pub use self::chips::{Chips, Reference};
pub use self::config::{AIO_DEPTH_MAX, BuiltinConfig, DISK_QUEUES_MAX, DiskConfig};
pub use self::devices::virtio_blk::{BlkObserver, ObservedRequest};
pub use self::devices::virtio_pci::Personality;
pub use self::shared::SharedMachine;

/// A PC with virtio disks.
pub struct BuiltinMachine {
    bus: SystemBus,
    ram: Arc<GuestRam>,
    interrupts: IrqController,
    clock: Arc<dyn Clock>,
    attention: Option<Arc<Attention>>,
    waiter: Waiter,
    far_ends: FarEnds,
    first_disk_slot: u8,
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
        config.check()?;
        let ram = Arc::new(GuestRam::new(config.ram_bytes)?);
        let hub = Arc::new(IrqHub::new(Arc::clone(&ram)));
        let attention = match config.disks.iter().any(|disk| disk.iothread) {
            true => Some(Arc::new(Attention::default())),
            false => None,
        };
        let (mut parts, routing, far_ends) = Assembly::new(&config, &ram, &hub).build();
        let observers = observers.into_iter().chain(std::iter::repeat_with(|| None));
        let slots = config.first_disk_slot..;
        for ((disk, observer), slot) in config.disks.iter().zip(observers).zip(slots) {
            let connection = Connection {
                ram: &ram,
                hub: &hub,
                pin: routing.pin(slot),
                interrupt_line: routing.interrupt_line(slot),
                attention: attention.clone().filter(|_| disk.iothread),
            };
            parts.pci.plug(devfn(slot, 0), Box::new(connection.disk(disk, observer)?));
        }
        Ok(Self {
            bus: SystemBus::new(parts),
            ram,
            interrupts: IrqController(hub),
            clock: config.clock,
            waiter: Waiter::new(attention.clone()),
            attention,
            far_ends,
            first_disk_slot: config.first_disk_slot,
        })
    }

    /// A machine for several test threads: each drives its own clone of the handle.
    pub fn share(self) -> SharedMachine {
        SharedMachine::new(self)
    }

    /// The far ends of the chips' cables.
    pub fn far_ends(&self) -> &FarEnds {
        &self.far_ends
    }

    /// Whether a poll would find something to do. May say so when there is nothing.
    fn has_work(&self) -> bool {
        self.bus.has_work()
    }
}

impl Machine for BuiltinMachine {
    fn name(&self) -> &str {
        "builtin"
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::PIO
            | Capabilities::MMIO
            | Capabilities::MEMORY
            | Capabilities::INTX
            | Capabilities::MSIX
            | Capabilities::VIRTIO
            | Capabilities::QUEUE_EVENTS
            | Capabilities::DISK_IDS
            | Capabilities::RESIZE
            | Capabilities::APIC_MESSAGES;
        capabilities |= Capabilities::TIMERS;
        capabilities.set(Capabilities::VIRTUAL_CLOCK, self.clock.is_virtual());
        capabilities.set(Capabilities::CPU_IRQ, self.interrupts.has_cpu());
        capabilities
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(&mut self.bus)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Ok(Arc::clone(&self.ram))
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        self.bus.catch_up();
        Ok(&mut self.interrupts)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()> {
        let slot = u8::try_from(disk).ok().and_then(|disk| disk.checked_add(self.first_disk_slot));
        let at = slot.filter(|slot| *slot < pci::SLOTS).map(|slot| devfn(slot, 0));
        match at.and_then(|at| self.bus.pci().at(at)) {
            Some(function) => function.resize(bytes),
            None => Err(Error::usage(format!("the machine has no disk {disk}"))),
        }
    }

    fn poll(&mut self) -> Result<bool> {
        let mut progress = self.bus.poll_devices();
        for function in self.bus.pci().functions() {
            progress |= function.poll()?;
        }
        Ok(progress)
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        if self.poll()? {
            return Ok(());
        }
        match self.waiter.prepare(&mut self.bus, fds, deadline, &*self.clock)? {
            Waiting::Over => {}
            Waiting::Sleep(sleep) => self.waiter.sleep(&sleep, fds)?,
        }
        self.poll().map(|_| ())
    }
}
