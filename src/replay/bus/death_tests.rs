//! A machine that comes to its end in the middle of a trace.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::options::{Config, MMIO_TEST};
use super::session;
use super::tally::Has;
use crate::base::{Clock, Error, GuestAddr, Nanos, Result, VirtualClock};
use crate::machine::obituary::End;
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, Machine, Obituary};
use crate::report::bus::BusReport;
use crate::report::{bus_text, json};
use crate::trace::{
    BusEvent, Event, StreamId, StreamInfo, Trace, TraceHeader, TraceSummary, TraceWriter,
};

/// Ports read 7 until it is gone, and all ones then: a dead process drives no bus.
struct Mortal {
    clock: VirtualClock,
    accesses: u32,
    dies_at: u32,
    at_quit: bool,
    dead: bool,
}

impl Mortal {
    fn access(&mut self) -> bool {
        self.accesses += 1;
        self.dead |= self.accesses == self.dies_at;
        !self.dead
    }
}

impl Bus for Mortal {
    fn pio_read(&mut self, _port: u16, size: u8) -> u32 {
        if self.access() { 7 } else { u32::MAX >> (32 - 8 * u32::from(size)) }
    }

    fn pio_write(&mut self, _port: u16, _size: u8, _value: u32) {
        self.access();
    }

    fn mmio_read(&mut self, _addr: GuestAddr, _size: u8) -> u64 {
        self.access();
        0
    }

    fn mmio_write(&mut self, _addr: GuestAddr, _size: u8, _value: u64) {
        self.access();
    }
}

impl Machine for Mortal {
    fn name(&self) -> &str {
        "mortal"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::PIO
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        match self.dead {
            true => Err(Error::machine("it is dead")),
            false => Ok(self),
        }
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Err(Error::machine("no memory"))
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        Err(Error::machine("no interrupts"))
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    fn obituary(&self) -> Option<Obituary> {
        self.dead.then(|| Obituary {
            program: "QEMU".to_owned(),
            what: End::Signal { number: 6, name: "SIGABRT".into() },
            stderr: "assertion failed\n".into(),
            last_commands: vec![("outb 0x80 0x1".into(), true), ("inb 0x80".into(), false)],
            command: "mortal -M pc".into(),
        })
    }

    fn poll(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn wait(&mut self, _fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.clock.advance_to(deadline.unwrap());
        Ok(())
    }

    fn quit(&mut self) -> Result<()> {
        self.dead |= self.at_quit;
        self.bus().map(|_| ())
    }
}

/// Ten writes, each followed by a read of 7.
fn record(path: &Path) {
    use crate::base::{BusAccess, BusSpace};
    let mut writer = TraceWriter::create(path, TraceHeader::default()).unwrap();
    let port = StreamInfo { device: "port".into(), ..StreamInfo::default() };
    writer.stream(port).unwrap();
    for number in 0..20 {
        let (write, value) = (number % 2 == 0, 7);
        let access = BusAccess { space: BusSpace::Pio, write, addr: 0x80, size: 1, value };
        let time = Nanos(number * 1_000);
        let event = BusEvent { time, stream: StreamId(0), access, cpu: None };
        writer.event(&Event::Bus(event)).unwrap();
    }
    writer.finish(TraceSummary::default()).unwrap();
}

fn replay(dies_at: u32, at_quit: bool) -> BusReport {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    record(&path);
    let trace = Trace::open(&path).unwrap();
    let options = format!("tracefile={},fail_below=0", path.display());
    let plan = Config::parse(MMIO_TEST, &[options]).unwrap().plan(&trace).unwrap();
    let clock = VirtualClock::new();
    let mut mortal = Mortal { clock, accesses: 0, dies_at, at_quit, dead: false };
    let stop = AtomicBool::new(false);
    session::replay(&trace, &plan, Has::ALL, &mut mortal, &stop, &mut |_, _| ()).unwrap()
}

#[test]
fn a_machine_that_dies_is_a_finding_whatever_share_may_be_wrong() {
    // At a read (event 7) and at a write (event 8), which the next event tells of.
    for (dies_at, event, reads) in [(8, 7, 3), (9, 9, 4)] {
        let report = replay(dies_at, false);
        let death = report.died.as_ref().unwrap();
        assert_eq!((death.event, report.done.reads), (event, reads));
        assert_eq!((report.verdict.divergences, report.verdict.pass), (1, false));
        assert_eq!(report.mismatches, [], "what a dead machine reads as is no mismatch");
        assert!(!report.complete);
        assert_eq!(session::exit_code(&report), 1);
        let text = bus_text::render(&report);
        for part in ["machine_died: at event", "SIGABRT", "inb 0x80", "assertion", "mortal -M pc"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = json::to_text(&report).unwrap();
        assert_eq!(serde_json::from_str::<BusReport>(&text).unwrap(), report);
    }
}

#[test]
fn a_machine_that_dies_after_its_last_answer_has_not_survived() {
    let report = replay(u32::MAX, true);
    assert_eq!(report.died.as_ref().unwrap().event, 19);
    assert_eq!(session::exit_code(&report), 1);
    assert_eq!(session::exit_code(&replay(u32::MAX, false)), 0);
}
