//! QEMU's trace log (`-trace enable=memory_region_ops_*,file=…` with the `log` backend), of which
//! the accesses to the bus are imported. Source: QEMU's `system/trace-events`, `util/log.c` and
//! `system/memory.c`; checked against logs of 7.2.
//!
//! - `line`: the shapes that a line may have; times are Unix microseconds.
//! - `access`: what the events of the bus hold. Addresses are absolute (since QEMU 2.6), sizes bytes.
//!
//! What a reader must know of this source:
//! - Accesses are logged where the device's function is called: one that is wider than the device
//!   takes stands there as several, and one that is narrower than its least as a wider one.
//! - RAM and ROM are not logged, nor doorbells that the kernel or QEMU takes before the region
//!   (ioeventfd: virtio's notify regions).
//! - `cpu -1` is no vCPU: an MSI that a device sends to `apic-msi`. A replayed device sends its
//!   own, so these are left out and counted.
//! - `cpu_in` and `cpu_out` say again what the region's own event says. Where both are logged the
//!   region's is taken (it has a name).
//!
//! The other events of the same log (`blk_co_*`, `virtio_blk_*`, …) are counted as lost by name.
//! An importer of theirs is a module beside `access`, over the same `line`, and an entry in
//! the registry of its own.

mod access;
mod line;
#[cfg(test)]
mod tests;

use self::access::{Access, By, Kind};
use super::job::{Job, line_place};
use super::lines::Lines;
use super::registry::{Confidence, Importer, Probe};
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, note_condition};
use crate::base::{BusAccess, BusSpace, Nanos, Result};
use crate::trace::{BusEvent, NotRecorded};

/// The importer.
pub struct QemuLogBus;

impl Importer for QemuLogBus {
    fn name(&self) -> &'static str {
        "qemu-log-bus"
    }

    fn description(&self) -> &'static str {
        "QEMU's trace log: memory_region_ops_* and cpu_in/cpu_out"
    }

    fn yields(&self) -> &'static str {
        "bus access"
    }

    /// A log may begin with other events: one with a time is likely to be QEMU's, and one with
    /// pointers possibly is.
    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        let lines = probe.head.split(|byte| *byte == b'\n').filter_map(line::parse);
        let sure = |line: line::Line<'_>| match access::parse(line.event, line.args) {
            Some(Ok(_)) => Some(Confidence::Certain),
            _ if line.time.is_some() => Some(Confidence::Likely),
            _ => line.args.windows(3).any(|three| three == b" 0x").then_some(Confidence::Possible),
        };
        lines.filter_map(sure).max()
    }

    fn import(&self, sources: Vec<Source>, _: &ImportOptions, job: &mut Job<'_>) -> Result<()> {
        say_what_lacks(job);
        for source in sources {
            Reader::default().read(source, job)?;
        }
        Ok(())
    }
}

/// A log that is read while it is written: a caller hands its lines on and keeps those of others.
#[derive(Default)]
pub struct Live {
    reader: Reader,
    lines: u64,
}

impl Live {
    /// The events that it takes, as `-trace` has them.
    pub const EVENTS: [&str; 2] = ["memory_region_ops_read", "memory_region_ops_write"];

    /// Says what of the bus the log cannot show.
    pub fn begin(&self, job: &mut Job<'_>) {
        say_what_lacks(job);
    }

    /// Takes a line, without its end, if it is an access; whether it was.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub fn line(&mut self, text: &[u8], job: &mut Job<'_>) -> Result<bool> {
        let ours =
            |line: line::Line<'_>| Self::EVENTS.iter().any(|event| event.as_bytes() == line.event);
        if !line::parse(text).is_some_and(ours) {
            return Ok(false);
        }
        self.lines += 1;
        self.reader.line(self.lines, text, job).map(|()| true)
    }

    /// Tells the job what the log was like.
    pub fn finish(self, job: &mut Job<'_>) {
        self.reader.finish(job);
    }
}

/// Bytes of an event's name that the summary keeps.
const EVENT_NAME_BYTES_SHOWN: usize = 64;

/// Region reads that one `cpu_in` may repeat: 4 bytes, one by one.
const SPLIT_MAX: usize = 4;

