//! QEMU's trace events (`-trace enable=…,file=…`), from the text of its `log` backend and from the
//! files of its `simple` backend: accesses to the bus, and requests of block devices. Source: QEMU's
//! `trace-events` of `system`, `hw/block`, `hw/ide`, `hw/nvme`, `hw/scsi` and `block`, `util/log.c`,
//! `trace/simple.c`; checked against logs of 7.2.
//!
//! - `line`: the shapes that a line may have; times are Unix microseconds.
//! - `simple`: the binary files; times are nanoseconds of the host's monotonic clock.
//! - `fields`: the arguments of an event by name, from either.
//! - `access`, `bus`: `memory_region_ops_*`, `cpu_in`, `cpu_out`. Addresses are absolute (since QEMU
//!   2.6), sizes bytes.
//! - `block`: `virtio_blk_*`, `ide_*`, AHCI's, `pci_nvme_*`, and below them `blk_co_*`; in sectors
//!   of 512 bytes, blocks of the namespace, and bytes.
//!
//! A log that holds both kinds becomes a trace that does. `qemu-log-bus` and `qemu-log-block` take
//! one of them, `qemu-log-backend` the requests of back-ends in place of the devices'. All other
//! events are counted as lost, by name.
//!
//! What a reader must know of the bus:
//! - Accesses are logged where the device's function is called: one that is wider than the device
//!   takes stands there as several, and one that is narrower than its least as a wider one.
//! - RAM and ROM are not logged, nor doorbells that the kernel or QEMU takes before the region
//!   (ioeventfd: virtio's notify regions).
//! - `cpu -1` is no vCPU: an MSI that a device sends to `apic-msi`. A replayed device sends its
//!   own, so these are left out and counted.
//! - `cpu_in` and `cpu_out` say again what the region's own event says. Where both are logged the
//!   region's is taken (it has a name).

mod access;
mod block;
mod bus;
mod fields;
mod line;
mod simple;
#[cfg(test)]
mod tests;

use self::access::{Access, By};
use self::block::{At, Block, Layer, Unheard};
use self::bus::Bus;
pub use self::bus::{INTERPRETATION, LACKS};
use self::fields::Fields;
pub use self::simple::QemuSimple;
use super::job::Job;
use super::lines::Lines;
use super::log_clock::LogClock;
use super::qtest;
use super::registry::{self, Confidence, Importer, Probe};
use super::source::Source;
use super::{ImportOptions, note_condition};
use crate::base::Result;
use crate::base::error::Place;
use crate::trace::NotRecorded;

/// An importer of QEMU's log, by what it takes of it.
pub struct QemuLog {
    name: &'static str,
    description: &'static str,
    bus: bool,
    block: Option<Layer>,
}

/// Everything: what content is found to be.
pub const LOG: QemuLog = QemuLog {
    name: "qemu-log",
    description: "QEMU's trace log: bus accesses, requests of virtio-blk, ide, ahci, nvme, scsi",
    bus: true,
    block: Some(Layer::Devices),
};
/// The bus alone.
pub const LOG_BUS: QemuLog = QemuLog {
    name: "qemu-log-bus",
    description: "the same, memory_region_ops_* and cpu_in/cpu_out alone",
    bus: true,
    block: None,
};
/// Block devices alone.
pub const LOG_BLOCK: QemuLog = QemuLog {
    name: "qemu-log-block",
    description: "the same, requests of block devices alone",
    bus: false,
    block: Some(Layer::Devices),
};
/// Block back-ends.
pub const LOG_BACKEND: QemuLog = QemuLog {
    name: "qemu-log-backend",
    description: "the same, requests of block back-ends (blk_co_*) in place of devices'",
    bus: false,
    block: Some(Layer::Backends),
};

impl Importer for QemuLog {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        self.description
    }

    fn yields(&self) -> &'static str {
        yields(self.bus, self.block)
    }

    fn options(&self) -> &'static [&'static str] {
        if self.block == Some(Layer::Devices) { &[registry::UNIT] } else { &[] }
    }

    /// A log may begin with other events: one with a time is likely to be QEMU's, and one with
    /// pointers possibly is. What takes a part of a log is chosen by the user; where nothing but
    /// block layers speak, their requests are what there is.
    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        let whole = self.bus && self.block.is_some();
        if !whole && self.block != Some(Layer::Backends) {
            return None;
        }
        let events = || probe.head.split(|byte| *byte == b'\n').filter_map(line::parse);
        let of_blocks = |line: &line::Line<'_>| {
            [&b"blk_"[..], b"bdrv_"].iter().any(|start| line.event.starts_with(start))
        };
        let backends =
            events().all(|line| of_blocks(&line)) && events().any(|l| block::is_backends(l.event));
        if !whole {
            return backends.then_some(Confidence::Certain);
        }
        let sure = |line: line::Line<'_>| match access::parse(line.event, line.args) {
            Some(Ok(_)) => Some(Confidence::Certain),
            _ if block::is_devices(line.event) => Some(Confidence::Certain),
            _ if line.time.is_some() => Some(Confidence::Likely),
            _ => line.args.windows(3).any(|three| three == b" 0x").then_some(Confidence::Possible),
        };
        // A log of qtest's, or a report, into which the events went too: it tells the whole story.
        let most = match probe.head.split(|byte| *byte == b'\n').any(qtest::is_ours) {
            true => Confidence::Possible,
            false => Confidence::Certain,
        };
        events().filter_map(sure).max().map(|found| found.min(most))
    }

    fn import(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let block = self.block.map(|layer| Block::new(layer, options.unit_bytes));
        let mut reader = Reader::new(self.bus.then(Bus::default), block, LogClock::unix());
        reader.describe(job);
        for source in sources {
            let path = source.path().to_path_buf();
            reader.read(source, job)?;
            reader.finish(job).map_err(|error| error.path(path))?;
        }
        Ok(())
    }
}

