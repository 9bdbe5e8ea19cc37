//! For the tests of the interrupt controllers' modules: builtin machines with two CPUs, and with a
//! fault between the CPU and the chips.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::{Module, Outcome, Stop, TestThread};
use crate::base::bus::{BusAccess, BusSpace};
use crate::base::options::Options;
use crate::base::{Clock, GuestAddr, Nanos, Result, VirtualClock};
use crate::machine::builtin::{Board, BuiltinConfig, BuiltinMachine, Chips};
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, Machine};

/// What is wrong with a machine: the value that an access carries instead of its own. A write
/// without one is lost, a read gives 0.
pub type Fault = fn(BusAccess) -> Option<u64>;

/// A machine whose bus may lie.
struct Faulty {
    machine: BuiltinMachine,
    fault: Fault,
}

impl Faulty {
    fn new(board: Board, chips: Chips, fault: Fault) -> Self {
        let config = BuiltinConfig {
            ram_bytes: 1 << 20,
            clock: Arc::new(VirtualClock::new()),
            board,
            chips,
            cpus: 2,
            ..BuiltinConfig::default()
        };
        Self { machine: BuiltinMachine::new(config).unwrap(), fault }
    }

    /// Runs a case of `module` as the runner does.
    fn run(&mut self, module: &dyn Module, name: &str) -> Outcome {
        let case = *module.cases().iter().find(|case| case.name == name).expect(name);
        assert!(self.capabilities().contains(case.needs), "{name}: {:?}", case.needs);
        let mut thread = TestThread::new(self, Options::default(), 1);
        module.init(&mut thread)?;
        (case.run)(&mut thread)?;
        module.cleanup(&mut thread)
    }

    fn read(&mut self, space: BusSpace, addr: u64, size: u8, value: u64) -> u64 {
        (self.fault)(BusAccess { space, write: false, addr, size, value }).unwrap_or(0)
    }

    fn write(&mut self, space: BusSpace, addr: u64, size: u8, value: u64) -> Option<u64> {
        (self.fault)(BusAccess { space, write: true, addr, size, value })
    }
}

/// Every case of `module` passes: on a minimal machine; on one of the chips it needs and no other,
/// but for those of `skips`; and all of them, twice, on one full machine of each board.
pub fn all_pass(module: &dyn Module, skips: &[&str]) {
    let right: Fault = |access| Some(access.value);
    for case in module.cases() {
        let run = |chips| Faulty::new(Board::Pc, chips, right).run(module, case.name);
        let (minimal, needed) = (run(module.minimal_chips()), run(module.chips()));
        let what = format!("{}/{}", module.name(), case.name);
        assert!(minimal.is_ok(), "{what}: {minimal:?}");
        match skips.contains(&case.name) {
            true => assert!(matches!(needed, Err(Stop::Skipped(_))), "{what}: {needed:?}"),
            false => assert!(needed.is_ok(), "{what}: {needed:?}"),
        }
    }
    for board in [Board::Pc, Board::Q35] {
        let mut machine = Faulty::new(board, Chips::FULL, right);
        for case in module.cases().iter().chain(module.cases()) {
            let outcome = machine.run(module, case.name);
            let (board, module) = (board.name(), module.name());
            assert!(outcome.is_ok(), "{module}/{} on {board}: {outcome:?}", case.name);
        }
    }
}

/// Each fault is found by its case, as a finding about the device, on a minimal machine and, but for
/// cases of `skips`, on one of the chips that the module needs; and each case finds one.
pub fn all_found(module: &dyn Module, skips: &[&str], faults: &[(&str, Fault)]) {
    for (index, (case, fault)) in faults.iter().enumerate() {
        let needed = Some(module.chips()).filter(|_| !skips.contains(case));
        for chips in std::iter::once(module.minimal_chips()).chain(needed) {
            match Faulty::new(Board::Pc, chips, *fault).run(module, case) {
                Err(Stop::Failed(_)) => {}
                other => {
                    let module = module.name();
                    panic!("{module}/{case} missed fault {index} with {chips:?}: {other:?}")
                }
            }
        }
    }
    let found = |name| faults.iter().any(|(case, _)| *case == name);
    let without = module.cases().iter().filter(|case| !found(case.name));
    let without: Vec<&str> = without.map(|case| case.name).collect();
    assert!(without.is_empty(), "no fault for {without:?}");
}

impl Bus for Faulty {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        let value = self.machine.bus().unwrap().pio_read(port, size);
        self.read(BusSpace::Pio, port.into(), size, value.into()) as u32
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        if let Some(value) = self.write(BusSpace::Pio, port.into(), size, value.into()) {
            self.machine.bus().unwrap().pio_write(port, size, value as u32);
        }
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        let value = self.machine.bus().unwrap().mmio_read(addr, size);
        self.read(BusSpace::Mmio, addr.0, size, value)
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        if let Some(value) = self.write(BusSpace::Mmio, addr.0, size, value) {
            self.machine.bus().unwrap().mmio_write(addr, size, value);
        }
    }
}

impl Machine for Faulty {
    fn name(&self) -> &str {
        self.machine.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.machine.capabilities()
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        self.machine.ram()
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        self.machine.interrupts()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.machine.clock()
    }

    fn poll(&mut self) -> Result<bool> {
        self.machine.poll()
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.machine.wait(fds, deadline)
    }
}
