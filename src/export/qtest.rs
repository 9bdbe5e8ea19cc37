//! QEMU's qtest log (`-qtest-log`): what was done to a bus, as commands with their answers.
//!
//! ```text
//! [R +0.000000] outl 0xcf8 0x80001010
//! [S +0.000000] OK
//! [R +0.000000] inl 0xcfc
//! [S +0.000000] OK 0x1af4
//! [S +0.000000] IRQ raise 4
//! ```
//!
//! The commands alone (`sed -n 's/^\[R [^]]*\] //p'`) can be sent to QEMU. Time is the virtual
//! clock, which `clock_step` alone moves; the stamps say what it read. A trace that knows no values
//! of reads gives commands without answers. Block requests have no place here.

use std::io::Write as _;

use super::job::{Job, lost_event};
use super::registry::Exporter;
use crate::base::{BusAccess, BusSpace, Error, Nanos, Result};
use crate::trace::{Event, MemoryEvent, MemoryOp, NotRecorded, PayloadRef, StreamId};

/// Bytes of guest memory in one command: two digits each, well below what a reader of such logs
/// takes as a line.
const MEMORY_BYTES_MAX: u64 = 4 << 20;

/// The exporter.
pub struct Qtest;

impl Exporter for Qtest {
    fn name(&self) -> &'static str {
        "qtest"
    }

    fn description(&self) -> &'static str {
        "QEMU's qtest log: accesses to the bus, guest memory, interrupts, the clock"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["qtest"]
    }

    fn lacks(&self) -> Option<&'static str> {
        Some("--ignore header,stream,time,cpu,ack,request,complete,mark")
    }

    fn export(&self, job: &mut Job<'_>) -> Result<()> {
        let buses = job.trace.totals().iter().any(|totals| totals.bus.events() > 0);
        if !buses {
            return Err(Error::usage("the trace is of no bus, and a qtest log is of nothing else")
                .path(job.trace.path())
                .hint("block requests go out as fio-iolog, blkparse, msr-csv or dm-log-writes"));
        }
        let values = !job.trace.summary().not_recorded.contains(NotRecorded::READ_VALUES);
        let mut log = Log { values, now: Nanos(0), stream: None, line: Vec::new() };
        let mut events = job.events();
        while let Some((number, event)) = events.next(job)? {
            log.event(number, &event, job)?;
        }
        Ok(())
    }
}

struct Log {
    /// Reads have values: then every command has its answer.
    values: bool,
    /// The virtual clock.
    now: Nanos,
    /// Whose interrupts were asked for last.
    stream: Option<StreamId>,
    line: Vec<u8>,
}

impl Log {
    fn event(&mut self, number: u64, event: &Event, job: &mut Job<'_>) -> Result<()> {
        self.line.clear();
        match event {
            Event::Bus(bus) => {
                self.timed(number, bus.time, job);
                if bus.cpu.is_some() {
                    job.lose("cpu", number);
                }
                self.access(bus.access);
                job.record(&self.line)
            }
            Event::Memory(memory) => {
                self.timed(number, memory.time, job);
                self.memory(number, memory, job)
            }
            Event::Irq(irq) => {
                self.timed(number, irq.time, job);
                self.intercept(irq.stream, job);
                let verb = if irq.high { "raise" } else { "lower" };
                self.stamp('S');
                // Writing to a Vec cannot fail.
                let _ = writeln!(self.line, "IRQ {verb} {}", irq.line);
                job.record(&self.line)
            }
            Event::Clock(step) => {
                self.timed(number, step.time, job);
                if step.to < self.now {
                    job.misfit("step of the clock that goes back", number);
                    return Ok(());
                }
                self.stamp('R');
                let _ = writeln!(self.line, "clock_step {}", step.to - self.now);
                self.now = step.to;
                self.stamp('S');
                let _ = writeln!(self.line, "OK {}", step.to.0);
                job.record(&self.line)
            }
            event => {
                job.lose(lost_event(event), number);
                Ok(())
            }
        }
    }

    /// Time that passes without a step of the clock cannot be said.
    fn timed(&self, number: u64, time: Nanos, job: &mut Job<'_>) {
        if time != self.now {
            job.lose("time that no step of the clock made", number);
        }
    }

