//! One machine, several test threads.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::BuiltinMachine;
use super::attention::Attention;
use super::irq::IrqController;
use super::waiting::{Waiter, Waiting};
use crate::base::{Clock, GuestAddr, Nanos, Result};
use crate::machine::{
    ApicMessage, Bus, Capabilities, GuestRam, Interrupts, IrqEvent, IrqSource, Machine,
};

/// A handle of a machine that several test threads drive, each through its own clone:
///
/// ```
/// use qtrace::machine::builtin::{BuiltinConfig, BuiltinMachine};
/// use qtrace::machine::{Bus, Machine};
///
/// let machine = BuiltinMachine::new(BuiltinConfig::default())?.share();
/// std::thread::scope(|scope| {
///     for _ in 0..2 {
///         let mut machine = machine.clone();
///         scope.spawn(move || machine.bus().map(|bus| bus.pio_read(0xcf8, 4)));
///     }
/// });
/// # Ok::<(), qtrace::base::Error>(())
/// ```
///
/// An access has the machine to itself, with one exception: doorbells of virtio queues (modern
/// interface) are rung by several threads at once, and each thread serves the queue it rang for.
/// Requests of different queues are processed in parallel where the disk was made with
/// `concurrent_queues`, and wait for each other where it was not. Two accesses that belong
/// together, such as configuration address and data, are two: threads agree among themselves who
/// enumerates.
///
/// A thread that waits gives the machine free. Under a virtual clock time is everybody's: any wait
/// moves it, so that only one thread should wait for time.
pub struct SharedMachine {
    shared: Arc<Shared>,
    waiter: Waiter,
}

struct Shared {
    machine: RwLock<BuiltinMachine>,
    clock: Arc<dyn Clock>,
    ram: Arc<GuestRam>,
    interrupts: IrqController,
    capabilities: Capabilities,
    attention: Arc<Attention>,
}

impl SharedMachine {
    pub(super) fn new(machine: BuiltinMachine) -> Self {
        let attention = machine.attention.clone().unwrap_or_default();
        let shared = Shared {
            clock: Arc::clone(&machine.clock),
            ram: Arc::clone(&machine.ram),
            interrupts: machine.interrupts.clone(),
            capabilities: machine.capabilities() | Capabilities::THREADS,
            attention: Arc::clone(&attention),
            machine: RwLock::new(machine),
        };
        Self { shared: Arc::new(shared), waiter: Waiter::new(Some(attention)) }
    }
}

impl Clone for SharedMachine {
    /// The handle for another thread.
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), waiter: self.waiter.for_another_thread() }
    }
}

impl Shared {
    // A thread that panicked had the machine in one access. Its registers are whole, whatever they
    // say; the panic is that thread's result.
    fn read(&self) -> RwLockReadGuard<'_, BuiltinMachine> {
        self.machine.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BuiltinMachine> {
        self.machine.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the machine to itself. Threads that sleep learn of an earlier deadline.
    fn exclusive<R>(&self, f: impl FnOnce(&mut BuiltinMachine) -> R) -> R {
        let mut machine = self.write();
        let before = machine.bus.deadline();
        let result = f(&mut machine);
        if let Some(next) = machine.bus.deadline()
            && before.is_none_or(|before| next < before)
        {
            self.attention.deadline(next);
        }
        result
    }
}

impl Bus for SharedMachine {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        self.shared.exclusive(|machine| machine.bus.pio_read(port, size))
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        self.shared.exclusive(|machine| machine.bus.pio_write(port, size, value));
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        self.shared.exclusive(|machine| machine.bus.mmio_read(addr, size))
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        let rung = self.shared.read().bus.doorbell(addr, size);
        if !rung {
            self.shared.exclusive(|machine| machine.bus.mmio_write(addr, size, value));
        }
    }
}

impl Interrupts for SharedMachine {
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>> {
        self.shared.interrupts.clone().watch(source)
    }

    fn intx_level(&self, irq: u32) -> bool {
        self.shared.interrupts.intx_level(irq)
    }

    fn acknowledge(&mut self, cpu: u8) -> Option<u8> {
        self.shared.interrupts.clone().acknowledge(cpu)
    }

    fn apic_messages(&mut self) -> Result<Vec<ApicMessage>> {
        self.shared.interrupts.clone().apic_messages()
    }
}

impl Machine for SharedMachine {
    fn name(&self) -> &str {
        "builtin"
    }

    fn capabilities(&self) -> Capabilities {
        self.shared.capabilities
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Ok(Arc::clone(&self.shared.ram))
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        if self.shared.read().bus.is_due() {
            self.shared.exclusive(|machine| machine.bus.catch_up());
        }
        Ok(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.shared.clock)
    }

    fn poll(&mut self) -> Result<bool> {
        // Most polls find nothing, and need not stop the other threads for that.
        if !self.shared.read().has_work() {
            return Ok(false);
        }
        self.shared.exclusive(Machine::poll)
    }

    fn another_handle(&self) -> Result<Box<dyn Machine + Send>> {
        Ok(Box::new(self.clone()))
    }

    fn resize_disk(&mut self, disk: usize, bytes: u64) -> Result<()> {
        self.shared.exclusive(|machine| machine.resize_disk(disk, bytes))
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        let (waiter, clock) = (&mut self.waiter, &*self.shared.clock);
        let waiting = self.shared.exclusive(|machine| match machine.poll()? {
            true => Ok(Waiting::Over),
            false => waiter.prepare(&mut machine.bus, fds, deadline, clock),
        })?;
        if let Waiting::Sleep(sleep) = waiting {
            waiter.sleep(&sleep, fds)?;
        }
        self.shared.exclusive(|machine| machine.poll().map(|_| ()))
    }
}
