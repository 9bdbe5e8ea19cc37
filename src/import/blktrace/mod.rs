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

pub mod input;
pub mod outstanding;
pub mod record;

pub mod requests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::path::Path;

use self::input::{Input, Item, WallClock};
use self::record::{Order, Record, Version};
use self::requests::Requests;
use super::job::Job;
use super::registry::{Confidence, Importer, Probe};
use super::sort::Sorter;
use super::source::Source;
use super::summary::counted;
use super::{ImportOptions, Stage, inputs, note_condition};
use crate::base::limits::SORT_WINDOW_EVENTS;
use crate::base::{Error, ErrorKind, Nanos, Result};
use crate::trace::NotRecorded;

/// Message text held in the sorter at most; messages past it are lost, and counted.
const MESSAGES_BYTES_MAX: usize = 16 << 20;

/// (device, CPU) pairs whose sequence numbers are followed.
const SEQUENCES_MAX: usize = 1 << 16;

/// The first PROCESS notification stands this close before the first record, unless it was made
/// for another device's record.
const PROCESS_TO_RECORD_NS_MAX: u64 = 1_000_000;

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
        &["--stage"]
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
        Reader::new(inputs, stage).read(job)
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
    job.interpret(match stage {
        Stage::Queue => "stage: Q (queued), with PREFLUSH and FUA as the file system meant them",
        Stage::Dispatch => "stage: D (dispatched), merged and split as the device saw them",
    });
    job.interpret("sector unit: 512 bytes");
    job.interpret("times: nanoseconds since the first record");
}

type Key = (u64, u32, u32);

struct Reader {
    stage: Stage,
    inputs: Vec<Input>,
    clock: WallClock,
    sorter: Sorter<Key, Item>,
    messages_bytes: usize,
    sequences: HashMap<(u32, u32), u32>,
    origin: Option<u64>,
    unused: BTreeMap<u16, u64>,
    requests: Requests,
}

impl Reader {
    fn new(inputs: Vec<Input>, stage: Stage) -> Self {
        Self {
            stage,
            inputs,
            clock: WallClock::default(),
            sorter: Sorter::new(SORT_WINDOW_EVENTS),
            messages_bytes: 0,
            sequences: HashMap::new(),
            origin: None,
            unused: BTreeMap::new(),
            requests: Requests::new(stage),
        }
    }

    fn read(mut self, job: &mut Job<'_>) -> Result<()> {
        // The next item of each file; the smallest goes first.
        let mut heads: Vec<Option<Item>> = Vec::with_capacity(self.inputs.len());
        let mut order = BinaryHeap::new();
        for (index, input) in self.inputs.iter_mut().enumerate() {
            let head = input.next(&mut self.clock, job)?;
            order.extend(head.as_ref().map(|item| Reverse((item.record().key(), index))));
            heads.push(head);
        }
        while let Some(Reverse((_, index))) = order.pop() {
            let Some(input) = self.inputs.get_mut(index) else { break };
            let next = input.next(&mut self.clock, job)?;
            order.extend(next.as_ref().map(|item| Reverse((item.record().key(), index))));
            let item = heads.get_mut(index).and_then(|head| std::mem::replace(head, next));
            if let Some(item) = item {
                self.sort(item, job)?;
            }
        }
        while let Some(item) = self.sorter.pop() {
            self.item(item, job)?;
        }
        self.finish(job);
        job.check_device()?;
        self.check_stage(job)
    }

    fn sort(&mut self, item: Item, job: &mut Job<'_>) -> Result<()> {
        if let Item::Message(record, text) = &item {
            if self.messages_bytes + text.len() > MESSAGES_BYTES_MAX {
                job.summary.lose("too many messages at one time", || record.place());
                return Ok(());
            }
            self.messages_bytes += text.len();
        }
        match self.sorter.push(item.record().key(), item) {
            Some(item) => self.item(item, job),
            None => Ok(()),
        }
    }