    fn stamp(&mut self, who: char) {
        let (seconds, micros) = (self.now.0 / 1_000_000_000, self.now.0 / 1_000 % 1_000_000);
        let _ = write!(self.line, "[{who} +{seconds}.{micros:06}] ");
    }

    fn access(&mut self, access: BusAccess) {
        let BusAccess { space, write, addr, size, value } = access;
        let verb = match (space, write) {
            (BusSpace::Pio, false) => "in",
            (BusSpace::Pio, true) => "out",
            (BusSpace::Mmio, false) => "read",
            (BusSpace::Mmio, true) => "write",
        };
        let suffix = match size {
            1 => 'b',
            2 => 'w',
            4 => 'l',
            _ => 'q',
        };
        self.stamp('R');
        let _ = match write {
            true => writeln!(self.line, "{verb}{suffix} {addr:#x} {value:#x}"),
            false => writeln!(self.line, "{verb}{suffix} {addr:#x}"),
        };
        if write || !self.values {
            self.ok();
        } else {
            self.stamp('S');
            let _ = writeln!(self.line, "OK {value:#x}");
        }
    }

    /// An answer that says nothing; where reads have no values no command has an answer.
    fn ok(&mut self) {
        if self.values {
            self.stamp('S');
            self.line.extend_from_slice(b"OK\n");
        }
    }

    fn memory(&mut self, number: u64, memory: &MemoryEvent, job: &mut Job<'_>) -> Result<()> {
        let MemoryEvent { op, addr, len, fill, payload, .. } = *memory;
        let has_data = payload != PayloadRef::Absent;
        match op {
            _ if len == 0 => job.misfit("event of no guest memory", number),
            MemoryOp::Fill => {
                self.stamp('R');
                let _ = writeln!(self.line, "memset {addr:#x} {len:#x} {fill:#x}");
                self.ok();
                return job.record(&self.line);
            }
            MemoryOp::Read if !self.values && !has_data => {
                self.stamp('R');
                let _ = writeln!(self.line, "read {addr:#x} {len:#x}");
                return job.record(&self.line);
            }
            MemoryOp::Write | MemoryOp::Read if !has_data => {
                job.misfit("guest memory without its content", number);
            }
            MemoryOp::Read if !self.values => job.misfit("guest memory that was found", number),
            MemoryOp::Write | MemoryOp::Read => {
                return self.content(number, memory, job);
            }
        }
        Ok(())
    }

    /// Memory with its content, in pieces that a line holds.
    fn content(&mut self, number: u64, memory: &MemoryEvent, job: &mut Job<'_>) -> Result<()> {
        let total = memory.len;
        if total > MEMORY_BYTES_MAX {
            job.misfit("guest memory of more than 4 MiB: cut into pieces", number);
        }
        let mut data = vec![0; usize::try_from(total.min(MEMORY_BYTES_MAX)).unwrap_or(0)];
        let mut at = 0;
        while at < total {
            let n = usize::try_from(total - at).unwrap_or(data.len()).min(data.len());
            let piece = &mut data[..n];
            job.trace.read_payload(memory.payload, total, at, piece)?;
            let addr = memory.addr + at;
            self.line.clear();
            self.stamp('R');
            if memory.op == MemoryOp::Write {
                let _ = write!(self.line, "write {addr:#x} {n:#x} 0x");
                hex(&mut self.line, piece);
                self.line.push(b'\n');
                self.ok();
            } else {
                let _ = writeln!(self.line, "read {addr:#x} {n:#x}");
                self.stamp('S');
                self.line.extend_from_slice(b"OK 0x");
                hex(&mut self.line, piece);
                self.line.push(b'\n');
            }
            job.write(&self.line)?;
            at += n as u64;
        }
        job.count(1);
        Ok(())
    }

    /// Names whose interrupts the next ones are.
    fn intercept(&mut self, stream: StreamId, job: &mut Job<'_>) {
        if self.stream.replace(stream) == Some(stream) {
            return;
        }
        let device = job.device(stream);
        if device.is_empty() || device == "irq" {
            return;
        }
        let words = device.replace(|c: char| c.is_whitespace() || c.is_control(), "_");
        // `DEVICE/LINES`, as an import calls them.
        let words = words.replacen('/', " ", 1);
        self.stamp('R');
        let _ = writeln!(self.line, "irq_intercept_in {words}");
        self.ok();
        job.summary.note("irq_intercept_in names the source of interrupts as the trace does");
    }
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::ExportOptions;
    use crate::export::testing::Made;
    use crate::import::testing::import_bytes;
    use crate::trace::{BusEvent, ClockStep, IrqChange};

