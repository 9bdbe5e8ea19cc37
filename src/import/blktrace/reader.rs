//! Records of all inputs in order of time, and what becomes of them.
//!
//! The inputs are binary files or texts; what they hold in common is the [`Record`].

use std::collections::BTreeMap;

use super::ahead::{self, Apart};
use super::input::{Item, WallClock};
use super::record::{self, Record};
use super::requests::{Places, Requests};
use super::sorted::{Items, NextItem, Sorted};
use crate::base::{Error, ErrorKind, Nanos, Result};
use crate::import::job::Job;
use crate::import::summary::counted;
use crate::import::{Stage, note_condition};

/// (device, CPU) pairs whose sequence numbers are followed.
const SEQUENCES_MAX: usize = 1 << 16;

/// The first PROCESS notification stands this close before the first record, unless it was made
/// for another device's record.
const PROCESS_TO_RECORD_NS_MAX: u64 = 1_000_000;

/// Reads records into a job.
pub struct Reader<I> {
    sorted: Sorted<I>,
    moments: Moments,
}

impl<I: Items> Reader<I> {
    /// Takes the issues of `stage`; the places of what is lost are called as `places` says.
    pub fn new(inputs: Vec<I>, stage: Stage, places: Places) -> Self {
        Self { sorted: Sorted::new(inputs, places), moments: Moments::new(stage, places) }
    }

    /// The same, with less to sort at a time.
    #[cfg(test)]
    pub(super) fn within(mut self, window: usize) -> Self {
        self.sorted = self.sorted.within(window);
        self
    }

    /// Merges the inputs by time and writes their requests.
    ///
    /// # Errors
    /// Those of the inputs and of the job; Nothing when the inputs have requests of the other
    /// stage only.
    pub fn read(mut self, job: &mut Job<'_>) -> Result<()>
    where
        I: for<'j> NextItem<Job<'j>>,
    {
        while let Some(item) = self.sorted.next(job)? {
            self.moments.item(item, self.sorted.clock(), job)?;
        }
        self.moments.end(&self.sorted, job)
    }

    /// The same, of inputs that a thread can read: it does where they have more than is sorted at a
    /// time.
    ///
    /// # Errors
    /// As [`Reader::read`]; Incomplete when the system has no thread to give.
    pub fn read_ahead(mut self, job: &mut Job<'_>) -> Result<()>
    where
        I: for<'j> NextItem<Job<'j>> + for<'s> NextItem<Apart<'s>> + Send + 'static,
    {
        if let Some(first) = self.sorted.next(job)? {
            self.moments.item(first, self.sorted.clock(), job)?;
        }
        if !self.sorted.has_ended() {
            let (clock, moments) = (*self.sorted.clock(), &mut self.moments);
            let take = |item, job: &mut Job<'_>| moments.item(item, &clock, job);
            self.sorted = ahead::for_each(self.sorted, job, take)?;
        }
        self.read(job)
    }
}

/// Follows the requests from moment to moment.
struct Moments {
    stage: Stage,
    places: Places,
    sequences: Sequences,
    origin: Option<u64>,
    unused: BTreeMap<u16, u64>,
    completions: u64,
    requests: Requests,
}

impl Moments {
    fn new(stage: Stage, places: Places) -> Self {
        Self {
            stage,
            places,
            sequences: Sequences::default(),
            origin: None,
            unused: BTreeMap::new(),
            completions: 0,
            requests: Requests::with_places(stage, places),
        }
    }

    /// An item in its turn; the `clock` is asked about the first.
    #[inline]
    fn item(&mut self, item: Item, clock: &WallClock, job: &mut Job<'_>) -> Result<()> {
        let record = item.record();
        if self.places == Places::Sequence && matches!(item, Item::Record(_)) {
            self.sequences.follow(record, job);
        }
        let origin = *self.origin.get_or_insert_with(|| {
            job.header.origin_unix_ns = origin_unix_ns(clock, record.time);
            record.time
        });
        let time = Nanos(record.time.saturating_sub(origin));
        match &item {
            Item::Record(record) => self.record(record, time, job),
            Item::Message(record, text) => self.message(record, text, time, job),
        }
    }

    #[inline]
    fn record(&mut self, record: &Record, time: Nanos, job: &mut Job<'_>) -> Result<()> {
        self.completions += u64::from(record.act() == record::act::COMPLETE);
        if !self.requests.record(record, time, job)? {
            let count = self.unused.entry(record.act()).or_default();
            *count += 1;
        }
        Ok(())
    }

    fn message(
        &mut self,
        record: &Record,
        text: &[u8],
        time: Nanos,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let name = record.device_name();
        match job.stream(name.as_bytes(), None, || self.places.of(record))? {
            Some(stream) => job.mark(time, stream, text),
            None => Ok(()),
        }
    }

    /// What is known at the end of `sorted`.
    fn end<I: Items>(mut self, sorted: &Sorted<I>, job: &mut Job<'_>) -> Result<()> {
        self.finish(sorted, job);
        job.check_device()?;
        self.check_stage(job)
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

    fn finish<I: Items>(&mut self, sorted: &Sorted<I>, job: &mut Job<'_>) {
        self.requests.finish(job);
        let name = |act| sorted.inputs().first().map_or("?", |input| input.moment(act));
        let named = self.unused.iter().map(|(act, count)| format!("{} {count}", name(*act)));
        let others = sorted.inputs().iter().flat_map(Items::unused);
        let unused: Vec<_> = named.chain(others).collect();
        if !unused.is_empty() {
            job.summary.note(format!(
                "records of other moments of a request's life, not needed: {}",
                unused.join(", ")
            ));
        }
        if sorted.late() > 0 {
            let count = counted(sorted.late(), "record is", "records are");
            job.summary.note(format!("{count} out of order of time"));
        }
        for input in sorted.inputs() {
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
