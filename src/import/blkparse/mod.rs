//! What blkparse(1) prints by default: the text of a blktrace.
//!
//! ```text
//! 254,32   1       12     3.000143020   143  Q FWFSM 229400 + 2 [jbd2/vdc-8]
//! 254,32   0     2276     3.259162660     0  C   WS 0 [0]
//!   8,0    1        0     0.000003434     0  m   N cfq17S / alloced
//! CPU0 (vdc):
//!  Reads Queued:          23,       80KiB  Writes Queued:         434,    15125KiB
//! ```
//!
//! Device, CPU, sequence number, seconds since the first record, process, what happened, RWBS, first
//! sector + sectors of 512 bytes, and in brackets the process or, of a completion, the error as the
//! kernel's 16-bit field has it. A record without length has no `+`. `(ELAPSED)` may stand before the
//! brackets (`blkparse -t`); a packet command has its bytes in hex. `m` is a message, which becomes a
//! mark. The statistics at the end are not read but for `Skips:`, records that blkparse missed.
//!
//! The records are those of the binary form, and are followed as those are: see
//! [`blktrace`](super::blktrace). Without `--stage` a text that has Q is read at Q, another at D.
//!
//! Source: blktrace's `blkparse_fmt.c`, `blkparse.c`; checked against a text from Linux 6.1.

mod line;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use self::line::Line;
use super::blktrace::input::{Item, MESSAGE_BYTES_MAX, WallClock};
use super::blktrace::reader::Reader;
use super::blktrace::record::{Record, act, cat};
use super::blktrace::requests::Places;
use super::blktrace::sorted::{Items, NextItem};
use super::dataset::probe::whole_lines;
use super::job::{Job, line_place};
use super::lines::{number, word};
use super::registry::{Confidence, Importer, Probe, STAGE};
use super::source::Source;
use super::text_records::{TextFormat, TextRecords, sequence};
use super::{ImportOptions, Stage};
use crate::base::Result;
use crate::trace::NotRecorded;

/// (device, CPU) pairs whose sequence numbers are followed.
const SEQUENCES_MAX: usize = 1 << 16;

/// The importer.
pub struct Blkparse;

impl Importer for Blkparse {
    fn name(&self) -> &'static str {
        "blkparse"
    }

    fn description(&self) -> &'static str {
        "the text that blkparse prints of a blktrace"
    }

    fn options(&self) -> &'static [&'static str] {
        &[STAGE]
    }

    fn probe(&self, probe: &Probe<'_>) -> Option<Confidence> {
        let is_record =
            |text: &&[u8]| matches!(line::parse(text), Line::Record(..) | Line::Message(..));
        let (mut records, mut lines) = (0, 0);
        for text in whole_lines(probe.head).filter(|text| !text.trim_ascii().is_empty()) {
            lines += 1;
            records += usize::from(is_record(&text));
        }
        (records > 0 && records * 4 >= lines).then_some(Confidence::Likely)
    }

    fn import(
        &self,
        sources: Vec<Source>,
        options: &ImportOptions,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let texts: Vec<_> = TextRecords::all(sources, Text::default, job)?;
        let has = |act| texts.iter().any(|text| text.format.seen(act) > 0);
        let stage = match options.stage {
            Some(stage) => stage,
            None if !has(act::QUEUE) && has(act::ISSUE) => Stage::Dispatch,
            None => Stage::Queue,
        };
        describe(stage, &texts, job);
        let texts: Vec<_> = texts.into_iter().map(Records).collect();
        Reader::new(texts, stage, Places::Line).read(job)
    }
}

fn describe(stage: Stage, texts: &[TextRecords<Text>], job: &mut Job<'_>) {
    use NotRecorded as N;
    let mut lacks = N::WRITE_DATA | N::READ_DATA | N::QUEUES | N::DEVICE_SIZE | N::UNMAP;
    if !texts.iter().any(|text| text.format.write_zeroes) {
        lacks |= N::WRITE_ZEROES;
    }
    job.lacks(lacks);
    job.interpret(stage.interpretation());
    job.interpret("sector unit: 512 bytes");
    job.interpret("times: seconds with nine digits, from the first record");
}

/// Reads the lines of one text.
#[derive(Default)]
struct Text {
    queued: u64,
    issued: u64,
    /// WZ is among the letters (Linux 6.19): before, a write-zeroes stands as a write.
    write_zeroes: bool,
    sequences: HashMap<(u32, u32), u64>,
    missing: u64,
    /// Where a flush was moved to from a partition, by (device, CPU): its queueing follows.
    remapped: HashMap<(u32, u32), u64>,
    /// The statistics have begun.
    ended: bool,
}

