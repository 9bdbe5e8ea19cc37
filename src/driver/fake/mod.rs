//! A scripted machine for the drivers' own tests: a PCI bus of registers with write masks, and a
//! virtio block device that can lie in every way the tests need. Independent of the builtin
//! machine on purpose: two readings of the specification.

mod device;
mod pci;

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::base::{Clock, GuestAddr, HostClock, Nanos, Result};
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, IrqEvent, IrqSource, Machine};

pub use device::FakeBlk;
pub use pci::FakeFunction;

/// The interrupt line the fake firmware routed the device's pin to.
pub const LINE: u32 = 11;

/// A machine with one virtio block device at 00:04.0 and whatever else a test puts on the bus.
pub struct FakeMachine {
    pub ram: Arc<GuestRam>,
    pub functions: HashMap<(u8, u8, u8), FakeFunction>,
    pub blk: FakeBlk,
    pub facets: Capabilities,
    /// Notifications do nothing; the device works when the machine is waited for.
    pub lazy: bool,
    /// Bus accesses to places where nothing is.
    pub strays: Vec<String>,
    config_address: u32,
    watched: HashMap<(u64, u32), Arc<IrqEvent>>,
    line: Arc<IrqEvent>,
    clock: Arc<dyn Clock>,
}

impl FakeMachine {
    pub fn new() -> Self {
        let ram = Arc::new(GuestRam::new(16 << 20).unwrap());
        let mut functions = HashMap::new();
        functions.insert((0, 0, 0), FakeFunction::new(0x8086, 0x1237, 0x0600));
        functions.insert((0, 4, 0), FakeFunction::virtio_blk());
        let facets = Capabilities::PIO
            | Capabilities::MMIO
            | Capabilities::MEMORY
            | Capabilities::MSIX
            | Capabilities::INTX;
        Self {
            blk: FakeBlk::new(ram.clone()),
            ram,
            functions,
            facets,
            lazy: false,
            strays: Vec::new(),
            config_address: 0,
            watched: HashMap::new(),
            line: Arc::new(IrqEvent::new().unwrap()),
            clock: Arc::new(HostClock::new()),
        }
    }

    /// The device's function.
    pub fn function(&mut self) -> &mut FakeFunction {
        self.functions.get_mut(&(0, 4, 0)).unwrap()
    }

    /// Lets the device work and delivers the interrupts it raised.
    pub fn work(&mut self) {
        for queue in 0..self.blk.queues.len() {
            self.blk.run(queue);
        }
        self.deliver();
    }

    fn deliver(&mut self) {
        if std::mem::take(&mut self.blk.line_rose) {
            self.line.signal();
        }
        for vector in std::mem::take(&mut self.blk.raised) {
            if !self.function().msix_enabled() {
                continue;
            }
            if let Some(message) = self.blk.message(vector)
                && let Some(event) = self.watched.get(&message)
            {
                event.signal();
            }
        }
    }

    fn config(&mut self, port_offset: u16) -> Option<(&mut FakeFunction, usize)> {
        let address = self.config_address;
        let at = ((address >> 16) as u8, (address >> 11) as u8 & 31, (address >> 8) as u8 & 7);
        let offset = (address & 0xfc) as usize + usize::from(port_offset);
        let visible = self.bus_reachable(at.0);
        self.functions.get_mut(&at).filter(|_| visible).map(|function| (function, offset))
    }

    /// Bus 0, and every bus a bridge's numbers forward to.
    fn bus_reachable(&self, bus: u8) -> bool {
        let forwards = |f: &FakeFunction| {
            f.is_bridge() && f.bytes[0x19] != 0 && (f.bytes[0x19]..=f.bytes[0x1a]).contains(&bus)
        };
        bus == 0 || self.functions.values().any(forwards)
    }

    /// The BAR of the block device that holds an address: (BAR, offset).
    fn target(&mut self, io: bool, addr: u64) -> Option<(usize, u64)> {
        let modern = self.blk.modern_bar;
        self.function().decode(io, addr).filter(|(bar, _)| [0, 1, modern].contains(bar))
    }
}

impl Bus for FakeMachine {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        let ones = u32::MAX >> (32 - 8 * u32::from(size));
        if (0xcfc..0xd00).contains(&port) {
            return self.config(port - 0xcfc).map_or(ones, |(f, at)| f.read(at, size));
        }
        match self.target(true, u64::from(port)) {
            Some((0, at)) => {
                let msix = self.function().msix_enabled();
                self.blk.legacy_read(at, size, msix)
            }
            _ => {
                self.strays.push(format!("in {port:#x}"));
                ones
            }
        }
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        if port == 0xcf8 {
            self.config_address = value;
        } else if (0xcfc..0xd00).contains(&port) {
            if let Some((function, at)) = self.config(port - 0xcfc) {
                function.write(at, size, value);
            }
        } else if let Some((0, at)) = self.target(true, u64::from(port)) {
            let queue = self.blk.legacy_write(at, size, value);
            self.notified(queue);
        } else {
            self.strays.push(format!("out {port:#x}"));
        }
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        match self.target(false, addr.0) {
            Some((1, at)) => self.blk.table_read(at, size),
            Some((_, at)) => u64::from(self.blk.modern_read(at, size)),
            None => {
                self.strays.push(format!("load {addr}"));
                u64::MAX
            }
        }
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        match self.target(false, addr.0) {
            Some((1, at)) => self.blk.table_write(at, size, value),
            Some((_, at)) => {
                let queue = self.blk.modern_write(at, size, value as u32);
                self.notified(queue);
            }
            None => self.strays.push(format!("store {addr}")),
        }
    }
}

impl FakeMachine {
    fn notified(&mut self, queue: Option<usize>) {
        let Some(queue) = queue else {
            return;
        };
        self.blk.notifications += 1;
        if !self.lazy {
            self.blk.run(queue);
            self.deliver();
        }
    }
}

impl Interrupts for FakeMachine {
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>> {
        Ok(match source {
            IrqSource::Intx(line) => {
                assert_eq!(line, LINE, "the driver watches another line than its device's");
                self.line.clone()
            }
            IrqSource::Intr { .. } | IrqSource::Nmi { .. } => panic!("the driver is no CPU"),
            IrqSource::Msi { addr, data } => self
                .watched
                .entry((addr, data))
                .or_insert_with(|| Arc::new(IrqEvent::new().unwrap()))
                .clone(),
        })
    }

    fn intx_level(&self, _irq: u32) -> bool {
        self.blk.isr != 0
    }
}

impl Machine for FakeMachine {
    fn name(&self) -> &str {
        "fake"
    }

    fn capabilities(&self) -> Capabilities {
        self.facets
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Ok(self.ram.clone())
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        Ok(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    fn poll(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.work();
        let mut poll: Vec<_> = fds
            .iter()
            .map(|fd| nix::poll::PollFd::new(*fd, nix::poll::PollFlags::POLLIN))
            .collect();
        let left =
            deadline.map_or(10_000, |deadline| (deadline - self.clock.now()).div_ceil(1_000_000));
        let timeout = nix::poll::PollTimeout::from(left.min(10_000) as u16);
        nix::poll::poll(&mut poll, timeout).unwrap();
        Ok(())
    }
}