    /// An item in its turn.
    fn item(&mut self, item: Item, job: &mut Job<'_>) -> Result<()> {
        let record = *item.record();
        if let Item::Record(_) = item {
            self.follow_sequence(&record, job);
        }
        let origin = match self.origin {
            Some(origin) => origin,
            None => {
                job.header.origin_unix_ns = origin_unix_ns(&self.clock, record.time);
                *self.origin.insert(record.time)
            }
        };
        let time = Nanos(record.time.saturating_sub(origin));
        match item {
            Item::Record(record) => {
                if !self.requests.record(&record, time, job)? {
                    let count = self.unused.entry(record.act()).or_default();
                    *count += 1;
                }
                Ok(())
            }
            Item::Message(record, text) => {
                self.messages_bytes -= text.len();
                let name = record.device_name();
                match job.stream(name.as_bytes(), None, || record.place())? {
                    Some(stream) => job.mark(time, stream, &text),
                    None => Ok(()),
                }
            }
        }
    }

    /// The kernel counts records per CPU, also those for which its buffer had no room.
    fn follow_sequence(&mut self, record: &Record, job: &mut Job<'_>) {
        let key = (record.device, record.cpu);
        if self.sequences.len() >= SEQUENCES_MAX && !self.sequences.contains_key(&key) {
            return;
        }
        if let Some(last) = self.sequences.insert(key, record.sequence) {
            let missing = record.sequence.saturating_sub(last).saturating_sub(1);
            let reason = "records missing from the capture (gap in a CPU's sequence numbers)";
            job.summary.lose_many(reason, missing.into(), || {
                format!("cpu {} after sequence {last}", record.cpu)
            });
        }
    }

    /// A capture may leave out moments (`blktrace -a`): then the other stage may have requests.
    fn check_stage(&self, job: &Job<'_>) -> Result<()> {
        let (name, other, act) = match self.stage {
            Stage::Queue => ("Q", "D", record::act::ISSUE),
            Stage::Dispatch => ("D", "Q", record::act::QUEUE),
        };
        match self.unused.get(&act) {
            Some(count) if job.counts().requests() == 0 => Err(Error::new(
                ErrorKind::Nothing,
                format!("the capture has no request at stage {name}"),
            )
            .hint(format!("--stage {other} finds {count}"))),
            _ => Ok(()),
        }
    }

    fn finish(&mut self, job: &mut Job<'_>) {
        self.requests.finish(job);
        let unused: Vec<_> =
            self.unused.iter().map(|(act, count)| format!("{} {count}", letter(*act))).collect();
        if !unused.is_empty() {
            job.summary.note(format!(
                "records of other moments of a request's life, not needed: {}",
                unused.join(", ")
            ));
        }
        if self.sorter.late() > 0 {
            let count = counted(self.sorter.late(), "record is", "records are");
            job.summary.note(format!("{count} out of order of time"));
        }
        for input in &self.inputs {
            note_condition(input.source(), job);
        }
    }
}

/// Unix time of the first record, where the notifications tell.
fn origin_unix_ns(clock: &WallClock, first: u64) -> Option<u64> {
    let (stamp, unix) = clock.stamp?;
    let near = |process: &u64| {
        // In a file that blkparse rebased, the first record's own time says nothing.
        let rebased = first < stamp;
        *process >= stamp && (rebased || first.abs_diff(*process) <= PROCESS_TO_RECORD_NS_MAX)
    };
    let time = clock.first_process.filter(near).unwrap_or(first);
    unix.checked_add(time.checked_sub(stamp)?)
}

/// The letters of blkparse(1).
fn letter(act: u16) -> &'static str {
    const LETTERS: [&str; 18] = [
        "?", "Q", "M", "F", "G", "S", "R", "D", "C", "P", "U", "UT", "I", "X", "B", "A", "abort",
        "drv",
    ];
    LETTERS.get(usize::from(act)).copied().unwrap_or("?")
}

#[cfg(test)]
mod tests;