/// What the log of a bus cannot say.
pub const LACKS: NotRecorded = NotRecorded::MEMORY.union(NotRecorded::IRQS);

/// How it is read.
pub const INTERPRETATION: [&str; 3] = [
    "addresses: absolute; below 0x10000: ports, except regions known as memory",
    "value: cut to the access's size",
    "cpu -1 (accesses that devices make): left out",
];

fn say_what_lacks(job: &mut Job<'_>) {
    job.lacks(LACKS);
    INTERPRETATION.into_iter().for_each(|line| job.interpret(line));
}

/// An access with its place and time.
#[derive(Clone, Copy)]
struct Timed {
    line: u64,
    time: Nanos,
    access: BusAccess,
    cpu: Option<u16>,
}

#[derive(Default)]
struct Reader {
    /// Time of the first access, and of the one before.
    origin: Option<u64>,
    now: u64,
    backwards: u64,
    timed: u64,
    untimed: u64,
    wide: u64,
    named: u64,
    unnamed: u64,
    /// Port events without the region's own.
    ports_alone: u64,
    /// Regions seen: virtio's, in which a doorbell would be, and those that are nothing else.
    virtio: bool,
    virtio_modern: bool,
    doorbells: bool,
    /// A `cpu_out` that waits whether the region's event follows.
    waiting_out: Option<Timed>,
    /// Region reads since the last `cpu_in`.
    region_reads: [Option<u64>; SPLIT_MAX],
    repeated: u64,
}

impl Reader {
    fn read(mut self, source: Source, job: &mut Job<'_>) -> Result<()> {
        let mut lines = Lines::new(source);
        while let Some((number, text)) = lines.read_line()? {
            job.tick()?;
            self.line(number, text, job)?;
        }
        self.release_out(job)?;
        note_condition(lines.source(), job);
        self.finish(job);
        Ok(())
    }

    fn line(&mut self, number: u64, text: &[u8], job: &mut Job<'_>) -> Result<()> {
        let place = || line_place(number);
        let Some(line) = line::parse(text) else {
            if !text.trim_ascii().is_empty() {
                job.summary.lose("line without a trace event", place);
            }
            return Ok(());
        };
        match access::parse(line.event, line.args) {
            Some(Ok(access)) if access.by == By::Device => {
                job.summary.lose("access made by a device, not by a vCPU (cpu -1)", place);
            }
            Some(Ok(access)) => self.access(number, line.time, &access, job)?,
            Some(Err(reason)) => job.summary.malformed(reason, place),
            None => {
                let event = line.event.get(..EVENT_NAME_BYTES_SHOWN).unwrap_or(line.event);
                let event = String::from_utf8_lossy(event);
                job.summary.lose(&format!("other event: {event}"), place);
            }
        }
        Ok(())
    }

    fn access(
        &mut self,
        line: u64,
        time: Option<u64>,
        logged: &Access<'_>,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let access = logged.on_bus();
        if logged.kind == Kind::Region {
            self.settle_out(&access, job)?;
        } else {
            self.release_out(job)?;
        }
        let cpu = match logged.by {
            By::Cpu(cpu) => Some(cpu),
            By::SomeCpu | By::Device => None,
        };
        let timed = Timed { line, time: self.time(time, job), access, cpu };
        match logged.kind {
            Kind::Region => {
                if !access.write && access.space == BusSpace::Pio {
                    self.region_reads.rotate_right(1);
                    self.region_reads[0] = Some(access.addr);
                }
                self.note_region(logged);
                emit(logged.region, timed, job)
            }
            Kind::Port => self.port_event(timed, job),
        }
    }

    /// `cpu_out` comes before the region's event and `cpu_in` after it.
    fn port_event(&mut self, timed: Timed, job: &mut Job<'_>) -> Result<()> {
        if timed.access.write {
            self.waiting_out = Some(timed);
            return Ok(());
        }
        let reads = std::mem::take(&mut self.region_reads);
        if reads.contains(&Some(timed.access.addr)) {
            self.repeated += 1;
            return Ok(());
        }
        self.ports_alone += 1;
        emit(None, timed, job)
    }