/// What a trace of these is made of.
fn yields(bus: bool, block: Option<Layer>) -> &'static str {
    match (bus, block) {
        (true, Some(_)) => "bus access or block request",
        (true, None) => "bus access",
        _ => "block request",
    }
}

/// A log that is read while it is written: a caller hands its lines on and keeps those of others.
pub struct Live {
    reader: Reader,
    lines: u64,
}

impl Default for Live {
    fn default() -> Self {
        Self { reader: Reader::new(Some(Bus::default()), None, LogClock::unix()), lines: 0 }
    }
}

impl Live {
    /// The events that it takes, as `-trace` has them.
    pub const EVENTS: [&str; 2] = ["memory_region_ops_read", "memory_region_ops_write"];

    /// Says what of the bus the log cannot show.
    pub fn begin(&self, job: &mut Job<'_>) {
        self.reader.describe(job);
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
    ///
    /// # Errors
    /// Those of the job's sink.
    pub fn finish(mut self, job: &mut Job<'_>) -> Result<()> {
        self.reader.finish(job)
    }
}

/// Takes events, and keeps what they tell of bus and block devices.
struct Reader {
    clock: LogClock,
    bus: Option<Bus>,
    block: Option<Block>,
}

/// An event, of whichever backend.
struct Event<'l> {
    place: Place,
    /// Nanoseconds, of the reader's clock.
    time: Option<u64>,
    name: &'l [u8],
    /// The access that it is, if it is one.
    access: Option<std::result::Result<Access<'l>, &'static str>>,
}

impl Reader {
    fn new(bus: Option<Bus>, block: Option<Block>, clock: LogClock) -> Self {
        Self { clock, bus, block }
    }

    /// Says how it is read and what it cannot tell, as far as that is known now.
    fn describe(&self, job: &mut Job<'_>) {
        let mut lacks = NotRecorded::empty();
        if self.bus.is_some() {
            lacks |= bus::LACKS;
            INTERPRETATION.into_iter().for_each(|line| job.interpret(line));
        }
        if self.block.is_some() {
            lacks |= block::LACKS;
            job.interpret("sectors: 512 bytes; blocks of nvme: as its events say; else bytes");
            // An end that is not answered becomes known late.
            job.put_in_order();
        }
        job.lacks(lacks);
    }

    fn read(&mut self, source: Source, job: &mut Job<'_>) -> Result<()> {
        let mut lines = Lines::new(source);
        while let Some((number, text)) = lines.read_line()? {
            job.tick()?;
            self.line(number, text, job)?;
        }
        note_condition(lines.source(), job);
        Ok(())
    }

    fn line(&mut self, number: u64, text: &[u8], job: &mut Job<'_>) -> Result<()> {
        let place = Place::Line(number);
        let Some(line::Line { time, event: name, args }) = line::parse(text) else {
            if !text.trim_ascii().is_empty() {
                job.summary.lose("line without a trace event", || place.to_string());
            }
            return Ok(());
        };
        let access = self.bus.is_some().then(|| access::parse(name, args)).flatten();
        self.event(&Event { place, time, name, access }, || Fields::of_text(args), job)
    }

    /// Takes an event; `fields` are its arguments, for one that is no access.
    fn event<'l>(
        &mut self,
        event: &Event<'_>,
        fields: impl FnOnce() -> Fields<'l>,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let place = || event.place.to_string();
        match (&event.access, &mut self.bus) {
            (Some(Ok(access)), Some(_)) if access.by == By::Device => {
                job.summary.lose("access made by a device, not by a vCPU (cpu -1)", place);
                return Ok(());
            }
            (Some(Ok(access)), Some(bus)) => {
                let time = self.clock.time(event.time, job);
                return bus.access(event.place, time, access, job);
            }
            (Some(Err(reason)), _) => {
                job.summary.malformed(reason, place);
                return Ok(());
            }
            _ => {}
        }
        let Some(block) = &mut self.block else {
            lose_other(event, job);
            return Ok(());
        };
        let at = At { ns: event.time, place: event.place };
        let clock = &mut self.clock;
        match block.event(event.name, &fields(), at, clock, job) {
            Ok(()) => {}
            Err(Unheard::Failed(error)) => return Err(error),
            Err(Unheard::Other) => lose_other(event, job),
            Err(Unheard::Lost(reason)) => job.summary.lose(reason, place),
            Err(Unheard::Malformed) => {
                job.summary.malformed("block event that cannot be read", place);
            }
        }
        Ok(())
    }

    fn finish(&mut self, job: &mut Job<'_>) -> Result<()> {
        let mut lacks = NotRecorded::empty();
        if let Some(bus) = &mut self.bus {
            lacks |= bus.finish(job)?;
        }
        let accesses = job.counts().bus.events() > 0;
        if let Some(block) = &mut self.block {
            lacks |= block.finish(&mut self.clock, job)?;
            // Of requests no CPU is known.
            lacks.set(NotRecorded::CPUS, lacks.contains(NotRecorded::CPUS) || !accesses);
        }
        job.lacks(lacks);
        let called = if accesses { ["access", "accesses"] } else { ["event", "events"] };
        self.clock.finish(called, job);
        Ok(())
    }
}

fn lose_other(event: &Event<'_>, job: &mut Job<'_>) {
    job.summary.other_event(event.name, || event.place.to_string());
}
