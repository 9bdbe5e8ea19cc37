//! Events of the kernel as text: what ftrace (tracefs' `trace` and `trace_pipe`), `perf script` and
//! `trace-cmd report` print of the block layer's events and of the NVMe driver's.
//!
//! - `prefix`, `who`, `remarks`, `perf_trace`: who, where and when, in the shapes of the three tools,
//!   and of `perf trace`; `clock`: the times; `fields`: arguments that a tool prints by name.
//! - `block`, `rwbs`: the block layer's events. They become the records that binary blktrace has of
//!   the same moments (its `Requests` follow them): `block_bio_queue` is Q, `block_rq_issue` D,
//!   `block_rq_complete` and `block_bio_complete` C, `block_rq_requeue` R. Without `--stage` a
//!   capture that has Q is read at Q, another at D. Where a capture lacks `block_rq_issue`,
//!   `block_io_start` or else `block_rq_insert` stands for it, or a completion where there is nothing
//!   else; and `block_io_done` for completions that it lacks.
//! - `nvme`, `commands`: the NVMe driver's, for a capture without those of the block layer, or when
//!   they are asked for (`--from nvme-events`).
//! - `input`: lines as either.
//!
//! Sectors have 512 bytes; the blocks of NVMe commands are told by `--unit`, or have as many. Times
//! are seconds of the trace clock, and count from the first event of any moment, so that the stages
//! share their clock.

pub(super) mod block;
pub(super) mod clock;
mod commands;
pub(super) mod fields;
mod input;
mod nvme;
mod perf_trace;
pub(super) mod prefix;
mod remarks;
pub(super) mod rwbs;
#[cfg(test)]
mod tests;
mod who;

use self::block::Kind;
use self::clock::Clock;
use self::commands::Commands;
use self::input::{BlockRecords, Choice, Events};
use self::prefix::{Event, Line};
use super::ImportOptions;
use super::blktrace::reader::Reader;
use super::blktrace::requests::Places;
use super::dataset::probe::whole_lines;
use super::job::Job;
use super::registry::{Confidence, Importer, Probe, STAGE, TIME_UNIT, UNIT};
use super::source::Source;
use super::text_records::TextRecords;
use crate::base::{Result, SECTOR_SIZE};
use crate::trace::NotRecorded;

/// A tool that prints the kernel's events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Ftrace,
    Perf,
    TraceCmd,
}

/// An importer of what the tools print; each reads the shapes of all.
pub struct KernelText {
    /// The tool whose texts it is chosen for; `None` takes the NVMe driver's events of any, also
    /// beside those of the block layer.
    tool: Option<Tool>,
    name: &'static str,
    description: &'static str,
}

/// tracefs.
pub const FTRACE: KernelText = KernelText {
    tool: Some(Tool::Ftrace),
    name: "ftrace",
    description: "tracefs' trace or trace_pipe: block_rq_*, block_bio_*, nvme_setup_cmd",
};
/// perf.
pub const PERF_SCRIPT: KernelText = KernelText {
    tool: Some(Tool::Perf),
    name: "perf-script",
    description: "perf script of the same events",
};
/// trace-cmd.
pub const TRACE_CMD: KernelText = KernelText {
    tool: Some(Tool::TraceCmd),
    name: "trace-cmd",
    description: "trace-cmd report of the same events",
};

/// The NVMe driver.
pub const NVME_EVENTS: KernelText = KernelText {
    tool: None,
    name: "nvme-events",
    description: "the same texts: nvme_setup_cmd alone, where the block layer's events are there too",
};

