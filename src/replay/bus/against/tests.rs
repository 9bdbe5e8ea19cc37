//! Comparisons of a machine with itself, and with one that is wrong on purpose.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::accepted;
use super::engine::{Duel, Outcome, Which};
use super::session;
use crate::base::{Clock, Error, GuestAddr, Nanos, Result, VirtualClock};
use crate::machine::builtin::{BuiltinMachine, Chips};
use crate::machine::obituary::End;
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, IrqEvent, IrqSource};
use crate::machine::{Machine, Obituary};
use crate::replay::bus::options::{Config, MMIO_TEST, Plan};
use crate::replay::bus::tally::Has;
use crate::trace::Trace;

/// What a wrong machine makes of a port's value.
type Lie = fn(port: u16, index: u32, value: u32) -> u32;

/// A builtin machine that lies, holds a line high, or dies at an access.
struct Wrong {
    inner: BuiltinMachine,
    index: u32,
    lie: Lie,
    high: Option<u32>,
    accesses: u32,
    dies_at: u32,
}

impl Wrong {
    fn new(inner: BuiltinMachine) -> Self {
        let lie = |_, _, value| value;
        Self { inner, index: 0, lie, high: None, accesses: 0, dies_at: u32::MAX }
    }

    fn is_dead(&self) -> bool {
        self.accesses >= self.dies_at
    }
}

impl Bus for Wrong {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        self.accesses += 1;
        if self.is_dead() {
            return u32::MAX;
        }
        let value = self.inner.bus().unwrap().pio_read(port, size);
        (self.lie)(port, self.index, value)
    }

    fn pio_write(&mut self, port: u16, size: u8, value: u32) {
        self.accesses += 1;
        if port == 0x70 {
            self.index = value & 0x7f;
        }
        self.inner.bus().unwrap().pio_write(port, size, value);
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        self.inner.bus().unwrap().mmio_read(addr, size)
    }

    fn mmio_write(&mut self, addr: GuestAddr, size: u8, value: u64) {
        self.inner.bus().unwrap().mmio_write(addr, size, value);
    }
}

impl Interrupts for Wrong {
    fn watch(&mut self, source: IrqSource) -> Result<Arc<IrqEvent>> {
        self.inner.interrupts()?.watch(source)
    }

    fn intx_level(&self, irq: u32) -> bool {
        self.high == Some(irq)
    }
}

impl Machine for Wrong {
    fn name(&self) -> &str {
        "wrong"
    }

