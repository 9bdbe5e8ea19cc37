use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::Pci;
use crate::base::options::Options;
use crate::base::{BusAccess, BusSpace, Clock, GuestAddr, Nanos, Result, VirtualClock};
use crate::image;
use crate::machine::builtin::{Board, BuiltinConfig, BuiltinMachine, Chips, DiskConfig};
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, Machine};
use crate::suite::{Module, Outcome, Stop, TestThread};

fn builtin(board: Board) -> BuiltinMachine {
    BuiltinMachine::new(BuiltinConfig {
        ram_bytes: 1 << 20,
        clock: Arc::new(VirtualClock::new()),
        board,
        chips: Chips::SOUTH_BRIDGE,
        disks: vec![DiskConfig::new(image::mem(1 << 20))],
        ..BuiltinConfig::default()
    })
    .unwrap()
}

fn run(machine: &mut dyn Machine, case: &str) -> Outcome {
    let case = Pci.cases().iter().find(|found| found.name == case).unwrap();
    let mut thread = TestThread::new(machine, Options::default(), 1);
    Pci.init(&mut thread)?;
    (case.run)(&mut thread)?;
    Pci.cleanup(&mut thread)
}

#[test]
fn every_case_passes_on_both_boards() {
    for board in [Board::Pc, Board::Q35] {
        let mut shared = builtin(board);
        for case in Pci.cases() {
            for machine in [&mut builtin(board), &mut shared] {
                match run(machine, case.name) {
                    Ok(()) => {}
                    Err(Stop::Skipped(reason)) => {
                        assert_eq!((board, case.name), (Board::Pc, "ecam"), "{reason}");
                    }
                    Err(stop) => panic!("{board:?} {}: {stop:?}", case.name),
                }
            }
        }
    }
}

/// What a wrong machine makes of an access whose `value` is right: the value read, or written.
/// `config` is the configuration register that it reaches: bus/device/function and offset.
type Lie = fn(&BusAccess, Option<(u16, u16)>) -> u64;

/// A machine that lies about some accesses.
struct Wrong {
    inner: BuiltinMachine,
    lie: Lie,
    address: u32,
}

impl Wrong {
    fn change(&self, write: bool, space: BusSpace, addr: u64, size: u8, value: u64) -> u64 {
        let data = space == BusSpace::Pio && (0xcfc..0xd00).contains(&addr);
        let offset = (self.address as u16 & 0xfc) + (addr as u16 & 3);
        let config = data.then_some(((self.address >> 8) as u16, offset));
        (self.lie)(&BusAccess { space, write, addr, size, value }, config) & BusAccess::ones(size)
    }
}

impl Bus for Wrong {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        let value = self.inner.bus().unwrap().pio_read(port, size);
        self.change(false, BusSpace::Pio, port.into(), size, value.into()) as u32
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        if port == 0xcf8 && size == 4 {
            self.address = value;
        }
        let value = self.change(true, BusSpace::Pio, port.into(), size, value.into());
        self.inner.bus().unwrap().pio_write(port, size, value as u32);
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        let value = self.inner.bus().unwrap().mmio_read(addr, size);
        self.change(false, BusSpace::Mmio, addr.0, size, value)
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        let value = self.change(true, BusSpace::Mmio, addr.0, size, value);
        self.inner.bus().unwrap().mmio_write(addr, size, value);
    }
}

impl Machine for Wrong {
    fn name(&self) -> &str {
        "wrong"
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        self.inner.ram()
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        self.inner.interrupts()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }

    fn poll(&mut self) -> Result<bool> {
        self.inner.poll()
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.inner.wait(fds, deadline)
    }
}

/// The disk, which is at 00:04.0.
const DISK: u16 = 4 << 3;

#[test]
fn each_fault_is_caught_by_its_case() {
    let faults: [(&str, Lie, &str); 13] = [
        // Revision 0 of the host bridge.
        (
            "enumerate",
            |a, c| if c == Some((0, 8)) { a.value & !0xff } else { a.value },
            "class and revision",
        ),
        // A port that floats low.
        ("unassigned", |a, _| if a.addr == 0xe60 { 0 } else { a.value }, "port"),
        ("unassigned-memory", |a, _| if a.addr == 0xfe7f_f000 { 0 } else { a.value }, "address"),
        // Function 0 in place of the disk's function 1.
        (
            "functions",
            |a, c| if c == Some((DISK | 1, 0)) { 0x1af4 } else { a.value },
            "only function",
        ),
        // CF8 that forgets bus numbers.
        (
            "config-address",
            |a, _| if a.addr == 0xcf8 && !a.write { a.value & 0xff00_ffff } else { a.value },
            "CF8 holds",
        ),
        // Bytes of CFC are always the lowest.
        (
            "config-data",
            |a, c| match c {
                Some((0, at)) if at & 3 != 0 && a.size == 1 => 0,
                _ => a.value,
            },
            "of 00:00.0",
        ),
        (
            "ecam",
            |a, _| if a.space == BusSpace::Mmio && a.size == 1 { a.value ^ 1 } else { a.value },
            "by memory",
        ),
        (
            "read-only",
            |a, c| if c == Some((DISK, 0x2c)) && a.size == 4 { writable_id(a) } else { a.value },
            "at 0x2c",
        ),
        (
            "command",
            |a, c| if c == Some((DISK, 4)) && !a.write { a.value | 0x8000 } else { a.value },
            "reserved command",
        ),
        // Every capability points to 40h: a circle.
        (
            "capabilities",
            |a, c| match c {
                Some((DISK, at)) if at >= 0x40 && at & 3 == 0 && a.size == 2 => {
                    a.value & 0xff | 0x4000
                }
                _ => a.value,
            },
            "capabilities of",
        ),
        // Memory BAR 1 with an address bit that does not hold.
        (
            "bar-sizing",
            |a, c| {
                if c == Some((DISK, 0x14)) && a.size == 4 && a.value == 0xaaaa_a000 {
                    0x2aaa_a000
                } else {
                    a.value
                }
            },
            "BAR 1",
        ),
        // Command bits that do nothing: they are always on.
        (
            "bar-decode",
            |a, c| if a.write && c == Some((DISK, 4)) { a.value | 3 } else { a.value },
            "answers, enabled: false",
        ),
        // Vectors that forget their mask.
        (
            "msix",
            |a, _| {
                if a.space == BusSpace::Mmio && !a.write && a.addr & 15 == 12 { 0 } else { a.value }
            },
            "masked",
        ),
    ];
    for (case, lie, what) in faults {
        let board = if case == "ecam" { Board::Q35 } else { Board::Pc };
        let mut machine = Wrong { inner: builtin(board), lie, address: 0 };
        match run(&mut machine, case) {
            Err(Stop::Failed(finding)) => {
                assert!(finding.what.contains(what), "{case}: {}", finding.what);
            }
            other => panic!("{case} missed the fault: {other:?}"),
        }
    }
}

/// A subsystem id that software can write.
fn writable_id(access: &BusAccess) -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    if access.write {
        WRITTEN.store(access.value, Ordering::Relaxed);
    }
    match WRITTEN.load(Ordering::Relaxed) {
        0 => access.value,
        written => written,
    }
}
