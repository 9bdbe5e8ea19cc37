//! Lines of kernel events as moments of requests' lives.

use std::collections::{BTreeMap, HashSet};

use super::block::{self, Kind};
use super::clock::Clock;
use super::nvme::{self, Command};
use super::prefix::{self, Event, Line};
use crate::base::Result;
use crate::import::Stage;
use crate::import::blktrace::input::{Item, WallClock};
use crate::import::blktrace::record::{Record, act};
use crate::import::blktrace::sorted::{Items, NextItem};
use crate::import::job::{Job, line_place};
use crate::import::source::Source;
use crate::import::text_records::{TextFormat, TextRecords, sequence};

/// Names of events that are counted one by one; those of further ones are counted together.
const NAMES_MAX: usize = 64;
/// Bytes of an event's name that are kept.
const NAME_BYTES_MAX: usize = 64;

/// What an event says of a request.
#[derive(Clone, Debug)]
pub(super) enum Moment {
    /// An event of the block layer; its act is not decided yet.
    Block(Kind, Record),
    /// An event of the NVMe driver: time, line.
    Nvme(u64, u64, Command),
}

/// Reads lines of events.
pub(super) struct Events {
    /// The trace clock.
    pub clock: Clock,
    /// Events of the block layer seen, by number of their kind.
    pub seen: [u64; Kind::ALL.len()],
    /// Commands of the NVMe driver seen.
    pub commands: u64,
    /// Events of other moments of a request's life.
    unused: BTreeMap<String, u64>,
}

impl Events {
    /// A reader of events with such times.
    pub fn new(clock: Clock) -> Self {
        Self { clock, seen: [0; _], commands: 0, unused: BTreeMap::new() }
    }

    fn event(
        &mut self,
        number: u64,
        event: &Event<'_>,
        job: &mut Job<'_>,
    ) -> Result<Option<Moment>, &'static str> {
        let time = |clock: &mut Clock| clock.read(event.time).ok_or("time out of range");
        if let Some(found) = block::event(event.name, event.args) {
            let (kind, mut record) = found?;
            record.time = time(&mut self.clock)?;
            record.sequence = sequence(number);
            record.cpu = event.cpu.map_or(NO_CPU, u32::from);
            if let Some(count) = self.seen.get_mut(kind as usize) {
                *count += 1;
            }
            return Ok(Some(Moment::Block(kind, record)));
        }
        if let Some(command) = nvme::parse(event.name, event.args, event.cpu)? {
            let time = time(&mut self.clock)?;
            self.commands += 1;
            return Ok(Some(Moment::Nvme(time, number, command)));
        }
        let name = event.name.get(..NAME_BYTES_MAX).unwrap_or(event.name);
        let name = String::from_utf8_lossy(name);
        if event.name == block::TRACER {
            let act = String::from_utf8_lossy(block::act(event.args));
            self.count_unused(&format!("{name} {act}"));
        } else if name.starts_with("block_") || name.starts_with("nvme_") {
            self.count_unused(&name);
        } else {
            job.summary.lose(&format!("other event: {name}"), || line_place(number));
        }
        Ok(None)
    }

    fn count_unused(&mut self, name: &str) {
        if let Some(count) = self.unused.get_mut(name) {
            *count += 1;
        } else {
            let name = if self.unused.len() < NAMES_MAX { name } else { "others" };
            *self.unused.entry(name.to_owned()).or_default() += 1;
        }
    }

    /// Name and count of each event that was not needed.
    pub fn unused(&self) -> Vec<String> {
        self.unused.iter().map(|(name, count)| format!("{name} {count}")).collect()
    }
}

/// The CPU of a record that has none; no CPU of a trace has this number.
const NO_CPU: u32 = u32::MAX;

impl TextFormat for Events {
    type Item = Moment;

    fn line(&mut self, number: u64, text: &[u8], job: &mut Job<'_>) -> Option<Moment> {
        let place = || line_place(number);
        match prefix::parse(text) {
            Line::Event(event) => match self.event(number, &event, job) {
                Ok(moment) => return moment,
                Err(why) => job.summary.malformed(why, place),
            },
            Line::Lost(count) => {
                job.summary.lose_many("events that the tracer lost", count.unwrap_or(1), place);
            }
            Line::Comment => {}
            Line::Other => job.summary.malformed("line without a trace event", place),
        }
        None
    }
}

/// Which events make requests of the block layer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// The stage.
    pub stage: Stage,
    /// What stands for a dispatch.
    pub dispatch: Kind,
    /// Whether `block_io_done` stands for completions.
    pub accounting: bool,
    /// Whether dispatches that the driver hands back are told of.
    pub requeues: bool,
}