    fn capabilities(&self) -> Capabilities {
        // Levels are compared only where both have them.
        let all = self.inner.capabilities();
        if self.high.is_some() { all } else { all - Capabilities::INTX }
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        match self.is_dead() {
            true => Err(Error::machine("it is dead")),
            false => Ok(self),
        }
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        self.inner.ram()
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        Ok(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }

    fn obituary(&self) -> Option<Obituary> {
        self.is_dead().then(|| Obituary {
            what: End::Exit { status: 1 },
            stderr: String::new(),
            last_commands: Vec::new(),
            command: "wrong".into(),
            program: "wrong".into(),
        })
    }

    fn poll(&mut self) -> Result<bool> {
        self.inner.poll()
    }

    fn wait(&mut self, fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.inner.wait(fds, deadline)
    }
}

fn entries() -> Vec<accepted::Entry> {
    accepted::entries(None, ["builtin", "qemu"])
}

fn seabios(options: &str) -> (Trace, Config, Plan) {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/traces/seabios-pc.qtrace"));
    let text = format!(
        "tracefile={},ram=64M,disks=16M,disk_slot=2,chips=full-serial{options}",
        path.display()
    );
    let trace = Trace::open(&path).unwrap();
    let config = Config::parse(MMIO_TEST, &[text]).unwrap();
    let plan = config.plan(&trace).unwrap();
    (trace, config, plan)
}

/// The builtin machine against what `wrong` makes of another.
fn duel(options: &str, wrong: impl FnOnce(Wrong) -> Wrong) -> Outcome {
    let (trace, config, plan) = seabios(options);
    let build = || plan.machine.build(Arc::new(VirtualClock::new())).unwrap();
    let (mut first, mut second) = (build(), wrong(Wrong::new(build())));
    let entries = if config.accepts() { entries() } else { Vec::new() };
    let rules = config.rules_against(session::rules(&entries).map(|(_, rule)| rule)).unwrap();
    let has = Has { chips: Chips::all(), disks: true, others: false };
    let stop = AtomicBool::new(false);
    let duel = Duel::new(&trace, (&plan, rules, has), [&mut first, &mut second], &stop).unwrap();
    duel.run(&mut |_| ()).unwrap()
}

#[test]
fn a_machine_is_like_itself_to_the_last_counter() {
    let outcome = duel("", |second| second);
    let (both, _) = outcome.tally.reads();
    assert_eq!((both.reads, both.equal), (537, 537));
    assert_eq!((outcome.other_checks.1, outcome.allowed.len()), (0, 0));
    assert!(outcome.died.is_none() && !outcome.interrupted);
}

#[test]
fn one_wrong_register_is_one_group() {
    let lie: Lie = |port, index, value| match (port, index) {
        (0x71, 0x0f) => value ^ 0x80,
        _ => value,
    };
    let outcome = duel("", |second| Wrong { lie, ..second });
    assert_eq!(outcome.tally.reads().0.different, 2, "it is read twice");
    let (_, groups, _) = outcome.tally.finish();
    let group = &groups[0];
    assert_eq!((group.region.as_str(), group.register.as_str(), group.count), ("rtc", "[0f]", 2));
    let first = &group.first[0];
    assert_eq!((first.expected.as_str(), first.got.as_str()), ("0x00", "0x80"));
}

#[test]
fn what_is_accepted_is_counted_apart_and_only_that() {
    let floppies: Lie =
        |port, index, value| if (port, index) == (0x71, 0x10) { value ^ 0xff } else { value };
    let outcome = duel("", |second| Wrong { lie: floppies, ..second });
    assert_eq!(outcome.tally.reads().0.different, 0);
    let entries = entries();
    let allowed: Vec<(&str, u64)> = outcome
        .allowed
        .iter()
        .map(|(number, allowed)| (session::rules(&entries).nth(*number).unwrap().1, allowed.count))
        .collect();
    assert_eq!(allowed, [("rtc[10]:ignore", 1)]);
    let strict = duel(",defaults=off", |second| Wrong { lie: floppies, ..second });
    assert_eq!((strict.tally.reads().0.different, strict.allowed.len()), (1, 0));
    let told = duel(",defaults=off,policy=rtc:ignore", |second| Wrong { lie: floppies, ..second });
    assert_eq!((told.tally.reads().0.different, told.allowed.len()), (0, 1));
}

#[test]
fn levels_of_lines_are_compared_when_they_change() {
    let outcome = duel("", |second| Wrong { high: Some(11), ..second });
    assert_eq!(outcome.other_checks.1, 1, "line 11 is high from the first look on");
    let (_, groups, _) = outcome.tally.finish();
    let names = |g: &crate::report::bus::MismatchReport| (g.region.clone(), g.register.clone());
    let wanted = ("interrupts".to_owned(), "intx-level 0xb".to_owned());
    assert!(groups.iter().any(|group| names(group) == wanted));
    // Line 14 is a disk's that this machine has not.
    let outcome = duel("", |second| Wrong { high: Some(14), ..second });
    assert_eq!(outcome.other_checks.1, 0);
}

#[test]
fn the_end_of_one_of_them_ends_it_and_is_told() {
    let outcome = duel("", |second| Wrong { dies_at: 1_000, ..second });
    let (which, event, obituary) = outcome.died.unwrap();
    assert_eq!((which, obituary.what), (Which::Second, End::Exit { status: 1 }));
    assert!(event > 0 && outcome.done.events <= event + 1);
    assert_eq!(outcome.tally.reads().0.different, 0, "what a dead machine answers is nothing");
}
