//! Replays on a toy whose every answer is known.

mod interrupts;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::options::{Config, MMIO_TEST, PORT_TEST, Plan};
use super::session;
use super::tally::Has;
use crate::base::{
    BusAccess, BusSpace, Clock, ErrorKind, GuestAddr, Nanos, Prng, Result, VirtualClock,
};
use crate::machine::{Bus, Capabilities, GuestRam, Interrupts, IrqEvent, IrqSource, Machine};
use crate::report::bus::{BusReport, Mismatch, MismatchReport};
use crate::report::bus_text;
use crate::trace::{
    AckEvent, BusEvent, ClockStep, Event, IrqChange, MemoryEvent, MemoryOp, NotRecorded,
    PayloadRef, StreamId, StreamInfo, Trace, TraceHeader, TraceSummary, TraceWriter,
};

/// Ports hold what was written to them, but: 40h counts microseconds, a write to 99h fires
/// interrupt 5 and holds its line at bit 0, 9ah writes a byte to memory. Memory-mapped registers
/// read as their address.
struct Toy {
    clock: VirtualClock,
    ram: Arc<GuestRam>,
    ports: Vec<u8>,
    irq: Option<Arc<IrqEvent>>,
    polls: u64,
}

impl Toy {
    fn new() -> Self {
        let ram = Arc::new(GuestRam::new(1 << 20).unwrap());
        let clock = VirtualClock::new();
        Self { clock, ram, ports: vec![0; 1 << 16], irq: None, polls: 0 }
    }
}

impl Bus for Toy {
    fn pio_read(&mut self, port: u16, size: u8) -> u32 {
        let value = match port {
            0x40 => (self.clock.now().0 / 1000) as u32,
            port => u32::from(self.ports[usize::from(port)]),
        };
        value & BusAccess::ones(size) as u32
    }

    fn pio_write(&mut self, port: u16, _size: u8, value: u32) {
        self.ports[usize::from(port)] = value as u8;
        if port == 0x99
            && let Some(irq) = &self.irq
        {
            irq.signal();
        }
        if port == 0x9a {
            self.ram.write(GuestAddr(0x2000), &[value as u8]);
        }
    }

    fn mmio_read(&mut self, addr: GuestAddr, size: u8) -> u64 {
        addr.0 & BusAccess::ones(size)
    }

    fn mmio_write(&mut self, addr: GuestAddr, _size: u8, value: u64) {
        self.ports[addr.0 as usize & 0xffff] = value as u8;
    }
}

impl Interrupts for Toy {
    fn watch(&mut self, _source: IrqSource) -> Result<Arc<IrqEvent>> {
        let event = Arc::new(IrqEvent::new().unwrap());
        self.irq = Some(Arc::clone(&event));
        Ok(event)
    }

    fn intx_level(&self, _irq: u32) -> bool {
        self.ports[0x99] & 1 != 0
    }

    fn acknowledge(&mut self, cpu: u8) -> Option<u8> {
        (self.ports[0x99] != 0).then_some(0x20 + cpu)
    }
}

impl Machine for Toy {
    fn name(&self) -> &str {
        "toy"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
    }

    fn bus(&mut self) -> Result<&mut dyn Bus> {
        Ok(self)
    }

    fn ram(&self) -> Result<Arc<GuestRam>> {
        Ok(Arc::clone(&self.ram))
    }

