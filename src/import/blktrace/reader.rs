//! Records of all inputs in order of time, and what becomes of them.
//!
//! The inputs are binary files or texts; what they hold in common is the [`Record`].

use std::collections::BTreeMap;

use super::input::{Item, WallClock};
use super::record::{self, Record};
use super::requests::{Places, Requests};
use crate::base::limits::SORT_WINDOW_EVENTS;
use crate::base::{Error, ErrorKind, Nanos, Result};
use crate::import::job::Job;
use crate::import::sort::{Merger, Order, Sorter};
use crate::import::source::Source;
use crate::import::summary::counted;
use crate::import::{Stage, note_condition};

/// Message text held in the sorter at most; messages past it are lost, and counted.
const MESSAGES_BYTES_MAX: usize = 16 << 20;

/// (device, CPU) pairs whose sequence numbers are followed.
const SEQUENCES_MAX: usize = 1 << 16;

/// The first PROCESS notification stands this close before the first record, unless it was made
/// for another device's record.
const PROCESS_TO_RECORD_NS_MAX: u64 = 1_000_000;

/// An input that gives records.
pub trait Items {
    /// The next record or message, in the input's own order.
    ///
    /// # Errors
    /// Those of the input and of the job.
    fn next(&mut self, clock: &mut WallClock, job: &mut Job<'_>) -> Result<Option<Item>>;

    /// The input, to ask what its end was like.
    fn source(&self) -> &Source;

    /// What the input calls a moment of a request's life.
    fn moment(&self, act: u16) -> &'static str {
        record::act::letter(act)
    }