    /// The region's event that follows a `cpu_out` takes its place.
    fn settle_out(&mut self, next: &BusAccess, job: &mut Job<'_>) -> Result<()> {
        let same =
            |out: &Timed| next.write && next.space == BusSpace::Pio && next.addr == out.access.addr;
        if self.waiting_out.as_ref().is_some_and(same) {
            self.waiting_out = None;
            self.repeated += 1;
        }
        self.release_out(job)
    }

    /// Writes the `cpu_out` that waits: no region's event followed.
    fn release_out(&mut self, job: &mut Job<'_>) -> Result<()> {
        match self.waiting_out.take() {
            Some(out) => {
                self.ports_alone += 1;
                emit(None, out, job)
            }
            None => Ok(()),
        }
    }

    fn note_region(&mut self, access: &Access<'_>) {
        self.wide += u64::from(access.is_wide());
        self.named += u64::from(access.region.is_some());
        self.unnamed += u64::from(access.region.is_none());
        let region = access.region.unwrap_or_default();
        self.virtio |= matches!(region, b"virtio-pci" | b"virtio-mmio");
        self.virtio_modern |= region.starts_with(b"virtio-pci-");
        self.doorbells |= region.starts_with(b"virtio-pci-notify");
    }

    /// Nanoseconds since the first access. Threads write to one log: a time that goes back is the
    /// one before, since the order of the lines is the order of the accesses.
    fn time(&mut self, unix_ns: Option<u64>, job: &mut Job<'_>) -> Nanos {
        match unix_ns {
            None => self.untimed += 1,
            Some(time) => {
                self.timed += 1;
                if self.origin.is_none() {
                    self.origin = Some(time);
                    job.header.origin_unix_ns = Some(time);
                }
                let since = time.checked_sub(self.origin.unwrap_or(time));
                self.backwards += u64::from(since.is_none_or(|since| since < self.now));
                self.now = self.now.max(since.unwrap_or(0));
            }
        }
        Nanos(self.now)
    }

    fn finish(&self, job: &mut Job<'_>) {
        if self.timed == 0 {
            job.not_recorded |= NotRecorded::TIMES;
        } else if self.untimed > 0 {
            let count = counted(
                self.untimed,
                "access has no time and takes",
                "accesses have no time and take",
            );
            job.summary.note(format!("{count} that of the one before"));
        }
        if self.backwards > 0 {
            let count = counted(self.backwards, "time goes", "times go");
            job.summary.note(format!("{count} back and took that of the access before"));
        }
        if self.wide > 0 {
            let count = counted(self.wide, "value was", "values were");
            job.summary.note(format!("{count} wider than the access and cut"));
        }
        if self.named == 0 {
            job.not_recorded |= NotRecorded::REGIONS;
        }
        if self.unnamed > 0 {
            job.summary.note("this QEMU logs no region names: streams are ports and memory");
        }
        if self.ports_alone > 0 {
            let count = counted(self.ports_alone, "port access names", "port accesses name");
            job.summary.note(format!("{count} no CPU and no region (cpu_in, cpu_out)"));
            if self.named + self.unnamed == 0 {
                job.not_recorded |= NotRecorded::CPUS;
            }
        }
        if self.repeated > 0 {
            let count =
                counted(self.repeated, "cpu_in or cpu_out repeats", "cpu_in or cpu_out repeat");
            job.summary.note(format!("{count} the region's own event and stand once"));
        }
        if self.virtio_modern && !self.doorbells {
            job.not_recorded |= NotRecorded::DOORBELLS;
            job.summary.note(
                "no virtio doorbell is in this log: with ioeventfd they never reach the region \
                 (ioeventfd=off on the device logs them)",
            );
        } else if self.virtio {
            job.summary.note("virtio doorbells that ioeventfd takes are not in this log");
        }
    }
}

/// Writes an access to the stream of its region, or of its address space.
fn emit(region: Option<&[u8]>, timed: Timed, job: &mut Job<'_>) -> Result<()> {
    let Timed { line, time, access, cpu } = timed;
    let name = region.unwrap_or(access.space.name().as_bytes());
    match job.stream(name, None, || line_place(line))? {
        Some(stream) => job.bus(BusEvent { time, stream, access, cpu }),
        None => Ok(()),
    }
}