    fn bus(time: u64, space: BusSpace, write: bool, addr: u64, size: u8, value: u64) -> Event {
        let access = BusAccess { space, write, addr, size, value };
        Event::Bus(BusEvent { time: Nanos(time), stream: StreamId(0), access, cpu: None })
    }

    fn session() -> Made {
        let mut made = Made::new(&["port", "memory", "clock", "ioapic"]);
        let data = made.payload(&[0xab, 0xcd, 0x01]);
        let (time, payload) = (Nanos(0), data);
        made.event(bus(0, BusSpace::Pio, true, 0x70, 1, 0x8f));
        made.event(bus(0, BusSpace::Mmio, false, 0xfee0_0030, 8, 0x14));
        let (op, stream, addr) = (MemoryOp::Write, StreamId(1), 0x1000);
        let write = MemoryEvent { time, stream, op, addr, len: 3, fill: 0, payload };
        made.event(Event::Memory(write));
        made.event(Event::Memory(MemoryEvent { op: MemoryOp::Read, ..write }));
        let fill =
            MemoryEvent { op: MemoryOp::Fill, fill: 9, payload: PayloadRef::Absent, ..write };
        made.event(Event::Memory(fill));
        made.event(Event::Clock(ClockStep { time, stream: StreamId(2), to: Nanos(1_500_000) }));
        let time = Nanos(1_500_000);
        made.event(Event::Irq(IrqChange { time, stream: StreamId(3), line: 4, high: true }));
        made.event(bus(1_500_000, BusSpace::Pio, false, 0x71, 1, 0x26));
        made
    }

    #[test]
    fn a_session_is_commands_and_answers_that_read_back_the_same() {
        let (log, report) = session().export_bytes(&Qtest, &ExportOptions::default());
        let log = log.unwrap();
        let want = "\
[R +0.000000] outb 0x70 0x8f
[S +0.000000] OK
[R +0.000000] readq 0xfee00030
[S +0.000000] OK 0x14
[R +0.000000] write 0x1000 0x3 0xabcd01
[S +0.000000] OK
[R +0.000000] read 0x1000 0x3
[S +0.000000] OK 0xabcd01
[R +0.000000] memset 0x1000 0x3 0x9
[S +0.000000] OK
[R +0.000000] clock_step 1500000
[S +0.001500] OK 1500000
[R +0.001500] irq_intercept_in ioapic
[S +0.001500] OK
[S +0.001500] IRQ raise 4
[R +0.001500] inb 0x71
[S +0.001500] OK 0x26
";
        assert_eq!(String::from_utf8(log.clone()).unwrap(), want);
        let report = report.unwrap();
        assert_eq!((report.records, report.losses.len()), (8, 0));
        let (imported, back) = import_bytes(&log).unwrap();
        assert_eq!((imported.events, imported.summary.losses.len()), (8, 0));
        let kinds: Vec<_> = back.events.iter().map(crate::trace::Kinds::of).collect();
        let first: Vec<_> = session().events().iter().map(crate::trace::Kinds::of).collect();
        assert_eq!(kinds, first);
        assert_eq!(back.events.last().unwrap().time(), Nanos(1_500_000));
    }

    #[test]
    fn without_values_there_are_commands_alone() {
        let mut made = session();
        made.not_recorded = NotRecorded::READ_VALUES;
        let (log, report) = made.export(&Qtest, &ExportOptions::default());
        let log = log.unwrap();
        assert!(log.starts_with("[R +0.000000] outb 0x70 0x8f\n[R +0.000000] readq 0xfee00030\n"));
        assert_eq!(report.unwrap().losses[0].reason, "guest memory that was found");
    }

    #[test]
    fn a_trace_of_requests_is_refused() {
        use crate::export::testing::issue;
        let mut made = Made::new(&["vda"]);
        made.event(Event::Issue(issue(0, 0, crate::base::BlockOp::Read, 0, 512)));
        let error = made.export(&Qtest, &ExportOptions::default()).1.unwrap_err();
        assert!(error.hint_text().unwrap().contains("fio-iolog"));
    }
}