impl Text {
    fn seen(&self, act: u16) -> u64 {
        match act {
            act::QUEUE => self.queued,
            act::ISSUE => self.issued,
            _ => 0,
        }
    }

    fn record(&mut self, record: &Record, number: u64) {
        self.queued += u64::from(record.act() == act::QUEUE);
        self.issued += u64::from(record.act() == act::ISSUE);
        self.write_zeroes |= record.is(cat::WRITE_ZEROES);
        let key = (record.device, record.cpu);
        if self.sequences.len() < SEQUENCES_MAX || self.sequences.contains_key(&key) {
            let last = self.sequences.insert(key, number).unwrap_or(number);
            let gap = number.saturating_sub(last).saturating_sub(1);
            self.missing = self.missing.saturating_add(gap);
        }
    }

    /// A flush has no place of its own when it is queued, but its completion names where it was
    /// moved to.
    fn follow_remap(&mut self, record: &mut Record) {
        let key = (record.device, record.cpu);
        match record.act() {
            act::REMAP if record.is(cat::FLUSH) && self.remapped.len() < SEQUENCES_MAX => {
                self.remapped.insert(key, record.sector);
            }
            act::QUEUE if record.is(cat::FLUSH) => {
                let moved = self.remapped.remove(&key).filter(|_| record.bytes == 0);
                record.sector = moved.unwrap_or(record.sector);
            }
            _ => {}
        }
    }

    /// A line that is no record: one of the statistics behind them, or of what blkparse says.
    fn other(&mut self, number: u64, text: &[u8], job: &mut Job<'_>) {
        // A terminal shows how a live blkparse was ended.
        let line = text.trim_ascii();
        let line = line.strip_prefix(b"^C").unwrap_or(line);
        if let Some(skips) = line.strip_prefix(b"Skips:") {
            let count = self::number(word(skips).0).unwrap_or(0);
            let reason = "records missing from the capture (blkparse skipped them)";
            job.summary.lose_many(reason, count, || line_place(number));
        }
        self.ended |= begins_statistics(line);
        let quiet = self.ended
            || line.is_empty()
            || line.starts_with(b"#")
            || (line.starts_with(b"Input file ") && line.ends_with(b" added"));
        if !quiet {
            job.summary.malformed("line that is no record", || line_place(number));
        }
    }
}

/// `CPU0 (sda):`, `Total (sda):`, or with `blkparse -s` a process, `fio (1234, ...)`.
fn begins_statistics(line: &[u8]) -> bool {
    let of_device = line.starts_with(b"CPU") || line.starts_with(b"Total (");
    let counts = [&b"Reads Queued:"[..], b"Events (", b"Throughput (", b"Skips:"];
    let process = || {
        let open = line.iter().rposition(|byte| *byte == b'(')?;
        let pid = line.get(open + 1..)?.split(|byte| !byte.is_ascii_digit()).next()?;
        (line.ends_with(b")") && !pid.is_empty()).then_some(())
    };
    (of_device && line.ends_with(b":"))
        || counts.iter().any(|start| line.starts_with(start))
        || process().is_some()
}

impl TextFormat for Text {
    type Item = Item;

    fn line(&mut self, number: u64, text: &[u8], job: &mut Job<'_>) -> Option<Item> {
        match line::parse(text) {
            Line::Record(mut record, by_cpu) => {
                self.record(&record, by_cpu);
                self.follow_remap(&mut record);
                self.ended = false;
                record.sequence = sequence(number);
                return Some(Item::Record(record));
            }
            Line::Message(mut record, message) => {
                record.sequence = sequence(number);
                let message = message.get(..MESSAGE_BYTES_MAX).unwrap_or(message);
                return Some(Item::Message(record, message.into()));
            }
            Line::Malformed(why) => job.summary.malformed(why, || line_place(number)),
            Line::Other => self.other(number, text, job),
        }
        None
    }
}

/// The records of one text.
struct Records(TextRecords<Text>);

impl NextItem<Job<'_>> for Records {
    fn next(&mut self, _: &mut WallClock, job: &mut Job<'_>) -> Result<Option<Item>> {
        let item = self.0.next_item(job)?;
        if item.is_none() {
            self.finish(job);
        }
        Ok(item)
    }
}

impl Items for Records {
    fn source(&self) -> &Source {
        self.0.source()
    }
}

impl Records {
    fn finish(&self, job: &mut Job<'_>) {
        let text = &self.0.format;
        if text.write_zeroes {
            job.not_recorded.remove(NotRecorded::WRITE_ZEROES);
        }
        if text.missing > 0 {
            job.summary.note(format!(
                "gaps in the CPUs' sequence numbers: {} records were filtered out of the text, or lost \
                 by the tracer",
                text.missing
            ));
        }
    }
}
