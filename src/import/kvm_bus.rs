//! What a guest's vCPUs do to ports and memory-mapped registers, as KVM's tracepoints tell it in the
//! texts of ftrace, perf script and trace-cmd.
//!
//! ```text
//! kvm_pio: pio_write at 0x70 size 1 count 1 val 0x8f
//! kvm_pio: pio_read at 0x511 size 1 count 4 val 0x3 (...)
//! kvm_mmio: mmio write len 4 gpa 0xfee000f0 val 0x1ff
//! kvm_mmio: mmio unsatisfied-read len 4 gpa 0xfebf0000 val 0x0          the device is asked …
//! kvm_mmio: mmio read len 4 gpa 0xfebf0000 val 0x11                     … and has answered
//! kvm_fast_mmio: fast mmio at gpa 0xfe003000                            a doorbell, taken by KVM
//! ```
//!
//! - Sizes are bytes, addresses ports or guest-physical; what stands before an event, and the times,
//!   are as [`kernel_text`](super::kernel_text) has them. An access stands at the moment at which
//!   its value was known.
//! - A read that KVM answers itself (APIC, PIC) has no `unsatisfied-read` before it; one that has is
//!   joined to it by thread and address, and is one access.
//! - Of string I/O (`count` above 1) KVM keeps the first element alone; a fast doorbell has neither
//!   size nor value; before Linux 3.15 port accesses have no value. All these are counted.
//! - The CPU is the vCPU, where the thread's name tells it (`CPU 0/KVM`, `fc_vcpu 0`): the one in
//!   brackets is the host's. Guests of one host are not told apart: record one.
//!
//! Source: Linux `arch/x86/kvm/trace.h`, `include/trace/events/kvm.h`, `arch/x86/kvm/x86.c`.

use std::collections::HashMap;

use super::dataset::probe::whole_lines;
use super::job::{Job, line_place};
use super::kernel_text::clock::Clock;
use super::kernel_text::fields::{are_fields, number_or_zero};
use super::kernel_text::prefix::{self, Event, Line};
use super::lines::{Lines, c_number, word};
use super::log_clock::LogClock;
use super::registry::{Confidence, Importer, Probe, TIME_UNIT};
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, note_condition};
use crate::base::{BusAccess, BusSpace, Result};
use crate::trace::{BusEvent, NotRecorded};

/// Threads whose open read is remembered: far more vCPUs than a host runs.
const THREADS_MAX: usize = 1 << 14;

const MALFORMED: &str = "event of KVM that cannot be read";
const UNANSWERED: &str = "read whose answer is not in the trace";

/// The importer.
pub struct KvmBus;

impl Importer for KvmBus {
    fn name(&self) -> &'static str {
        "kvm-bus"
    }

    fn description(&self) -> &'static str {
        "kvm_pio and kvm_mmio of ftrace, perf script, trace-cmd: a guest's bus accesses"
    }

    fn yields(&self) -> &'static str {
        "bus access"
    }

    fn options(&self) -> &'static [&'static str] {
        &[TIME_UNIT]
    }

    /// The text of other events alike may be wanted for them: then the user chooses.
    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        let mut found = None;
        for line in whole_lines(probe.head) {
            let Line::Event(event) = prefix::parse(line) else { continue };
            match kvm(&event) {
                Some(Ok(_)) => found = found.or(Some(Confidence::Certain)),
                _ if event.name.starts_with(b"block_") || event.name.starts_with(b"nvme_") => {
                    return found.map(|_| Confidence::Likely);
                }
                _ => {}
            }
        }
        found
    }

    fn import(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        use NotRecorded as N;
        job.lacks(N::MEMORY | N::IRQS | N::REGIONS);
        job.interpret("addresses: ports, and guest-physical memory");
        job.interpret("cpu: the vCPU, by its thread's name");
        for source in sources {
            Reader::new(Clock::new(options.time_unit)).read(source, job)?;
        }
        Ok(())
    }
}