    /// Further moments that it has seen and no stage needs: name and count of each.
    fn unused(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Order<Item> for Places {
    type Key = (u64, u32, u32);

    #[inline]
    fn key(&self, item: &Item) -> Self::Key {
        Places::key(*self, item.record())
    }
}

/// Reads records into a job.
pub struct Reader<I> {
    stage: Stage,
    places: Places,
    inputs: Vec<I>,
    clock: WallClock,
    sorter: Sorter<Item, Places>,
    messages_bytes: usize,
    sequences: Sequences,
    origin: Option<u64>,
    unused: BTreeMap<u16, u64>,
    completions: u64,
    requests: Requests,
}

impl<I: Items> Reader<I> {
    /// Takes the issues of `stage`; the places of what is lost are called as `places` says.
    pub fn new(inputs: Vec<I>, stage: Stage, places: Places) -> Self {
        Self {
            stage,
            places,
            inputs,
            clock: WallClock::default(),
            sorter: Sorter::new(SORT_WINDOW_EVENTS, places),
            messages_bytes: 0,
            sequences: Sequences::default(),
            origin: None,
            unused: BTreeMap::new(),
            completions: 0,
            requests: Requests::with_places(stage, places),
        }
    }

    /// Merges the inputs by time and writes their requests.
    ///
    /// # Errors
    /// Those of the inputs and of the job; Nothing when the inputs have requests of the other
    /// stage only.
    pub fn read(mut self, job: &mut Job<'_>) -> Result<()> {
        let mut merger = Merger::default();
        let places = self.places;
        let key = |item: &Item| Order::key(&places, item);
        loop {
            let (inputs, clock) = (&mut self.inputs, &mut self.clock);
            let Some(item) = merger.next(inputs, key, |input| input.next(clock, job))? else {
                break;
            };
            self.sort(item, job)?;
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
                let places = self.places;
                job.summary.lose("too many messages at one time", || places.of(record));
                return Ok(());
            }
            self.messages_bytes += text.len();
        }
        match self.sorter.push(item) {
            Some(item) => self.item(item, job),
            None => Ok(()),
        }
    }

    /// An item in its turn.
    #[inline]
    fn item(&mut self, item: Item, job: &mut Job<'_>) -> Result<()> {
        match item {
            Item::Record(record) => self.record(&record, job),
            Item::Message(record, text) => self.message(&record, &text, job),
        }
    }

    #[inline]
    fn record(&mut self, record: &Record, job: &mut Job<'_>) -> Result<()> {
        if self.places == Places::Sequence {
            self.sequences.follow(record, job);
        }
        let time = self.time(record, job);
        self.completions += u64::from(record.act() == record::act::COMPLETE);
        if !self.requests.record(record, time, job)? {
            let count = self.unused.entry(record.act()).or_default();
            *count += 1;
        }
        Ok(())
    }

    fn message(&mut self, record: &Record, text: &[u8], job: &mut Job<'_>) -> Result<()> {
        let time = self.time(record, job);
        self.messages_bytes -= text.len();
        let name = record.device_name();
        match job.stream(name.as_bytes(), None, || self.places.of(record))? {
            Some(stream) => job.mark(time, stream, text),
            None => Ok(()),
        }
    }

    /// The time since the first item, which tells the wall clock.
    fn time(&mut self, record: &Record, job: &mut Job<'_>) -> Nanos {
        let origin = match self.origin {
            Some(origin) => origin,
            None => {
                job.header.origin_unix_ns = origin_unix_ns(&self.clock, record.time);
                *self.origin.insert(record.time)
            }
        };
        Nanos(record.time.saturating_sub(origin))
    }

    /// A capture may leave out moments (`blktrace -a`): then the other stage may have requests, or
    /// none has.
    fn check_stage(&self, job: &Job<'_>) -> Result<()> {
        let (name, other, act) = match self.stage {
            Stage::Queue => ("Q", "D", record::act::ISSUE),
            Stage::Dispatch => ("D", "Q", record::act::QUEUE),
        };
        if job.counts().requests() > 0 {
            return Ok(());
        }
        let (what, hint) = match (self.unused.get(&act), self.completions) {
            (Some(count), _) => (
                format!("the capture has no request at stage {name}"),
                format!("--stage {other} finds {count}"),
            ),
            (None, 0) => return Ok(()),
            (None, count) => (
                format!("the capture has only completions (C), {count} of them"),
                "when a request began, Q and D tell: record them too".to_owned(),
            ),
        };
        Err(Error::new(ErrorKind::Nothing, what).hint(hint))
    }

    fn finish(&mut self, job: &mut Job<'_>) {
        self.requests.finish(job);
        let name = |act| self.inputs.first().map_or("?", |input| input.moment(act));
        let named = self.unused.iter().map(|(act, count)| format!("{} {count}", name(*act)));
        let others = self.inputs.iter().flat_map(Items::unused);
        let unused: Vec<_> = named.chain(others).collect();
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

/// The sequence numbers: the kernel counts records by device and CPU, also those for which its
/// buffer had no room.
#[derive(Default)]
struct Sequences {
    /// Of the device and CPU that were last, which are often the next too.
    last: Option<((u32, u32), u32)>,
    /// Of all others: a few, which an ordered map finds sooner than a hash of its key.
    numbers: BTreeMap<(u32, u32), u32>,
}

impl Sequences {
    #[inline]
    fn follow(&mut self, record: &Record, job: &mut Job<'_>) {
        let key = (record.device, record.cpu);
        match &mut self.last {
            Some((known, last)) if *known == key => {
                let before = std::mem::replace(last, record.sequence);
                note_gap(before, record, job);
            }
            _ => self.follow_other(key, record, job),
        }
    }

    fn follow_other(&mut self, key: (u32, u32), record: &Record, job: &mut Job<'_>) {
        self.numbers.extend(self.last);
        match self.numbers.get(&key) {
            Some(before) => note_gap(*before, record, job),
            None if self.numbers.len() >= SEQUENCES_MAX => return,
            None => {}
        }
        self.last = Some((key, record.sequence));
    }
}

#[inline]
fn note_gap(before: u32, record: &Record, job: &mut Job<'_>) {
    let missing = record.sequence.saturating_sub(before).saturating_sub(1);
    if missing > 0 {
        let reason = "records missing from the capture (gap in a CPU's sequence numbers)";
        job.summary.lose_many(reason, missing.into(), || {
            format!("cpu {} after sequence {before}", record.cpu)
        });
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
