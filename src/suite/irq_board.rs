//! For the tests of the interrupt controllers' modules: the controllers of a PC with two CPUs and
//! the devices of [`Source`](super::sources::Source), wired by this file alone; and faults.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Module, Outcome, Stop, TestThread};
use crate::base::bus::{BusAccess, BusSpace};
use crate::base::options::Options;
use crate::base::{Clock, Error, GuestAddr, Nanos, Result, VirtualClock};
use crate::machine::builtin::device::{Device, LineSink, Wire};
use crate::machine::builtin::devices::i8042::I8042;
use crate::machine::builtin::devices::ioapic::{IoApic, IoApicDevice};
use crate::machine::builtin::devices::lapic::{LINT0, LapicConfig, LapicDevice, LocalApics};
use crate::machine::builtin::devices::pic::{PicDevice, PicPair};
use crate::machine::builtin::devices::pit::Pit;
use crate::machine::builtin::devices::rtc::{Rtc, RtcConfig};
use crate::machine::builtin::devices::serial::Serial;
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, IrqEvent, IrqSource, Machine};

/// What is wrong with a machine: the value that an access carries instead of its own. A write
/// without one is lost, a read gives 0.
pub type Fault = fn(BusAccess) -> Option<u64>;

/// CPUs of the board.
const CPUS: u8 = 2;

/// A CPU's pins: INTR of CPU n is line 2n, NMI line 2n + 1.
#[derive(Default)]
struct Pins([OnceLock<Arc<IrqEvent>>; 2 * CPUS as usize], [AtomicBool; 2 * CPUS as usize]);

impl LineSink for Pins {
    fn set_line(&self, line: u32, _source: u32, high: bool) {
        let was = self.1[line as usize].swap(high, Ordering::SeqCst);
        if let (true, false, Some(event)) = (high, was, self.0[line as usize].get()) {
            event.signal();
        }
    }
}

/// Interrupt lines to both kinds of controller; the timer's is input 2 of the I/O APIC.
struct Lines(Arc<PicPair>, Arc<IoApic>);

impl LineSink for Lines {
    fn set_line(&self, line: u32, source: u32, high: bool) {
        self.0.set_line(line, source, high);
        self.1.set_line(if line == 0 { 2 } else { line }, source, high);
    }
}

/// Devices in address order: space, base, length, window, index of the device.
type Place = (BusSpace, u64, u64, usize, usize);

/// The machine.
pub struct Board {
    devices: Vec<Box<dyn Device>>,
    places: Vec<Place>,
    pins: Arc<Pins>,
    apics: Arc<LocalApics>,
    clock: VirtualClock,
    fault: Fault,
}

impl Board {
    /// A right one.
    pub fn new() -> Self {
        let (clock, pins) = (VirtualClock::new(), Arc::new(Pins::default()));
        let pin = |which: u32| {
            let pins = &pins;
            (0..u32::from(CPUS)).map(move |n| Wire::new(pins.clone(), 2 * n + which, 0)).collect()
        };
        let config =
            LapicConfig { cpus: CPUS, clock: Arc::new(clock.clone()), intr: pin(0), nmi: pin(1) };
        let apics = LocalApics::new(config);
        let pic = PicPair::new(Wire::new(apics.clone(), LINT0, 0));
        let ioapic = IoApic::new(apics.clone());
        apics.connect_pic(&pic);
        apics.connect_ioapic(&ioapic);
        let lines = Arc::new(Lines(pic.clone(), ioapic.clone()));
        let wire = |line| Wire::new(lines.clone(), line, 0);
        let devices: Vec<Box<dyn Device>> = vec![
            Box::new(Pit::new(wire(0))),
            Box::new(Rtc::new(RtcConfig::default(), wire(8))),
            Box::new(Serial::new(wire(4))),
            Box::new(I8042::new(wire(1), wire(12), Wire::open(), Wire::open())),
            Box::new(PicDevice(pic)),
            Box::new(IoApicDevice(ioapic)),
            Box::new(LapicDevice::new(apics.clone(), 0)),
        ];
        let (port, memory) = (BusSpace::Pio, BusSpace::Mmio);
        let places = vec![
            (port, 0x40, 4, 0, 0),
            (port, 0x70, 2, 0, 1),
            (port, 0x3f8, 8, 0, 2),
            (port, 0x60, 1, 0, 3),
            (port, 0x64, 1, 1, 3),
            (port, 0x20, 2, 0, 4),
            (port, 0xa0, 2, 1, 4),
            (port, 0x4d0, 2, 2, 4),
            (memory, 0xfec0_0000, 0x1000, 0, 5),
            (memory, 0xfee0_0000, 0x1000, 0, 6),
            (memory, 0xfee0_1000, 0xf_f000, 1, 6),
        ];
        Self { devices, places, pins, apics, clock, fault: |access| Some(access.value) }
    }