impl Choice {
    /// Takes what was `seen`, of the stage that is `told`, or else of Q if the capture has it.
    /// `None` when it has no issue of a request.
    pub fn new(seen: &[u64; Kind::ALL.len()], told: Option<Stage>) -> Option<Self> {
        let has = |kind: Kind| seen.get(kind as usize).is_some_and(|count| *count > 0);
        let dispatches =
            [Kind::RqIssue, Kind::IoStart, Kind::RqInsert, Kind::RqComplete, Kind::BioComplete];
        let dispatch = dispatches.into_iter().find(|kind| has(*kind));
        let stage = match (told, has(Kind::BioQueue), dispatch) {
            (Some(stage), ..) => stage,
            (None, true, _) => Stage::Queue,
            (None, false, Some(_)) => Stage::Dispatch,
            (None, false, None) => return None,
        };
        let accounting = !has(Kind::RqComplete) && !has(Kind::BioComplete);
        let dispatch = dispatch.unwrap_or(Kind::RqIssue);
        Some(Self { stage, dispatch, accounting, requeues: has(Kind::RqRequeue) })
    }

    /// Whether the capture has the ends of requests alone, which then stand for them.
    pub fn ends_alone(self) -> bool {
        self.stage == Stage::Dispatch && self.dispatch.has_errno()
    }

    /// The event that is a request's issue.
    pub fn issue(self) -> Kind {
        match self.stage {
            Stage::Queue => Kind::BioQueue,
            Stage::Dispatch => self.dispatch,
        }
    }

    /// What an event of this kind is to a request; `None` when it is not needed.
    fn act(self, kind: Kind) -> Option<u16> {
        match kind {
            Kind::BioQueue => Some(act::QUEUE),
            kind if kind == self.dispatch => Some(act::ISSUE),
            Kind::RqRequeue => Some(act::REQUEUE),
            Kind::RqComplete => Some(act::COMPLETE),
            // A driver gets none of these.
            Kind::BioComplete => (self.stage == Stage::Queue).then_some(act::COMPLETE),
            Kind::IoDone => self.accounting.then_some(act::COMPLETE),
            Kind::IoStart | Kind::RqInsert | Kind::RqIssue => None,
        }
    }
}

/// The block layer's events of one input, as records.
pub(super) struct BlockRecords {
    /// The input.
    pub records: TextRecords<Events>,
    /// How they are read.
    pub choice: Choice,
    /// Dispatches without an end yet, of a capture that does not tell which are handed back.
    dispatched: HashSet<Dispatch>,
}

/// Device, first sector, bytes and categories.
type Dispatch = (u32, u64, u32, u64);

/// Dispatches that are remembered: far more than devices have in flight.
const DISPATCHED_MAX: usize = 1 << 16;

impl BlockRecords {
    /// The records of one input.
    pub fn new(records: TextRecords<Events>, choice: Choice) -> Self {
        Self { records, choice, dispatched: HashSet::new() }
    }

    /// Says so when a dispatch may be that of a request which the driver has handed back.
    fn watch(&mut self, act: u16, record: &Record, job: &mut Job<'_>) {
        if self.choice.requeues || self.choice.issue() != Kind::RqIssue {
            return;
        }
        let dispatch = (record.device, record.sector, record.bytes, record.action);
        if act != act::ISSUE {
            self.dispatched.remove(&dispatch);
        } else if self.dispatched.len() < DISPATCHED_MAX && !self.dispatched.insert(dispatch) {
            job.summary.note(
                "requests were dispatched while equal ones were in flight: those that the driver had \
                 handed back stand twice (with block_rq_requeue recorded they do not)",
            );
        }
    }
}

impl NextItem<Job<'_>> for BlockRecords {
    fn next(&mut self, _: &mut WallClock, job: &mut Job<'_>) -> Result<Option<Item>> {
        while let Some(moment) = self.records.next_item(job)? {
            match moment {
                Moment::Block(kind, mut record) => match self.choice.act(kind) {
                    Some(act) => {
                        self.watch(act, &record, job);
                        record.action |= u64::from(act);
                        return Ok(Some(Item::Record(record)));
                    }
                    None => self.records.format.count_unused(kind.name()),
                },
                Moment::Nvme(_, _, command) => self.records.format.count_unused(command.event()),
            }
        }
        Ok(None)
    }
}

impl Items for BlockRecords {
    fn source(&self) -> &Source {
        self.records.source()
    }

    fn moment(&self, act: u16) -> &'static str {
        match act {
            act::QUEUE => Kind::BioQueue.name(),
            act::ISSUE => self.choice.dispatch.name(),
            act::REQUEUE => Kind::RqRequeue.name(),
            _ => "completion",
        }
    }

    fn unused(&self) -> Vec<String> {
        self.records.format.unused()
    }
}

/// A command with its time and its line.
pub(super) type Heard = (u64, u64, Command);

/// The driver's commands of one input.
pub(super) fn next_command(
    records: &mut TextRecords<Events>,
    job: &mut Job<'_>,
) -> Result<Option<Heard>> {
    while let Some(moment) = records.next_item(job)? {
        match moment {
            Moment::Nvme(time, line, command) => return Ok(Some((time, line, command))),
            Moment::Block(kind, _) => records.format.count_unused(kind.name()),
        }
    }
    Ok(None)
}