/// An event of KVM's that says something of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    /// An access, which stands for `count` to ports.
    Access { access: BusAccess, count: u64 },
    /// A read that the guest's machine is asked for.
    Asked { addr: u64, size: u64 },
    /// An access whose value is not there.
    NoValue(&'static str),
    /// An access that no trace can hold.
    Odd(&'static str),
}

/// What an event says of the bus; `None` for another event.
fn kvm(event: &Event<'_>) -> Option<std::result::Result<Said, &'static str>> {
    let by_name = are_fields(event.args);
    let said = match event.name {
        b"kvm_pio" if by_name => pio_by_name(event.args),
        b"kvm_mmio" if by_name => mmio_by_name(event.args),
        b"kvm_pio" => pio(event.args),
        b"kvm_mmio" => mmio(event.args),
        b"kvm_fast_mmio" => {
            Some(Said::NoValue("doorbell taken by KVM (kvm_fast_mmio): no size and no value"))
        }
        _ => return None,
    };
    Some(said.ok_or(MALFORMED))
}

/// The number behind `key`, which must come next.
fn keyed(rest: &mut &[u8], key: &[u8]) -> Option<u64> {
    let (found, after) = word(rest);
    let (value, after) = word(after);
    *rest = after;
    if found == key { c_number(value) } else { None }
}

/// `pio_write at 0x70 size 1 count 1 val 0x8f (...)`.
fn pio(args: &[u8]) -> Option<Said> {
    let (direction, mut rest) = word(args);
    let write = match direction {
        b"pio_write" => true,
        b"pio_read" => false,
        _ => return None,
    };
    let addr = keyed(&mut rest, b"at")?;
    let size = keyed(&mut rest, b"size")?;
    let count = keyed(&mut rest, b"count").filter(|count| *count > 0)?;
    if rest.is_empty() {
        return Some(Said::NoValue("port access without its value (Linux before 3.15)"));
    }
    let value = keyed(&mut rest, b"val")?;
    port_access(write, addr, size, count, value)
}

/// `rw=1 port=112 size=1 count=1 val=143`.
fn pio_by_name(args: &[u8]) -> Option<Said> {
    let get = |name: &[u8]| number_or_zero(args, name);
    let (addr, size, count) = (get(b"port")?, get(b"size")?, get(b"count")?);
    port_access(get(b"rw")? != 0, addr, size, count.max(1), get(b"val")?)
}

fn port_access(write: bool, addr: u64, size: u64, count: u64, value: u64) -> Option<Said> {
    let size = u8::try_from(size).ok().filter(|size| matches!(size, 1 | 2 | 4))?;
    let space = BusSpace::Pio;
    let value = value & BusAccess::ones(size);
    space
        .holds(addr, size)
        .then_some(Said::Access { access: BusAccess { space, write, addr, size, value }, count })
}

/// `mmio write len 4 gpa 0xfee000f0 val 0x1ff`.
fn mmio(args: &[u8]) -> Option<Said> {
    let (mmio, rest) = word(args);
    let (direction, mut rest) = word(rest);
    let size = keyed(&mut rest, b"len")?;
    let addr = keyed(&mut rest, b"gpa")?;
    let value = keyed(&mut rest, b"val")?;
    let kind = match (mmio, direction) {
        (b"mmio", b"unsatisfied-read") => ASKED,
        (b"mmio", b"write") => WRITE,
        (b"mmio", b"read") => READ,
        _ => return None,
    };
    memory_access(kind, addr, size, value)
}

/// `type=2 len=4 gpa=0xfee000f0 val=511`.
fn mmio_by_name(args: &[u8]) -> Option<Said> {
    let get = |name: &[u8]| number_or_zero(args, name);
    memory_access(get(b"type")?, get(b"gpa")?, get(b"len")?, get(b"val")?)
}

/// `KVM_TRACE_MMIO_*` of Linux `include/trace/events/kvm.h`.
const ASKED: u64 = 0;
const READ: u64 = 1;
const WRITE: u64 = 2;

fn memory_access(kind: u64, addr: u64, size: u64, value: u64) -> Option<Said> {
    let write = match kind {
        ASKED => return Some(Said::Asked { addr, size }),
        READ => false,
        WRITE => true,
        _ => return None,
    };
    let whole = u8::try_from(size).ok().filter(|size| matches!(size, 1 | 2 | 4 | 8));
    let Some(size) = whole else {
        return Some(Said::Odd("access that is not of 1, 2, 4 or 8 bytes"));
    };
    let space = BusSpace::Mmio;
    let value = value & BusAccess::ones(size);
    Some(Said::Access { access: BusAccess { space, write, addr, size, value }, count: 1 })
}

/// The vCPU that a thread with this name runs: QEMU's `CPU 0/KVM`, `fc_vcpu 0`, `crosvm_vcpu0`.
fn vcpu_of(comm: &[u8]) -> Option<u16> {
    // trace-cmd puts a file's name before the lines of each of several: `host.dat: CPU 0/KVM`.
    let name = memchr::memmem::rfind(comm, b": ").map_or(0, |at| at + 2);
    let comm = comm.get(name..)?.trim_ascii_start();
    let digits = match comm.strip_prefix(b"CPU ") {
        Some(rest) => rest.strip_suffix(b"/KVM")?,
        None => {
            let at = memchr::memmem::rfind(comm, b"vcpu")?;
            let rest = comm.get(at + b"vcpu".len()..)?;
            rest.strip_prefix(b" ").unwrap_or(rest)
        }
    };
    super::lines::number(digits)?.try_into().ok()
}

struct Reader {
    times: Clock,
    clock: LogClock,
    /// Reads that were asked for and not answered yet, by thread: line and address.
    asked: HashMap<Option<u32>, (u64, u64)>,
    strings: u64,
    named: u64,
    doorbells: u64,
    /// The thread that made the first access that names no vCPU, and whether another did, too.
    thread: Option<Option<u32>>,
    threads: bool,
}

impl Reader {
    fn new(times: Clock) -> Self {
        Self {
            times,
            clock: LogClock::since_boot(),
            asked: HashMap::new(),
            strings: 0,
            named: 0,
            doorbells: 0,
            thread: None,
            threads: false,
        }
    }

    fn read(mut self, source: Source, job: &mut Job<'_>) -> Result<()> {
        let mut lines = Lines::new(source);
        while let Some((number, text)) = lines.read_line()? {
            job.tick()?;
            let place = || line_place(number);
            match prefix::parse(text) {
                Line::Event(event) => self.event(number, &event, job)?,
                Line::Lost(count) => {
                    let count = count.unwrap_or(1);
                    job.summary.lose_many("events that the tracer lost", count, place);
                }
                Line::Comment => {}
                Line::Other => job.summary.malformed("line without a trace event", place),
            }
        }
        note_condition(lines.source(), job);
        self.finish(job);
        Ok(())
    }

    fn event(&mut self, number: u64, event: &Event<'_>, job: &mut Job<'_>) -> Result<()> {
        let place = || line_place(number);
        match kvm(event) {
            Some(Ok(Said::Access { access, count })) => {
                self.access(number, event, access, count, job)?;
            }
            Some(Ok(Said::Asked { addr, size })) => self.ask(number, event, addr, size, job),
            Some(Ok(Said::NoValue(reason))) => {
                self.doorbells += u64::from(event.name == b"kvm_fast_mmio");
                job.summary.lose(reason, place);
            }
            Some(Ok(Said::Odd(reason))) => job.summary.lose(reason, place),
            Some(Err(reason)) => job.summary.malformed(reason, place),
            None => job.summary.other_event(event.name, place),
        }
        Ok(())
    }

    /// A read begins; a thread has one at a time, so that one still open has no answer.
    fn ask(&mut self, number: u64, event: &Event<'_>, addr: u64, size: u64, job: &mut Job<'_>) {
        if size > 8 {
            // KVM asks for it in parts, each of which stands with its value.
            return;
        }
        if self.asked.len() < THREADS_MAX || self.asked.contains_key(&event.tid) {
            let before = self.asked.insert(event.tid, (number, addr));
            if let Some((line, _)) = before {
                job.summary.lose(UNANSWERED, || line_place(line));
            }
        }
    }

    fn access(
        &mut self,
        number: u64,
        event: &Event<'_>,
        access: BusAccess,
        count: u64,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let place = || line_place(number);
        if access.space == BusSpace::Mmio
            && !access.write
            && self.asked.get(&event.tid).is_some_and(|asked| asked.1 == access.addr)
        {
            self.asked.remove(&event.tid);
        }
        let Some(ns) = self.times.read(event.time) else {
            job.summary.malformed("time out of range", place);
            return Ok(());
        };
        if count > 1 {
            self.strings += 1;
            let reason = "element of string I/O after the first: KVM keeps no value of it";
            job.summary.lose_many(reason, count - 1, place);
        }
        let cpu = vcpu_of(event.comm);
        self.note_thread(event, cpu);
        let name = access.space.name().as_bytes();
        let Some(stream) = job.stream(name, None, place)? else { return Ok(()) };
        let time = self.clock.time(Some(ns), job);
        job.bus(BusEvent { time, stream, access, cpu })
    }

    fn note_thread(&mut self, event: &Event<'_>, cpu: Option<u16>) {
        if cpu.is_some() {
            self.named += 1;
        } else {
            self.threads |= *self.thread.get_or_insert(event.tid) != event.tid;
        }
    }

    fn finish(&mut self, job: &mut Job<'_>) {
        self.times.describe(job);
        job.not_recorded |= self.times.lacks();
        let mut open: Vec<_> = self.asked.values().map(|(line, _)| *line).collect();
        open.sort_unstable();
        if let Some(first) = open.first() {
            job.summary.lose_many(UNANSWERED, open.len() as u64, || line_place(*first));
        }
        if self.named == 0 {
            job.not_recorded |= NotRecorded::CPUS;
        }
        if self.threads {
            job.summary.note(
                "several threads without a vCPU's name made these accesses: vCPUs, or guests, that \
                 are not told apart",
            );
        }
        if self.strings > 0 {
            let count = counted(self.strings, "string access is", "string accesses are");
            job.summary.note(format!(
                "{count} cut to the first element: data of disks in PIO, and what devices count by \
                 reads, differ in a replay"
            ));
        }
        if self.doorbells > 0 {
            job.summary.note(
                "doorbells that KVM took itself are not in the trace (ioeventfd=off on the device \
                 brings them to the bus)",
            );
        }
        self.clock.finish(["access", "accesses"], job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ErrorKind;
    use crate::import::testing::{import_bytes, losses, plain_sample, sample};
    use crate::trace::Event as TraceEvent;

    fn access(space: BusSpace, write: bool, addr: u64, size: u8, value: u64) -> BusAccess {
        BusAccess { space, write, addr, size, value }
    }

    /// Events of one thread, as a tool prints them.
    fn text(prefix: impl Fn(usize) -> String, events: &[&str]) -> Vec<u8> {
        let line = |(n, event): (usize, &&str)| format!("{}{event}\n", prefix(n));
        events.iter().enumerate().map(line).collect::<String>().into_bytes()
    }

    fn ftrace(n: usize) -> String {
        format!(" qemu-system-x86-27125   [001] .....  2034.{n:06}: ")
    }

    #[test]
    fn fields_in_place_of_the_kernels_format() {
        let raw = [
            "kvm_pio: rw=1 port=112 size=1 count=1 val=143",
            "kvm_pio: rw=0 port=1297 size=2 count=3 val=7",
            "kvm_mmio: type=2 len=4 gpa=0xfee000f0 val=511",
            "kvm_mmio: type=0 len=4 gpa=4096 val=0",
            "kvm_mmio: type=1 len=4 gpa=4096 val=5",
        ];
        let prefix = |n| format!("  a.dat:  CPU 2/KVM-9   [001]-0x0  2034.{n:06}: ");
        let perf = "\
            0.000 CPU 2/KVM/9 kvm:kvm_pio(rw: 1, port: 112, size: 1, count: 1, val: 143)\n\
            0.001 CPU 2/KVM/9 kvm:kvm_pio(port: 1297, size: 2, count: 3, val: 7)\n\
            0.002 CPU 2/KVM/9 kvm:kvm_mmio(type: 2, len: 4, gpa: 4276093168, val: 511)\n\
            0.003 CPU 2/KVM/9 kvm:kvm_mmio(len: 4, gpa: 4096)\n\
            0.004 CPU 2/KVM/9 kvm:kvm_mmio(type: 1, len: 4, gpa: 4096, val: 5)\n";
        let want = [
            (0, access(BusSpace::Pio, true, 0x70, 1, 143)),
            (1000, access(BusSpace::Pio, false, 0x511, 2, 7)),
            (2000, access(BusSpace::Mmio, true, 0xfee0_00f0, 4, 511)),
            (4000, access(BusSpace::Mmio, false, 4096, 4, 5)),
        ];
        for text in [text(prefix, &raw), perf.as_bytes().to_vec()] {
            let (report, out) = import_bytes(&text).unwrap();
            assert_eq!(report.format, "kvm-bus");
            let got = out.events.iter().map(|event| match event {
                TraceEvent::Bus(bus) => {
                    assert_eq!(bus.cpu, Some(2));
                    (bus.time.0, bus.access)
                }
                other => panic!("{other:?}"),
            });
            let got: Vec<_> = got.collect();
            assert_eq!(got, want);
            assert_eq!(losses(&report).len(), 1, "string I/O");
        }
    }

    #[test]
    fn ports_and_memory_in_the_texts_of_three_tools() {
        let events = [
            "kvm_userspace_exit: reason KVM_EXIT_IO (2)",
            "kvm_pio: pio_write at 0x70 size 1 count 1 val 0x8f ",
            "kvm_pio: pio_read at 0xcfc size 4 count 1 val 0x12378086 ",
            "kvm_mmio: mmio write len 4 gpa 0xfee000f0 val 0x1ff",
            "kvm_mmio: mmio unsatisfied-read len 2 gpa 0xfebf0000 val 0x0",
            "kvm_mmio: mmio read len 2 gpa 0xfebf0000 val 0x1234aa55",
            "kvm_mmio: mmio read len 8 gpa 0xfee00030 val 0xffffffff00050014",
        ];
        let want = [
            ("port", 0, access(BusSpace::Pio, true, 0x70, 1, 0x8f)),
            ("port", 1000, access(BusSpace::Pio, false, 0xcfc, 4, 0x1237_8086)),
            ("mmio", 2000, access(BusSpace::Mmio, true, 0xfee0_00f0, 4, 0x1ff)),
            ("mmio", 4000, access(BusSpace::Mmio, false, 0xfebf_0000, 2, 0xaa55)),
            ("mmio", 5000, access(BusSpace::Mmio, false, 0xfee0_0030, 8, 0xffff_ffff_0005_0014)),
        ];
        let perf = |n| format!("CPU 3/KVM   777/779 [001]  2034.{n:06}: kvm:");
        let trace_cmd = |n| format!("       CPU 3/KVM-779   [001]  2034.{n:06}: ");
        for (text, cpu) in [
            (text(ftrace, &events), None),
            (text(perf, &events), Some(3)),
            (text(trace_cmd, &events), Some(3)),
        ] {
            let (report, out) = import_bytes(&text).unwrap();
            assert_eq!(report.format, "kvm-bus");
            assert_eq!(out.accesses(), want);
            let cpus = out.events.iter().map(|event| match event {
                TraceEvent::Bus(bus) => bus.cpu,
                other => panic!("{other:?}"),
            });
            assert!(cpus.into_iter().all(|of| of == cpu));
            assert_eq!(losses(&report), [("other event: kvm_userspace_exit", 1, "line 1")]);
            let lacks = report.summary.not_recorded;
            use NotRecorded as N;
            assert!(lacks.contains(N::MEMORY | N::IRQS | N::REGIONS));
            assert_eq!(lacks.contains(N::CPUS), cpu.is_none());
            assert!(report.summary.notes.is_empty(), "{:?}", report.summary.notes);
        }
    }

    #[test]
    fn what_has_no_value_is_counted_and_never_made_up() {
        let (report, out) = import_bytes(&text(
            ftrace,
            &[
                "kvm_pio: pio_read at 0x511 size 1 count 4 val 0x3 (...)",
                "kvm_pio: pio_write at 0x80 size 1 count 1",
                "kvm_fast_mmio: fast mmio at gpa 0xfe003000",
                "kvm_mmio: mmio unsatisfied-read len 4 gpa 0xfebf0000 val 0x0",
                "kvm_mmio: mmio unsatisfied-read len 4 gpa 0xfebf0004 val 0x0",
                "kvm_mmio: mmio write len 16 gpa 0xfebf0010 val 0x0",
                "kvm_mmio: mmio write len 3 gpa 0xfebf0010 val 0x0",
                "kvm_pio: pio_read at 0x10000 size 1 count 1 val 0x3",
                "kvm_pio: pio_read at 0x80 size 8 count 1 val 0x3",
                "kvm_mmio: mmio frobnicate len 4 gpa 0x10 val 0x0",
            ],
        ))
        .unwrap();
        assert_eq!(out.accesses(), [("port", 0, access(BusSpace::Pio, false, 0x511, 1, 3))]);
        assert_eq!(
            losses(&report),
            [
                ("element of string I/O after the first: KVM keeps no value of it", 3, "line 1"),
                ("port access without its value (Linux before 3.15)", 1, "line 2"),
                ("doorbell taken by KVM (kvm_fast_mmio): no size and no value", 1, "line 3"),
                ("read whose answer is not in the trace", 2, "line 4"),
                ("access that is not of 1, 2, 4 or 8 bytes", 2, "line 6"),
                (MALFORMED, 3, "line 8"),
            ]
        );
        assert_eq!(report.summary.notes.len(), 2);
    }

    #[test]
    fn vcpus_have_reads_of_their_own() {
        let line = |tid: u32, n: u32, what: &str| {
            format!(
                "q-{tid} [000] ..... 1.{n:06}: kvm_mmio: mmio {what} len 4 gpa 0x1000 val 0x5\n"
            )
        };
        let text = [
            line(1, 1, "unsatisfied-read"),
            line(2, 2, "unsatisfied-read"),
            line(2, 3, "read"),
            line(1, 4, "read"),
            line(1, 2, "write"),
        ]
        .concat();
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        let times: Vec<_> = out.accesses().iter().map(|access| access.1).collect();
        assert_eq!(times, [0, 1000, 1000]);
        assert!(report.summary.losses.is_empty());
        assert!(report.summary.notes[0].contains("several threads"));
        assert!(report.summary.notes[1].starts_with("1 time goes back"));
    }

    #[test]
    fn threads_that_are_named_after_their_vcpu() {
        for (comm, cpu) in [
            ("CPU 0/KVM", Some(0)),
            ("CPU 12/KVM", Some(12)),
            ("CPU 1/TCG", None),
            ("fc_vcpu 1", Some(1)),
            ("crosvm_vcpu7", Some(7)),
            ("vcpu2", Some(2)),
            ("vcpu", None),
            ("qemu-system-x86", None),
        ] {
            assert_eq!(vcpu_of(comm.as_bytes()), cpu, "{comm}");
        }
    }

    #[test]
    fn a_text_of_both_kinds_is_the_users_to_choose() {
        let both = text(
            ftrace,
            &[
                "kvm_pio: pio_write at 0x70 size 1 count 1 val 0x8f",
                "block_rq_issue: 8,0 R 4096 () 8 + 8 [f]",
            ],
        );
        let error = import_bytes(&both).unwrap_err();
        assert_eq!(error.to_string(), "test-input: could be any of ftrace, kvm-bus");
        let none = text(ftrace, &["kvm_exit: vcpu 0 reason IO_INSTRUCTION rip 0xfff0"]);
        let options = ImportOptions { from: Some("kvm-bus".into()), ..ImportOptions::default() };
        let error = crate::import::testing::import_with(&none, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Nothing);
    }

    #[test]
    fn the_sample_of_a_real_guest() {
        let name = "traces/kvm-pio-mmio/kvm_pio+kvm_mmio.ftrace.txt.gz";
        let (Some(data), Some(plain)) = (sample(name), plain_sample(name)) else { return };
        let plain = String::from_utf8(plain).unwrap();
        let count = |word: &str| plain.lines().filter(|line| line.contains(word)).count() as u64;
        let (report, out) = import_bytes(&data).unwrap();
        assert_eq!(report.format, "kvm-bus");
        let bus = &report.ops.bus;
        let ports = [count("pio_read"), count("pio_write")];
        assert_eq!(ports, [443, 2470]);
        assert_eq!(bus.ports, ports);
        assert_eq!(bus.mmio, [count("mmio read"), count("mmio write")]);
        assert_eq!(out.events.len(), 443 + 2470 + 258 + 4561);
        // One string access, of which three elements have no value.
        let lost = losses(&report);
        assert_eq!((lost.len(), lost[0].1), (1, 3));
    }
}
