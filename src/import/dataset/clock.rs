//! What a column of times counts.
//!
//! A format's documentation says so; `--time-unit` overrides it. Copies of data sets exist in
//! which somebody has rescaled the times: where they are dates, a first time that is no date of
//! 1990 to 2100 in the documented unit but is one in another is read in that other unit, with a
//! note. Times that count from a start cannot be told so: a rate that no device has, or hours
//! between requests, give a note and change nothing. But a format of which files in two units are
//! known ([`Clock::or`]) is read in the other where the first time would be past a century.

use super::fields::scaled;
use super::text::{NOT_A_NUMBER, Skip};
use crate::import::job::Job;
use crate::import::summary::counted;

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TimeUnit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl TimeUnit {
    const ALL: [Self; 4] = [Self::S, Self::Ms, Self::Us, Self::Ns];

    /// Nanoseconds in it.
    pub fn nanos(self) -> u64 {
        match self {
            Self::S => 1_000_000_000,
            Self::Ms => 1_000_000,
            Self::Us => 1_000,
            Self::Ns => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::S => "seconds",
            Self::Ms => "milliseconds",
            Self::Us => "microseconds",
            Self::Ns => "nanoseconds",
        }
    }
}

/// What times count from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::import) enum Epoch {
    /// 1970-01-01 UTC.
    Unix,
    /// 1601-01-01 UTC, in ticks of 100 ns: Windows FILETIME ([MS-DTYP] §2.3.3).
    Windows,
    /// Some start that is not recorded.
    Start,
}

/// Nanoseconds of a FILETIME tick.
const TICK_NS: u64 = 100;
/// Nanoseconds from 1601-01-01 to 1970-01-01.
const WINDOWS_TO_UNIX_NS: u64 = 11_644_473_600_000_000_000;
/// 1990 to 2100, in Unix nanoseconds.
const DATES: std::ops::Range<u64> = 631_152_000_000_000_000..4_102_444_800_000_000_000;

/// No trace counts so long from a start: a hundred years.
const CENTURY_NS: u64 = 3_155_760_000_000_000_000;

/// Rows below which a rate says nothing.
const DOUBT_ROWS_MIN: u64 = 50;
/// Requests a second that no one host reaches: 20 million.
const DOUBT_GAP_NS_MIN: u64 = 50;
/// A mean gap between requests that nobody records: an hour.
const DOUBT_GAP_NS_MAX: u64 = 3_600_000_000_000;

/// Reads times.
#[derive(Clone, Debug)]
pub(in crate::import) struct Clock {
    unit_ns: u64,
    epoch: Epoch,
    /// The unit of a format's other files.
    other: Option<TimeUnit>,
    told: bool,
    /// The unit is settled: the first time was looked at.
    settled: bool,
    dated: bool,
    note: Option<String>,
}

impl Clock {
    /// A clock by a format's documentation, or as the user tells.
    pub(in crate::import) fn new(epoch: Epoch, unit: TimeUnit, told: Option<TimeUnit>) -> Self {
        let unit_ns = told.unwrap_or(unit).nanos();
        let told = told.is_some();
        Self { unit_ns, epoch, other: None, told, settled: false, dated: false, note: None }
    }

    /// Also says the unit of a format's other files, for times since a start.
    pub(in crate::import) fn or(self, other: TimeUnit) -> Self {
        Self { other: Some(other), ..self }
    }

    /// Windows FILETIME, unless the user tells a unit: then Unix time in that unit.
    pub(in crate::import) fn filetime(told: Option<TimeUnit>) -> Self {
        match told {
            Some(_) => Self::new(Epoch::Unix, TimeUnit::Ns, told),
            None => Self { unit_ns: TICK_NS, ..Self::new(Epoch::Windows, TimeUnit::Ns, None) },
        }
    }

    /// The time in a field, in nanoseconds since the epoch.
    #[inline]
    pub(in crate::import) fn read(&mut self, text: &[u8]) -> Option<u64> {
        if !self.settled {
            self.settle(text);
        }
        scaled(text, self.unit_ns)
    }

    /// Why [`Clock::read`] cannot read a field.
    #[cold]
    pub(super) fn why_not(&self, text: &[u8]) -> Skip {
        match scaled(text, 1) {
            Some(_) => Skip::Malformed("time too great for its unit, see --time-unit"),
            None => NOT_A_NUMBER,
        }
    }

    /// A time that needs no unit: it is in nanoseconds already.
    #[inline]
    pub(in crate::import) fn read_ticks(&mut self, ticks: u64) -> Option<u64> {
        if !self.settled {
            self.settle(ticks.to_string().as_bytes());
        }
        ticks.checked_mul(self.unit_ns)
    }

