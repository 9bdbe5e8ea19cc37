//! Binary blktrace, versions 7 and 8: per-CPU files (`DEV.blktrace.CPU`) or one merged by
//! `blkparse -d`.
//!
//! - Files are merged by (time, CPU, sequence): per-CPU files and a merge of them give the same
//!   trace. A window sorts what is nearly sorted.
//! - One moment of a request's life becomes its issue: Q (queued: requests as the file system
//!   meant them, with PREFLUSH and FUA) or D (dispatched: as the device saw them). C, completed,
//!   gives the completion: see [`outstanding`] for how it finds its request.
//! - A write with PREFLUSH or FUA on a device that has no such bit runs as flush, write, flush.
//!   At stage Q its end is the end of the last step.
//! - Time counts from the first record. `blkparse -d` subtracts it already, from records and not
//!   from notifications, so the wall clock is taken from notifications alone.

mod ahead;
pub mod input;
pub mod outstanding;
pub mod reader;
pub mod record;
pub mod requests;
pub mod sorted;
mod under_way;

use std::path::Path;

use self::input::Input;
use self::reader::Reader;
use self::record::{Order, Version};
use self::requests::Places;
use super::job::Job;
use super::registry::{Confidence, Importer, Probe, STAGE};
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, Stage, inputs};
use crate::base::Result;
use crate::trace::NotRecorded;

/// The importer.
pub struct Blktrace;

impl Importer for Blktrace {
    fn name(&self) -> &'static str {
        "blktrace"
    }

    fn description(&self) -> &'static str {
        "binary blktrace versions 7 and 8, per-CPU files or one merged by blkparse -d"
    }

    fn takes_several(&self) -> bool {
        true
    }

    fn options(&self) -> &'static [&'static str] {
        &[STAGE]
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        Order::detect(probe.head).map(|_| Confidence::Certain)
    }

    fn import(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        note_siblings(&sources, job);
        let inputs: Result<Vec<_>> = sources.into_iter().map(Input::open).collect();
        let inputs = inputs?;
        let stage = options.stage.unwrap_or_default();
        describe(&inputs, stage, job);
        Reader::new(inputs, stage, Places::Sequence).read_ahead(job)
    }
}

fn note_siblings(sources: &[Source], job: &mut Job<'_>) {
    let given: Vec<&Path> = sources.iter().map(Source::path).collect();
    for path in &given {
        let others = inputs::siblings_not_given(path, &given);
        if others > 0 {
            let others = counted(others as u64, "file of another CPU", "files of other CPUs");
            job.summary.note(format!(
                "not given: {others} of this capture; name all of them, or the device without \
                 .blktrace.N"
            ));
            return;
        }
    }
}

fn describe(inputs: &[Input], stage: Stage, job: &mut Job<'_>) {
    use NotRecorded as N;
    let mut lacks = N::WRITE_DATA | N::READ_DATA | N::QUEUES | N::DEVICE_SIZE | N::UNMAP;
    let version = inputs.first().map_or(Version::V7, |input| input.version);
    if version == Version::V7 {
        lacks |= N::WRITE_ZEROES;
    }
    job.lacks(lacks);
    job.interpret(match version {
        Version::V7 => "record version: 7 (a write-zeroes stands as a write)",
        Version::V8 => "record version: 8",
    });
    job.interpret(match inputs.first().map_or(Order::Little, Input::order) {
        Order::Little => "byte order: little endian",
        Order::Big => "byte order: big endian",
    });
    job.interpret(stage.interpretation());
    job.interpret("sector unit: 512 bytes");
    job.interpret("times: nanoseconds since the first record");
}

#[cfg(test)]
mod tests;
