//! Linux's mmiotrace (`Documentation/trace/mmiotrace.rst`, `kernel/trace/trace_mmiotrace.c`):
//! every access of a driver to memory that it mapped with `ioremap`.
//!
//! ```text
//! VERSION 20070824
//! PCIDEV BBDD VVVVDDDD IRQ BAR0…BAR6 SIZE0…SIZE6 DRIVER         hexadecimal, devfn in one byte
//! MAP    TIME ID PHYSICAL VIRTUAL LENGTH PC PID
//! UNMAP  TIME ID PC PID
//! R|W    WIDTH TIME ID PHYSICAL VALUE PC PID
//! MARK   TIME TEXT
//! ```
//!
//! - `line`: what a line holds. Times are seconds of the kernel's trace clock, to microseconds;
//!   widths are bytes (1, 2, 4, 8); addresses are physical; values are cut to their width.
//! - `devices`: a stream is a BAR of a PCI function (`00:08.0/bar4`) where the addresses of the
//!   PCIDEV lines say so, else a map (`map4@0xfed00000`).
//!
//! While it traces, the kernel runs on one CPU; ports, interrupts, and the contents of memory are
//! not in the trace.

mod devices;
mod line;
#[cfg(test)]
mod tests;

use self::devices::Devices;
use self::line::{Line, Pci, parse};
use super::job::{Job, line_place};
use super::lines::Lines;
use super::log_clock::LogClock;
use super::registry::{Confidence, Importer, Probe};
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, note_condition};
use crate::base::{BusAccess, BusSpace, Result};
use crate::trace::{BusEvent, NotRecorded};

/// The importer.
pub struct Mmiotrace;

impl Importer for Mmiotrace {
    fn name(&self) -> &'static str {
        "mmiotrace"
    }

    fn description(&self) -> &'static str {
        "Linux's mmiotrace: a driver's memory-mapped accesses"
    }

    fn yields(&self) -> &'static str {
        "bus access"
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        let known = |text: &[u8]| match parse(text) {
            Ok(Line::Version) => Some(Confidence::Certain),
            Ok(Line::Access { .. } | Line::Map { .. }) => Some(Confidence::Likely),
            _ => None,
        };
        probe.head.split(|byte| *byte == b'\n').filter_map(known).max()
    }

    fn import(&self, sources: Vec<Source>, _: &ImportOptions, job: &mut Job<'_>) -> Result<()> {
        job.lacks(NotRecorded::MEMORY | NotRecorded::IRQS | NotRecorded::CPUS);
        job.interpret("times: microseconds of the kernel's trace clock");
        job.interpret("addresses: physical; no ports");
        for source in sources {
            Reader::new().read(source, job)?;
        }
        Ok(())
    }
}

/// PCI functions named in the trace's header.
const INTERPRETED_MAX: u64 = 64;

struct Reader {
    devices: Devices,
    functions: u64,
    clock: LogClock,
    overruns: u64,
    lspci: u64,
}

impl Reader {
    fn new() -> Self {
        let clock = LogClock::since_boot();
        Self { devices: Devices::default(), functions: 0, clock, overruns: 0, lspci: 0 }
    }

    fn read(mut self, source: Source, job: &mut Job<'_>) -> Result<()> {
        let mut lines = Lines::new(source);
        while let Some((number, text)) = lines.read_line()? {
            job.tick()?;
            match parse(text) {
                Ok(line) => self.line(number, line, job)?,
                Err(reason) => job.summary.malformed(reason, || line_place(number)),
            }
        }
        note_condition(lines.source(), job);
        self.finish(job);
        Ok(())
    }

    fn line(&mut self, number: u64, line: Line<'_>, job: &mut Job<'_>) -> Result<()> {
        let place = || line_place(number);
        match line {
            Line::Version | Line::Empty => {}
            Line::Lspci => self.lspci += 1,
            Line::Pci(pci) => self.function(number, &pci, job),
            Line::Map { id, phys, .. } => {
                if !self.devices.map(id, phys) {
                    job.summary.note("more maps than are kept: later ones have no name");
                }
            }
            Line::Unmap { id } => self.devices.unmap(id),
            Line::Access { time, id, write, addr, size, value } => {
                let access = BusAccess { space: BusSpace::Mmio, write, addr, size, value };
                let name = self.devices.name(id, addr).as_bytes();
                if let Some(stream) = job.stream(name, None, place)? {
                    let time = self.clock.time(Some(time), job);
                    job.bus(BusEvent { time, stream, access, cpu: None })?;
                }
            }
            Line::Mark { time, text } => {
                if let Some(stream) = job.stream(b"mark", None, place)? {
                    let time = self.clock.time(Some(time), job);
                    job.mark(time, stream, text)?;
                }
            }
            Line::Overrun { events } => {
                self.overruns += 1;
                job.summary.lose_many("event lost by the kernel's buffer", events, place);
            }
            Line::Undecoded => {
                job.summary.lose("access that the kernel could not decode (UNKNOWN)", place);
            }
        }
        Ok(())
    }

    fn function(&mut self, number: u64, pci: &Pci, job: &mut Job<'_>) {
        let Some(name) = self.devices.add(pci) else {
            return job.summary.lose("more PCI functions than are kept", || line_place(number));
        };
        self.functions += 1;
        if self.functions <= INTERPRETED_MAX {
            let driver = if pci.driver.is_empty() { "no driver" } else { &pci.driver };
            let driver = driver.escape_debug();
            job.interpret(format!("pci {name}: {:04x}:{:04x} {driver}", pci.vendor, pci.device));
        }
    }

    fn finish(&self, job: &mut Job<'_>) {
        if self.overruns > 0 {
            job.summary
                .note("the kernel's buffer overran: accesses are missing before these lines");
        }
        if self.lspci > 0 {
            job.summary.note(format!("{} of lspci left out", counted(self.lspci, "line", "lines")));
        }
        self.clock.finish(["event", "events"], job);
    }
}