    fn interrupts(&mut self) -> Result<&mut dyn Interrupts> {
        Ok(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    fn poll(&mut self) -> Result<bool> {
        self.polls += 1;
        Ok(false)
    }

    fn wait(&mut self, _fds: &[BorrowedFd<'_>], deadline: Option<Nanos>) -> Result<()> {
        self.clock.advance_to(deadline.unwrap());
        Ok(())
    }
}

/// A trace being made up.
struct Script {
    dir: tempfile::TempDir,
    writer: TraceWriter,
    time: u64,
    lacks: NotRecorded,
}

const STREAMS: [&str; 7] = ["rtc", "port", "memory", "ioapic", "intx", "ide", "mmio"];

impl Script {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let header = TraceHeader { source_format: "made up".into(), ..TraceHeader::default() };
        let mut writer = TraceWriter::create(&dir.path().join("t"), header).unwrap();
        for device in STREAMS {
            let device = device.to_owned();
            writer.stream(StreamInfo { device, ..StreamInfo::default() }).unwrap();
        }
        Self { dir, writer, time: 0, lacks: NotRecorded::empty() }
    }

    fn stream(name: &str) -> StreamId {
        StreamId(STREAMS.iter().position(|known| *known == name).unwrap() as u32)
    }

    fn event(&mut self, event: Event) {
        self.writer.event(&event).unwrap();
    }

    fn port(&mut self, stream: &str, write: bool, addr: u64, value: u64) {
        let access = BusAccess { space: BusSpace::Pio, write, addr, size: 1, value };
        let (time, stream) = (Nanos(self.time), Self::stream(stream));
        self.event(Event::Bus(BusEvent { time, stream, access, cpu: None }));
    }

    fn out(&mut self, port: u64, value: u64) {
        self.port("port", true, port, value);
    }

    fn expect(&mut self, port: u64, value: u64) {
        self.port("port", false, port, value);
    }

    fn irq(&mut self, stream: &str, line: u32, high: bool) {
        let (time, stream) = (Nanos(self.time), Self::stream(stream));
        self.event(Event::Irq(IrqChange { time, stream, line, high }));
    }

    fn memory(&mut self, op: MemoryOp, addr: u64, bytes: &[u8]) {
        let payload = match op {
            MemoryOp::Fill => PayloadRef::Absent,
            MemoryOp::Write | MemoryOp::Read => self.writer.payload(bytes).unwrap(),
        };
        let (time, stream) = (Nanos(self.time), Self::stream("memory"));
        let (len, fill) = (bytes.len() as u64, if op == MemoryOp::Fill { bytes[0] } else { 0 });
        self.event(Event::Memory(MemoryEvent { time, stream, op, addr, len, fill, payload }));
    }

    fn finish(self) -> (tempfile::TempDir, PathBuf) {
        let summary = TraceSummary { not_recorded: self.lacks, ..TraceSummary::default() };
        self.writer.finish(summary).unwrap();
        let path = self.dir.path().join("t");
        (self.dir, path)
    }

    fn replay(self, test: &'static str, options: &str) -> (BusReport, Toy) {
        let (_dir, path) = self.finish();
        replay(&path, test, options)
    }
}

fn plan(path: &Path, test: &'static str, options: &str) -> (Trace, Plan) {
    let text = format!("tracefile={},{options}", path.display());
    let trace = Trace::open(path).unwrap();
    let plan = Config::parse(test, &[text]).and_then(|config| config.plan(&trace)).unwrap();
    (trace, plan)
}

/// What a machine built for the plan would have.
fn has(plan: &Plan) -> Has {
    let disks = !plan.machine.disks.is_empty();
    if plan.tap { Has::ALL } else { Has { chips: plan.machine.chips, disks, others: false } }
}

fn replay(path: &Path, test: &'static str, options: &str) -> (BusReport, Toy) {
    let (trace, plan) = plan(path, test, options);
    let mut toy = Toy::new();
    let report = session::replay(
        &trace,
        &plan,
        has(&plan),
        &mut toy,
        &AtomicBool::new(false),
        &mut |_, _| (),
    )
    .unwrap();
    (report, toy)
}

fn mismatch(event: u64, time_ns: u64, expected: &str, got: &str) -> Mismatch {
    Mismatch { event, time_ns, expected: expected.to_owned(), got: got.to_owned() }
}

#[test]
fn writes_are_made_and_reads_compared_and_grouped() {
    let mut script = Script::new();
    script.out(0x300, 7);
    script.expect(0x300, 7);
    for value in 8..13 {
        script.time = value * 100;
        script.expect(0x300, value);
    }
    script.expect(0x301, 1);
    let (report, _) = script.replay(MMIO_TEST, "");
    let first = [(2, 800, "0x08"), (3, 900, "0x09"), (4, 1000, "0x0a")];
    let first = first.map(|(event, time, want)| mismatch(event, time, want, "0x07")).to_vec();
    let (region, register) = ("port".to_owned(), "+300".to_owned());
    assert_eq!(report.mismatches[0], MismatchReport { region, register, count: 5, first });
    assert_eq!(report.mismatches[1].first, [mismatch(7, 1200, "0x01", "0x00")]);
    assert_eq!((report.verdict.checks, report.verdict.divergences), (7, 6));
    assert_eq!((report.modelled.equal, report.modelled.different), (1, 6));
    assert_eq!(report.verdict.right_ppm, 142_857);
    let text = bus_text::render(&report);
    assert!(text.contains("port +300: different 5 times"), "{text}");
    assert!(text.contains("event 3, 900 ns: expected 0x09, got 0x07"), "{text}");
    assert!(text.contains("FAIL: 6 divergences"), "{text}");
    assert_eq!(session::exit_code(&report), 1);
}

#[test]
fn a_share_may_be_enough() {
    let script = || {
        let mut script = Script::new();
        script.expect(0x300, 1);
        (0..3).for_each(|_| script.expect(0x300, 0));
        script
    };
    for (options, pass) in [("fail_below=75", true), ("fail_below=75.0001", false), ("", false)] {
        let (report, _) = script().replay(MMIO_TEST, options);
        assert_eq!((report.verdict.pass, report.verdict.divergences), (pass, 1), "{options}");
    }
}

#[test]
fn policies_say_what_is_equal() {
    let script = || {
        let mut script = Script::new();
        script.out(0x300, 0x5a);
        script.expect(0x300, 0x5b);
        script
    };
    for (policy, want) in [
        ("exact", (0, 0, 1)),
        ("mask=f0", (1, 0, 0)),
        ("mask=1", (0, 0, 1)),
        ("ignore", (0, 1, 0)),
        ("poll=1us", (0, 0, 1)),
    ] {
        let (report, _) = script().replay(MMIO_TEST, &format!("policy=port+300:{policy}"));
        let counts = report.modelled;
        assert_eq!((counts.within, counts.ignored, counts.different), want, "{policy}");
        assert_eq!(counts.reads, 1);
    }
}

#[test]
fn a_poll_ends_as_soon_as_the_value_is_there_or_the_time_is_up() {
    let script = |value| {
        let mut script = Script::new();
        script.time = 5_000;
        script.expect(0x40, value);
        script
    };
    let poll = "policy=pit:poll=100us,defaults=off";
    let (report, toy) = script(50).replay(MMIO_TEST, poll);
    assert_eq!((report.modelled.within, report.verdict.divergences), (1, 0));
    assert_eq!(toy.clock.now().0 / 1000, 50);
    let (report, toy) = script(200).replay(MMIO_TEST, poll);
    assert_eq!(report.verdict.divergences, 1);
    assert_eq!(toy.clock.now(), Nanos(105_000));
}

#[test]
fn time_passes_as_recorded_or_as_told() {
    let script = || {
        let mut script = Script::new();
        script.time = 3_000;
        script.expect(0x40, 3);
        script.time = 9_000;
        script.expect(0x40, 9);
        script
    };
    let (report, _) = script().replay(MMIO_TEST, "defaults=off");
    assert_eq!((report.verdict.divergences, report.duration_ns), (0, 9_000));
    let (report, _) = script().replay(MMIO_TEST, "defaults=off,time=2us");
    assert_eq!((report.verdict.divergences, report.duration_ns), (2, 4_000));
    let mut untimed = script();
    untimed.lacks = NotRecorded::TIMES;
    let (_dir, path) = untimed.finish();
    assert_eq!(replay(&path, MMIO_TEST, "").0.duration_ns, 2_000);
    let text = format!("tracefile={},time=recorded", path.display());
    let config = Config::parse(MMIO_TEST, &[text]).unwrap();
    let error = config.plan(&Trace::open(&path).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
}

#[test]
fn clock_steps_move_the_clock_and_a_step_of_nothing_is_a_poll() {
    let mut script = Script::new();
    let stream = Script::stream("port");
    for (time, to) in [(0, 7_000), (7_000, 7_000)] {
        let (time, to) = (Nanos(time), Nanos(to));
        script.event(Event::Clock(ClockStep { time, stream, to }));
    }
    let (report, toy) = script.replay(MMIO_TEST, "");
    assert_eq!((report.done.steps, toy.polls, toy.clock.now()), (2, 1, Nanos(7_000)));
}

#[test]
fn guest_memory_is_written_and_compared_inside_ram_and_outside() {
    let mut script = Script::new();
    script.memory(MemoryOp::Write, 0x1000, &[1, 2, 3]);
    script.memory(MemoryOp::Fill, 0x1001, &[9, 9]);
    script.memory(MemoryOp::Read, 0x1000, &[1, 9, 9, 0]);
    script.memory(MemoryOp::Read, 0x1000, &[1, 9, 8, 0]);
    script.memory(MemoryOp::Write, (1 << 20) - 1, &[5, 6, 7]);
    script.expect(0, 6);
    // Registers read as their address.
    script.memory(MemoryOp::Read, (1 << 20) + 4, &[4, 0, 16, 0]);
    let (report, toy) = script.replay(MMIO_TEST, "");
    let mut bytes = [0; 3];
    toy.ram.read(GuestAddr(0x1000), &mut bytes);
    assert_eq!(bytes, [1, 9, 9]);
    assert_eq!((report.done.memory_writes, report.done.memory_checks), (3, 3));
    let [group] = report.mismatches.as_slice() else { panic!("{:?}", report.mismatches) };
    assert_eq!((group.region.as_str(), group.register.as_str()), ("memory", "0x1000, 4 bytes"));
    assert_eq!(group.first, [mismatch(3, 0, "08 00 at 0x1002", "09 00 at 0x1002")]);
}

#[test]
fn a_huge_range_outside_ram_is_left_out() {
    let mut script = Script::new();
    let (time, stream, op) = (Nanos(0), Script::stream("memory"), MemoryOp::Fill);
    let (len, payload) = (1 << 50, PayloadRef::Absent);
    let event = MemoryEvent { time, stream, op, addr: 0, len, fill: 1, payload };
    script.event(Event::Memory(event));
    let (report, _) = script.replay(MMIO_TEST, "");
    assert_eq!((report.done.left_out, report.done.memory_writes), (1, 0));
}

#[test]
fn what_is_not_modelled_is_apart_and_no_part_of_the_verdict() {
    let mut script = Script::new();
    script.port("ide", false, 0x1f7, 0x50);
    script.port("rtc", false, 0x71, 0);
    let (report, _) = script.replay(MMIO_TEST, "defaults=off");
    assert_eq!((report.foreign.different, report.modelled.equal), (1, 1));
    assert!(report.verdict.pass && report.mismatches.is_empty());
    assert_eq!(report.verdict.equal_ppm, 500_000);
    let ide = report.regions.iter().find(|region| region.name == "ide").unwrap();
    assert!(!ide.modelled && ide.device.is_empty());
    let mut script = Script::new();
    script.port("rtc", false, 0x71, 1);
    let (report, _) = script.replay(MMIO_TEST, "chips=full-rtc,defaults=off");
    assert_eq!((report.foreign.different, report.verdict.checks), (1, 0));
    assert_eq!(session::exit_code(&report), 4);
    assert!(bus_text::render(&report).contains("NOTHING CHECKED"));
}

#[test]
fn port_trace_leaves_memory_mapped_registers_out() {
    let script = || {
        let mut script = Script::new();
        let (time, stream) = (Nanos(0), Script::stream("mmio"));
        let (space, addr) = (BusSpace::Mmio, 0xfeb0_0000);
        let access = BusAccess { space, write: false, addr, size: 4, value: 1 };
        script.event(Event::Bus(BusEvent { time, stream, access, cpu: None }));
        script.out(0x99, 1);
        script.irq("ioapic", 5, true);
        script.irq("ioapic", 5, true);
        script.expect(0x99, 1);
        script
    };
    let (report, _) = script().replay(MMIO_TEST, "");
    assert_eq!((report.done.reads, report.verdict.divergences), (2, 2));
    let (report, _) = script().replay(PORT_TEST, "");
    assert_eq!((report.done.reads, report.verdict.divergences), (1, 0));
    assert!(report.notes.iter().any(|note| note.starts_with("1 memory-mapped")), "{report:?}");
}

#[test]
fn without_values_reads_are_made_and_not_compared() {
    let mut script = Script::new();
    script.out(0x300, 5);
    script.expect(0x300, 0);
    script.lacks = NotRecorded::READ_VALUES;
    let (report, _) = script.replay(MMIO_TEST, "");
    assert_eq!((report.done.reads, report.verdict.checks), (1, 0));
    assert!(report.verdict.pass && report.notes[0].contains("no values"));
}

#[test]
fn a_trace_of_something_else_says_which_test_to_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    TraceWriter::create(&path, TraceHeader::default())
        .unwrap()
        .finish(TraceSummary::default())
        .unwrap();
    let config = Config::parse(MMIO_TEST, &[format!("tracefile={}", path.display())]).unwrap();
    let error = session::run(&config, &AtomicBool::new(false), &mut |_, _| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nothing);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces/linux-ext4-virtio.qtrace");
    let config = Config::parse(MMIO_TEST, &[format!("tracefile={}", kept.display())]).unwrap();
    let error = session::run(&config, &AtomicBool::new(false), &mut |_, _| ()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("block-trace-virtio"), "{error}");
}

/// Any event at all, of stream 0 to 6, at ports and registers that exist and others.
fn any_event(prng: &mut Prng, time: u64) -> Event {
    let (time, stream) = (Nanos(time), StreamId(prng.below(7) as u32));
    let pages = [0xfec0_0000, 0xfed0_0000, 0xfee0_0000, 0xfebf_8000, 0, 0xffff_f000];
    match prng.below(12) {
        0 => Event::Irq(IrqChange { time, stream, line: prng.below(40) as u32, high: true }),
        1 => Event::Irq(IrqChange { time, stream, line: prng.next_u64() as u32, high: false }),
        2 => {
            let vector = Some(prng.next_u64() as u8).filter(|vector| vector % 2 == 0);
            Event::Ack(AckEvent { time, stream, cpu: prng.next_u64() as u16 % 3, vector })
        }
        3 => {
            let to = Nanos(time.0 + prng.below(1 << 20));
            Event::Clock(ClockStep { time, stream, to })
        }
        4 => {
            let (addr, len) = (prng.next_u64() >> (prng.below(40) + 16), prng.below(1 << 16));
            let (op, fill, payload) = (MemoryOp::Fill, prng.next_u64() as u8, PayloadRef::Absent);
            Event::Memory(MemoryEvent { time, stream, op, addr, len, fill, payload })
        }
        kind => {
            let space = if kind < 9 { BusSpace::Pio } else { BusSpace::Mmio };
            let size = 1 << prng.below(if kind < 9 { 3 } else { 4 });
            let addr = match kind {
                5 => prng.below(0x100),
                6..9 => prng.below(0x1_0000),
                _ => pages[prng.below(6) as usize] + prng.below(0x1000),
            };
            let (write, value) = (prng.below(2) == 0, prng.next_u64() & BusAccess::ones(size));
            let access = BusAccess { space, write, addr, size, value };
            Event::Bus(BusEvent { time, stream, access, cpu: None })
        }
    }
}

#[test]
fn whatever_a_trace_says_no_machine_panics_or_hangs() {
    for (seed, board) in [(1, "pc"), (2, "q35"), (3, "pc")] {
        let mut prng = Prng::new(seed);
        let mut script = Script::new();
        for _ in 0..5_000 {
            script.time += prng.below(1 << 12);
            let event = any_event(&mut prng, script.time);
            script.event(event);
        }
        let (_dir, path) = script.finish();
        let text = format!("tracefile={},board={board},ram=16M,disks=1M", path.display());
        let config = Config::parse(MMIO_TEST, &[text]).unwrap();
        let report = session::run(&config, &AtomicBool::new(false), &mut |_, _| ()).unwrap();
        assert!(report.complete && report.done.events == 5_000);
        assert!(report.verdict.divergences > 0 && report.verdict.checks > 0);
        assert!(!bus_text::render(&report).is_empty());
    }
}

#[test]
fn centuries_to_the_next_event_take_no_time_or_are_given_up() {
    let run = |script: Script| {
        let (_dir, path) = script.finish();
        let (trace, mut plan) = plan(&path, MMIO_TEST, "ram=16M");
        plan.waits_max = 10_000;
        let mut machine = plan.machine.build(Arc::new(VirtualClock::new())).unwrap();
        session::replay(
            &trace,
            &plan,
            has(&plan),
            &mut machine,
            &AtomicBool::new(false),
            &mut |_, _| (),
        )
    };
    let mut quiet = Script::new();
    quiet.time = u64::MAX;
    quiet.expect(0x80, 0);
    assert_eq!(run(quiet).unwrap().done.reads, 1);
    let mut busy = Script::new();
    // The PIT's counter 0 as a rate generator with a count of 2: half a million times a second.
    busy.out(0x43, 0x14);
    busy.out(0x40, 2);
    busy.time = u64::MAX;
    busy.expect(0x80, 0);
    let error = run(busy).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.hint_text().unwrap().contains("time=1us"), "{error}");
}

#[test]
fn the_same_trace_gives_the_same_report() {
    let mut script = Script::new();
    script.out(0x300, 1);
    (0..200).for_each(|port| script.expect(0x300 + port % 40, port % 3));
    let (_dir, path) = script.finish();
    let json = || crate::report::json::to_text(&replay(&path, MMIO_TEST, "").0).unwrap();
    assert_eq!(json(), json());
    let report: BusReport = serde_json::from_str(&json()).unwrap();
    assert_eq!(report, replay(&path, MMIO_TEST, "").0);
}
