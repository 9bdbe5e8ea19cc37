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

mod event;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use self::event::{Said, kvm};
use super::dataset::probe::whole_lines;
use super::job::{Job, line_place};
use super::kernel_text::clock::Clock;
use super::kernel_text::prefix::{self, Event, Line};
use super::lines::Lines;
use super::log_clock::LogClock;
use super::registry::{Confidence, Importer, Probe, TIME_UNIT};
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, note_condition};
use crate::base::{BusAccess, BusSpace, Result};
use crate::trace::{BusEvent, NotRecorded};

/// Threads whose open read is remembered: far more vCPUs than a host runs.
const THREADS_MAX: usize = 1 << 14;

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

/// The vCPU that a thread with this name runs: QEMU's `CPU 0/KVM`, `fc_vcpu 0`, `crosvm_vcpu0`.
fn vcpu_of(comm: &[u8]) -> Option<u16> {
    // trace-cmd puts a file's name before the lines of each of several: `host.dat: CPU 0/KVM`.
    let name = memchr::memmem::rfind(comm, b": ").map_or(0, |at| at + 2);
    let comm = comm.get(name..)?.trim_ascii_start();
    let digits = match comm.strip_prefix(b"CPU ") {
        // Latency-format cuts a name to eight bytes.
        Some(rest) => {
            let slash = rest.iter().position(|byte| *byte == b'/')?;
            let (digits, behind) = rest.split_at(slash);
            b"/KVM".starts_with(behind).then_some(digits)?
        }
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