    /// The unit in nanoseconds, once it is known.
    #[inline]
    pub(super) fn settled_unit(&self) -> Option<u64> {
        self.settled.then_some(self.unit_ns)
    }

    /// Whether the unit is known: from then on reading a time changes nothing.
    pub(super) fn is_settled(&self) -> bool {
        self.settled
    }

    #[cold]
    fn settle(&mut self, text: &[u8]) {
        self.take_other(text);
        let Some(time) = scaled(text, self.unit_ns) else {
            // Past the end of time in this unit; not a number is left to the row that holds it.
            if scaled(text, 1).is_some() && self.guess(text) {
                self.settled = true;
            }
            return;
        };
        self.settled = true;
        self.dated = self.unix_of(time).is_some_and(|unix| DATES.contains(&unix));
        if !self.dated && self.epoch == Epoch::Unix && !self.told && !self.guess(text) {
            self.note = Some(format!(
                "the first time, {}, is no date in {}: taken as counted from some start",
                text.escape_ascii(),
                self.unit_name()
            ));
        }
    }

    /// Takes the unit of the format's other files, if a time is too far from its start in the
    /// documented one.
    fn take_other(&mut self, text: &[u8]) {
        let near = |unit_ns| scaled(text, unit_ns).is_some_and(|time| time < CENTURY_NS);
        if let Some(other) = self.other.filter(|_| !self.told)
            && !near(self.unit_ns)
            && near(other.nanos())
        {
            self.note = Some(format!(
                "times in {}, as the format has it, would be past a century: read in {} \
                 (--time-unit overrides)",
                self.unit_name(),
                other.name()
            ));
            self.unit_ns = other.nanos();
        }
    }

    /// Takes the unit in which a time is a date, if there is one.
    fn guess(&mut self, text: &[u8]) -> bool {
        if self.told || self.epoch != Epoch::Unix {
            return false;
        }
        let is_date =
            |unit: &TimeUnit| scaled(text, unit.nanos()).is_some_and(|unix| DATES.contains(&unix));
        let Some(unit) = TimeUnit::ALL.into_iter().find(is_date) else { return false };
        self.note = Some(format!(
            "times are no dates in {}, as the format has it, but in {}: read as such \
             (--time-unit overrides)",
            self.unit_name(),
            unit.name()
        ));
        self.unit_ns = unit.nanos();
        self.dated = true;
        true
    }

    fn unix_of(&self, time: u64) -> Option<u64> {
        match self.epoch {
            Epoch::Unix => Some(time),
            Epoch::Windows => time.checked_sub(WINDOWS_TO_UNIX_NS),
            Epoch::Start => None,
        }
    }

    /// A time as Unix time in nanoseconds, where it is a date.
    pub(in crate::import) fn unix_ns(&self, time: u64) -> Option<u64> {
        self.unix_of(time).filter(|_| self.dated)
    }

    fn unit_name(&self) -> &'static str {
        match TimeUnit::ALL.into_iter().find(|unit| unit.nanos() == self.unit_ns) {
            Some(unit) => unit.name(),
            None => "ticks of 100 ns",
        }
    }

    /// Says how times are read; call it once the first row was read.
    pub(in crate::import) fn describe(&mut self, job: &mut Job<'_>) {
        let from = match self.epoch {
            Epoch::Unix if self.dated || !self.settled => "since 1970-01-01 UTC",
            Epoch::Windows if self.dated || !self.settled => {
                "since 1601-01-01 UTC (Windows FILETIME)"
            }
            _ => "since a start that is not recorded",
        };
        let told = if self.told { ", as told" } else { "" };
        job.interpret(format!("times: {} {from}{told}", self.unit_name()));
        if let Some(note) = self.note.take() {
            job.summary.note(note);
        }
    }

    /// What is odd about `rows` rows in `span_ns` nanoseconds.
    pub(super) fn doubt(&self, span_ns: u64, rows: u64) -> Option<String> {
        if rows < DOUBT_ROWS_MIN || span_ns == 0 {
            return None;
        }
        let gap = span_ns / rows;
        if (DOUBT_GAP_NS_MIN..DOUBT_GAP_NS_MAX).contains(&gap) {
            return None;
        }
        let rows = counted(rows, "row", "rows");
        let seconds = span_ns as f64 / 1e9;
        Some(format!(
            "{rows} in {seconds} s: are times really in {}? --time-unit tells another unit",
            self.unit_name()
        ))
    }
}