    /// One with a fault.
    pub fn faulty(fault: Fault) -> Self {
        Self { fault, ..Self::new() }
    }

    /// Runs a case of `module` as the runner does.
    pub fn run(&mut self, module: &dyn Module, name: &str) -> Outcome {
        let case = *module.cases().iter().find(|case| case.name == name).expect(name);
        assert!(self.capabilities().contains(case.needs), "{name}: {:?}", case.needs);
        let mut thread = TestThread::new(self, Options::default(), 1);
        module.init(&mut thread)?;
        (case.run)(&mut thread)?;
        module.cleanup(&mut thread)
    }

    fn run_due(&mut self) -> bool {
        let now = self.clock.now();
        let mut any = false;
        for device in &mut self.devices {
            if device.deadline().is_some_and(|deadline| deadline <= now) {
                device.run(now);
                any = true;
            }
        }
        any
    }

    fn access(&mut self, access: BusAccess) -> u64 {
        self.run_due();
        let now = self.clock.now();
        let BusAccess { addr, size, .. } = access;
        let found = self.places.iter().find_map(|(space, base, len, window, device)| {
            let offset = addr.checked_sub(*base)?;
            let inside = *space == access.space && offset + u64::from(size) <= *len;
            inside.then_some((offset, *window, *device))
        });
        let Some((offset, window, device)) = found else { panic!("nobody at {access:x?}") };
        let device = &mut self.devices[device];
        if !access.write {
            let value = device.read(window, offset, size, now);
            return (self.fault)(BusAccess { value, ..access }).unwrap_or(0);
        }
        if let Some(value) = (self.fault)(access) {
            device.write(window, offset, size, value, now);
        }
        0
    }
}

/// Every case of `module` passes: each on a board of its own, and all on one, twice.
pub fn all_pass(module: &dyn Module) {
    let mut shared = Board::new();
    for case in module.cases() {
        for board in [&mut Board::new(), &mut shared] {
            if let Err(stop) = board.run(module, case.name) {
                panic!("{}/{}: {stop:?}", module.name(), case.name);
            }
        }
    }
    for case in module.cases() {
        shared.run(module, case.name).expect(case.name);
    }
}

/// Each fault is found by its case, as a finding about the device.
pub fn all_found(module: &dyn Module, faults: &[(&str, Fault)]) {
    for (index, (case, fault)) in faults.iter().enumerate() {
        match Board::faulty(*fault).run(module, case) {
            Err(Stop::Failed(_)) => {}
            other => panic!("{}/{case} missed fault {index}: {other:?}", module.name()),
        }
    }
    let untested =
        module.cases().iter().filter(|c| !faults.iter().any(|(name, _)| *name == c.name));
    let untested: Vec<&str> = untested.map(|case| case.name).collect();
    assert!(untested.is_empty(), "no fault for {untested:?}");
}

impl Bus for Board {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        let (space, addr) = (BusSpace::Pio, port.into());
        self.access(BusAccess { space, write: false, addr, size, value: 0 }) as u32
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        let (space, addr, value) = (BusSpace::Pio, port.into(), value.into());
        self.access(BusAccess { space, write: true, addr, size, value });
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        let (space, addr) = (BusSpace::Mmio, addr.0);
        self.access(BusAccess { space, write: false, addr, size, value: 0 })
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        let (space, addr) = (BusSpace::Mmio, addr.0);
        self.access(BusAccess { space, write: true, addr, size, value });
    }
}

impl Interrupts for Board {
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>> {
        let line = match source {
            IrqSource::Intr { cpu } => 2 * usize::from(cpu),
            IrqSource::Nmi { cpu } => 2 * usize::from(cpu) + 1,
            other => return Err(Error::machine(format!("{other:?}"))),
        };
        let event = self.pins.0.get(line).ok_or_else(|| Error::machine("no such CPU"))?;
        Ok(event.get_or_init(|| Arc::new(IrqEvent::new().unwrap())).clone())
    }

    fn intx_level(&self, _irq: u32) -> bool {
        false
    }

    fn acknowledge(&mut self, cpu: u8) -> Option<u8> {
        self.run_due();
        self.apics.acknowledge(cpu)
    }
}

impl Machine for Board {
    fn name(&self) -> &str {
        "board"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::PIO | Capabilities::MMIO | Capabilities::CPU_IRQ | Capabilities::VIRTUAL_CLOCK
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Err(Error::machine("the board has no RAM"))
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        Ok(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    fn poll(&mut self) -> Result<bool> {
        Ok(self.run_due())
    }

    fn wait(&mut self, _fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        let own = self.devices.iter().filter_map(|device| device.deadline());
        let next =
            own.chain(deadline).min().ok_or_else(|| Error::machine("nothing to wait for"))?;
        self.clock.advance_to(next);
        self.run_due();
        Ok(())
    }
}
