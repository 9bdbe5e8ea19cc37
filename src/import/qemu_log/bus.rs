//! Accesses to the bus, from a log's lines or a binary trace's records.

use super::access::{Access, By, Kind};
use crate::base::error::Place;
use crate::base::{BusAccess, BusSpace, Nanos, Result};
use crate::import::job::Job;
use crate::import::summary::counted;
use crate::trace::{BusEvent, NotRecorded};

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

/// An access with its place and time.
#[derive(Clone, Copy)]
struct Timed {
    place: Place,
    time: Nanos,
    access: BusAccess,
    cpu: Option<u16>,
}

/// The accesses of a log.
#[derive(Default)]
pub struct Bus {
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

impl Bus {
    /// Takes an access of a vCPU.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub fn access(
        &mut self,
        place: Place,
        time: Nanos,
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
        let timed = Timed { place, time, access, cpu };
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

    /// Ends the log, tells the job what it was like, and returns what it lacks.
    ///
    /// # Errors
    /// Those of the job's sink.
    pub fn finish(&mut self, job: &mut Job<'_>) -> Result<NotRecorded> {
        self.release_out(job)?;
        if job.counts().bus.events() == 0 {
            return Ok(NotRecorded::empty());
        }
        let mut lacks = LACKS;
        if self.wide > 0 {
            let count = counted(self.wide, "value was", "values were");
            job.summary.note(format!("{count} wider than the access and cut"));
        }
        lacks.set(NotRecorded::REGIONS, self.named == 0);
        if self.unnamed > 0 {
            job.summary.note("this QEMU logs no region names: streams are ports and memory");
        }
        if self.ports_alone > 0 {
            let count = counted(self.ports_alone, "port access names", "port accesses name");
            job.summary.note(format!("{count} no CPU and no region (cpu_in, cpu_out)"));
            lacks.set(NotRecorded::CPUS, self.named + self.unnamed == 0);
        }
        if self.repeated > 0 {
            let count =
                counted(self.repeated, "cpu_in or cpu_out repeats", "cpu_in or cpu_out repeat");
            job.summary.note(format!("{count} the region's own event and stand once"));
        }
        if self.virtio_modern && !self.doorbells {
            lacks |= NotRecorded::DOORBELLS;
            job.summary.note(
                "no virtio doorbell is in this log: with ioeventfd they never reach the region \
                 (ioeventfd=off on the device logs them)",
            );
        } else if self.virtio {
            job.summary.note("virtio doorbells that ioeventfd takes are not in this log");
        }
        Ok(lacks)
    }
}

/// Writes an access to the stream of its region, or of its address space.
fn emit(region: Option<&[u8]>, timed: Timed, job: &mut Job<'_>) -> Result<()> {
    let Timed { place, time, access, cpu } = timed;
    let name = region.unwrap_or(access.space.name().as_bytes());
    match job.stream(name, None, || place.to_string())? {
        Some(stream) => job.bus(BusEvent { time, stream, access, cpu }),
        None => Ok(()),
    }
}