impl Importer for KernelText {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        self.description
    }

    fn takes_several(&self) -> bool {
        true
    }

    fn options(&self) -> &'static [&'static str] {
        match self.tool {
            Some(_) => &[STAGE, UNIT, TIME_UNIT],
            None => &[UNIT, TIME_UNIT],
        }
    }

    /// The first event tells the tool; events of the block layer make it likely that they are
    /// wanted, and those of the NVMe driver alone, that these are.
    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        let mut tool = None;
        let (mut block, mut nvme) = (false, false);
        for line in whole_lines(probe.head) {
            let text = line.trim_ascii();
            if tool.is_none() && text.starts_with(b"cpus=") {
                tool = Some(Tool::TraceCmd);
            } else if text.starts_with(b"# tracer:") {
                tool = Some(Tool::Ftrace);
            } else if memchr::memmem::find(text, b"PERF_RECORD_").is_some() {
                tool = Some(Tool::Perf);
            }
            if let Line::Event(event) = prefix::parse(line) {
                tool.get_or_insert_with(|| tool_of(&event, line));
                block |= matches!(block::event(event.name, event.args), Some(Ok(_)));
                nvme |= matches!(nvme::parse(event.name, event.args, event.cpu), Ok(Some(_)));
            }
        }
        match self.tool {
            None => (nvme && !block).then_some(Confidence::Likely),
            wanted if wanted != tool => None,
            _ if block => Some(Confidence::Likely),
            _ => Some(Confidence::Possible),
        }
    }

    fn import(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let format = || Events::new(Clock::new(options.time_unit));
        let inputs = TextRecords::all(sources, format, job)?;
        let mut seen = [0; Kind::ALL.len()];
        for input in &inputs {
            seen.iter_mut().zip(input.format.seen).for_each(|(sum, count)| *sum += count);
        }
        let commands: u64 = inputs.iter().map(|input| input.format.commands).sum();
        let mut lacks = NotRecorded::empty();
        if let Some(input) =
            inputs.iter().find(|input| input.format.clock.is_ticking()).or(inputs.first())
        {
            input.format.clock.describe(job);
            lacks |= input.format.clock.lacks();
        }
        let block = commands == 0 || seen.iter().sum::<u64>() > 0;
        match Choice::new(&seen, options.stage) {
            Some(choice) if block && self.tool.is_some() => {
                describe_block(choice, lacks, job);
                let inputs =
                    inputs.into_iter().map(|records| BlockRecords::new(records, choice)).collect();
                Reader::new(inputs, choice.stage, Places::Line).read(job)
            }
            _ => {
                let unit = options.unit_bytes.unwrap_or(SECTOR_SIZE);
                describe_nvme(unit, options.unit_bytes.is_some(), lacks, job);
                Commands::new(unit).read(inputs, job)
            }
        }
    }
}

/// The tool that prints such a line.
fn tool_of(event: &Event<'_>, line: &[u8]) -> Tool {
    // perf names the subsystem, and has the thread's number apart from the command.
    if event.system.is_some() {
        return Tool::Perf;
    }
    // tracefs has flags behind the CPU unless they are switched off; trace-cmd, as a rule, has none.
    let words: Vec<_> = line.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty()).collect();
    let cpu = words.iter().position(|word| word.starts_with(b"[") && word.ends_with(b"]"));
    let flags = cpu.and_then(|cpu| words.get(cpu + 1)).is_some_and(|word| !word.ends_with(b":"));
    if flags || cpu.is_none() { Tool::Ftrace } else { Tool::TraceCmd }
}

fn describe_block(choice: Choice, lacks: NotRecorded, job: &mut Job<'_>) {
    use NotRecorded as N;
    job.lacks(lacks | N::WRITE_DATA | N::READ_DATA | N::QUEUES | N::DEVICE_SIZE | N::UNMAP);
    job.interpret(choice.stage.interpretation());
    job.interpret(format!("issue: {}", choice.issue().name()));
    if choice.ends_alone() {
        job.summary.note(
            "the capture has no beginnings of requests: each stands where it ended, without latency",
        );
    }
    job.interpret("sector unit: 512 bytes");
    job.interpret("N with sectors: write-zeroes (until Linux 6.19 they have no letter)");
}

fn describe_nvme(unit: u64, told: bool, lacks: NotRecorded, job: &mut Job<'_>) {
    use NotRecorded as N;
    let always =
        N::WRITE_DATA | N::READ_DATA | N::DEVICE_SIZE | N::DISCARDS | N::PREFLUSH | N::HINTS;
    job.lacks(lacks | always);
    job.interpret("issue: nvme_setup_cmd; completion: nvme_complete_rq");
    let told = if told { ", as told" } else { "" };
    job.interpret(format!("address unit: logical blocks of {unit} bytes{told}"));
    if told.is_empty() {
        job.summary.note(
            "the events do not say how large a logical block is: taken as 512 bytes (--unit 4k \
             tells another)",
        );
    }
}
