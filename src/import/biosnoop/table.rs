//! The table that biosnoop prints: its columns, by their headings, and its rows.

use super::words::{NO_DISK, Words, words};
use crate::base::{BlockOp, OpFlags, SECTOR_SIZE};
use crate::import::blktrace::record::{Record, cat};
use crate::import::blktrace::requests::{flags, operation};
use crate::import::dataset::fields::scaled;
use crate::import::kernel_text::rwbs;
use crate::import::lines::number;
use crate::import::{Stage, TimeUnit};

/// Columns looked at: the widest table has eleven.
const COLUMNS_MAX: usize = 16;
/// A request whose start bcc's tool did not see: `?  0  R 0  8  2.89`.
const UNSEEN: &str = "request that the tool did not see begin (COMM ?): its row has no place";
/// A day, for times of day.
const DAY_NS: u64 = 86_400_000_000_000;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// When the request was complete, in such units.
    Time(TimeUnit),
    /// The same, `HH:MM:SS.mmm`.
    TimeOfDay,
    Comm,
    Pid,
    Disk,
    /// R or W, or RWBS.
    Rwbs,
    Sector,
    Bytes,
    /// Time in the operating system's queue.
    Queued(TimeUnit),
    Latency(TimeUnit),
    /// Sequential or random, and what else there may be.
    Other,
}

impl Column {
    fn of(heading: &[u8]) -> Self {
        let unit = |name: &[u8]| {
            let unit = heading.strip_prefix(name)?.strip_prefix(b"(")?.strip_suffix(b")")?;
            match unit {
                b"s" => Some(TimeUnit::S),
                b"ms" => Some(TimeUnit::Ms),
                b"us" => Some(TimeUnit::Us),
                b"ns" => Some(TimeUnit::Ns),
                _ => None,
            }
        };
        if let Some(unit) = unit(b"TIME") {
            return Self::Time(unit);
        }
        if let Some(unit) = unit(b"QUE") {
            return Self::Queued(unit);
        }
        if let Some(unit) = unit(b"LAT") {
            return Self::Latency(unit);
        }
        match heading {
            b"TIMESTAMP" => Self::TimeOfDay,
            b"COMM" => Self::Comm,
            b"PID" => Self::Pid,
            b"DISK" | b"DEV" => Self::Disk,
            b"T" | b"RWBS" => Self::Rwbs,
            b"SECTOR" => Self::Sector,
            b"BYTES" => Self::Bytes,
            _ => Self::Other,
        }
    }
}

/// The columns of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    columns: Vec<Column>,
    /// The kind is R or W and nothing else: bcc's, in which R is all that is no write.
    pub read_or_write: bool,
}

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<'l> {
    /// Nanoseconds from the tool's start, or of the day, at completion.
    pub done: u64,
    /// Nanoseconds from the issue, of the stage asked for, to completion.
    pub latency: Option<u64>,
    /// The disk.
    pub disk: &'l [u8],
    /// What is asked.
    pub op: BlockOp,
    /// Modifiers.
    pub flags: OpFlags,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// The letters are more than R and W.
    pub has_flags: bool,
}

/// Why a line is no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It does not look like one.
    NoRow,
    /// It does, and cannot stand in a trace.
    Lost(&'static str),
}

impl Table {
    /// The table that a line is the heading of.
    pub fn of_heading(line: &[u8]) -> Option<Self> {
        let words: Vec<_> = words(line).take(COLUMNS_MAX).collect();
        let columns: Vec<_> = words.iter().map(|word| Column::of(word)).collect();
        let has = |wanted: fn(&Column) -> bool| columns.iter().any(wanted);
        let timed = has(|column| matches!(column, Column::Time(_) | Column::TimeOfDay));
        let fits = timed
            && has(|column| matches!(column, Column::Latency(_)))
            && has(|column| *column == Column::Comm || *column == Column::Pid);
        let kind = columns.iter().position(|column| *column == Column::Rwbs);
        // libbpf-tools' kind is four letters wide under the same heading; bcc's one, once two.
        let has_words = |words: &[u8]| memchr::memmem::find(line, words).is_some();
        let narrow = has_words(b" T SECTOR") || has_words(b" T  SECTOR");
        let read_or_write = kind.is_none() || narrow;
        fits.then_some(Self { columns, read_or_write })
    }

    /// The table of a text that has lost its heading, by one of its rows: bcc's, or with `-Q`.
    pub fn of_row(line: &[u8]) -> Option<Self> {
        const HEADINGS: [&[u8]; 2] = [
            b"TIME(s) COMM PID DISK T    SECTOR BYTES LAT(ms)",
            b"TIME(s) COMM PID DISK T    SECTOR BYTES QUE(ms) LAT(ms)",
        ];
        let tables = HEADINGS.into_iter().filter_map(Self::of_heading);
        let is_row = |table: &Self| table.row(line, Stage::Dispatch, None) != Err(Why::NoRow);
        tables.into_iter().find(is_row)
    }

    /// Its columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether it says where a request goes.
    pub fn has_places(&self) -> bool {
        [Column::Sector, Column::Bytes].iter().all(|column| self.columns.contains(column))
    }

    /// What its times count, where they are not those of a day.
    pub fn time_unit(&self) -> Option<TimeUnit> {
        self.columns.iter().find_map(|column| unit_of(*column, Column::Time))
    }

    /// Whether it says how long requests were queued.
    pub fn has_queue_times(&self) -> bool {
        self.columns.iter().any(|column| matches!(column, Column::Queued(_)))
    }

    /// The row that a line is; its TIME counts `told`, if not what the heading says.
    pub fn row<'l>(
        &self,
        line: &'l [u8],
        stage: Stage,
        told: Option<TimeUnit>,
    ) -> Result<Row<'l>, Why> {
        let words = Words::of(line, self.columns());
        let words = words.as_slice();
        let value = |wanted: Column| self.value(words, |column| column == wanted);
        let timed = |wanted: fn(Column) -> Option<TimeUnit>, told: Option<TimeUnit>| {
            let text = self.value(words, |column| wanted(column).is_some());
            let unit = self.columns.iter().find_map(|column| wanted(*column));
            scaled(text?, told.or(unit)?.nanos())
        };
        if let Some(pid) = value(Column::Pid) {
            number(pid).ok_or(Why::NoRow)?;
        }
        let done = match value(Column::TimeOfDay) {
            Some(text) => time_of_day(text),
            None => timed(|column| unit_of(column, Column::Time), told),
        };
        let done = done.ok_or(Why::NoRow)?;
        let latency = timed(|column| unit_of(column, Column::Latency), None).ok_or(Why::NoRow)?;
        // -1 stands for what was never queued.
        let queued = timed(|column| unit_of(column, Column::Queued), None).unwrap_or(0);
        let latency = match stage {
            Stage::Queue => latency.saturating_add(queued),
            Stage::Dispatch => latency,
        };
        let disk = value(Column::Disk).unwrap_or_default();
        let unseen = value(Column::Comm) == Some(b"?") && disk == NO_DISK;
        let letters = value(Column::Rwbs).ok_or(Why::NoRow)?;
        let len = value(Column::Bytes).and_then(number).ok_or(Why::NoRow)?;
        let sector = value(Column::Sector).ok_or(Why::NoRow)?;
        let sector = match sector {
            b"-1" => u64::MAX,
            text => number(text).ok_or(Why::NoRow)?,
        };
        let rwbs = rwbs::parse(letters).ok_or(Why::NoRow)?;
        if unseen {
            return Err(Why::Lost(UNSEEN));
        }
        let (op, flags) = asked(rwbs, sector, len).map_err(Why::Lost)?;
        let (offset, len) = match op.has_range() {
            true => (sector.checked_mul(SECTOR_SIZE).ok_or(Why::NoRow)?, len),
            false => (0, 0),
        };
        let has_flags = !matches!(letters, b"R" | b"W");
        Ok(Row { done, latency: Some(latency), disk, op, flags, offset, len, has_flags })
    }

    /// The word of a column: a command may be of any number of words, so that what is behind it is
    /// counted from the end.
    fn value<'l>(&self, words: &[&'l [u8]], wanted: impl Fn(Column) -> bool) -> Option<&'l [u8]> {
        let at = self.columns.iter().position(|column| wanted(*column))?;
        let comm = self.columns.iter().position(|column| *column == Column::Comm);
        if words.len() + usize::from(comm.is_some()) < self.columns.len() {
            return None;
        }
        match comm {
            Some(comm) if at > comm => {
                let from_end = self.columns.len() - at;
                words.get(words.len().checked_sub(from_end)?).copied()
            }
            None if words.len() != self.columns.len() => None,
            _ => words.get(at).copied(),
        }
    }
}

/// The unit of a column of that sort.
fn unit_of(column: Column, sort: fn(TimeUnit) -> Column) -> Option<TimeUnit> {
    match column {
        Column::Time(unit) | Column::Queued(unit) | Column::Latency(unit) => {
            (sort(unit) == column).then_some(unit)
        }
        _ => None,
    }
}

/// What is asked of that place.
fn asked(rwbs: rwbs::Rwbs, sector: u64, len: u64) -> Result<(BlockOp, OpFlags), &'static str> {
    let mut categories = rwbs.categories;
    if rwbs.other {
        // What has no letter of its own and a place is write-zeroes.
        categories |= if len > 0 { cat::WRITE | cat::WRITE_ZEROES } else { cat::READ };
    }
    let flush = categories & cat::FLUSH != 0;
    if sector == u64::MAX && len > 0 {
        return Err("packet command of a driver or user");
    }
    if len == 0 && !flush {
        return Err("request of length 0 (a flush, or a command without data)");
    }
    let record = Record {
        sequence: 0,
        time: 0,
        sector,
        bytes: u32::try_from(len).map_err(|_| "length of 4 GiB or more")?,
        action: categories << 16,
        device: 0,
        cpu: 0,
        error: 0,
        pdu_len: 0,
    };
    let op = operation(&record)?;
    Ok((op, flags(&record, op)))
}

/// `HH:MM:SS.mmm`.
fn time_of_day(text: &[u8]) -> Option<u64> {
    let mut parts = text.splitn(3, |byte| *byte == b':');
    let (hours, minutes) = (number(parts.next()?)?, number(parts.next()?)?);
    let seconds = scaled(parts.next()?, TimeUnit::S.nanos())?;
    let minutes = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
    Some(minutes * 60_000_000_000 + seconds).filter(|time| *time < DAY_NS + 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCC: &[u8] = b"TIME(s)     COMM           PID    DISK    T SECTOR     BYTES   LAT(ms)";
    const LIBBPF: &[u8] =
        b"TIMESTAMP    COMM           PID     DISK    T    SECTOR     BYTES   QUE(ms) LAT(ms)";

    fn row<'l>(heading: &[u8], line: &'l str) -> Result<Row<'l>, Why> {
        Table::of_heading(heading).unwrap().row(line.as_bytes(), Stage::Dispatch, None)
    }

    #[test]
    fn rows_of_each_variant() {
        let want = Row {
            done: 1_022_346_000,
            latency: Some(980_000),
            disk: b"xvda1",
            op: BlockOp::Write,
            flags: OpFlags::empty(),
            offset: 13_115_272 * 512,
            len: 4096,
            has_flags: false,
        };
        let bcc = "1.022346    my odd job     1950   xvda1   W 13115272   4096       0.98";
        assert_eq!(row(BCC, bcc), Ok(want));
        let pattern = b"TIME(s) COMM PID DISK T SECTOR BYTES P QUE(ms) LAT(ms)";
        let line = "1.022346  1950   xvda1   W 13115272   4096  S    0.10   0.98";
        assert_eq!(row(pattern, line), Ok(want));
        let bpftrace = b"TIME(us) COMM PID DEV RWBS SECTOR BYTES LAT(us)";
        assert_eq!(row(bpftrace, "1022346 fio 1 xvda1 W 13115272 4096 980"), Ok(want));
        let libbpf = "00:00:01.022 fio 12 xvda1 FWFS 8 4096 -1.000   0.980";
        let Ok(Row { done, latency, flags, has_flags, .. }) = row(LIBBPF, libbpf) else { panic!() };
        assert_eq!((done, latency, has_flags), (1_022_000_000, Some(980_000), true));
        assert_eq!(flags, OpFlags::PREFLUSH | OpFlags::FUA | OpFlags::SYNC);
    }

    #[test]
    fn the_stage_and_the_unit_that_are_told() {
        let line = b"00:00:01.022 fio 12 xvda1 W 8 4096 0.100   0.980";
        let table = Table::of_heading(LIBBPF).unwrap();
        let row = table.row(line, Stage::Queue, None).unwrap();
        assert_eq!(row.latency, Some(1_080_000));
        let table = Table::of_heading(BCC).unwrap();
        let row = table.row(b"17 fio 1 sda R 8 512 0.5", Stage::Dispatch, Some(TimeUnit::Us));
        assert_eq!(row.unwrap().done, 17_000);
    }

    #[test]
    fn what_is_no_request_of_a_disk() {
        let of = |tail: &str| {
            let line = format!("1.0 fio 12 sda {tail} 0.5");
            row(BCC, &line).map(|row| row.op)
        };
        assert_eq!(of("FF 18446744073709551615 0"), Ok(BlockOp::Flush));
        assert_eq!(of("F -1 0"), Ok(BlockOp::Flush));
        assert_eq!(of("DS 8 4096"), Ok(BlockOp::Discard));
        assert_eq!(of("N 8 4096"), Ok(BlockOp::WriteZeroes));
        let packet = Err(Why::Lost("packet command of a driver or user"));
        assert_eq!(of("R 18446744073709551615 512"), packet);
        let nothing = Err(Why::Lost("request of length 0 (a flush, or a command without data)"));
        assert_eq!(of("R 18446744073709551615 0"), nothing);
        for bad in ["Q 8 512", "R x 512", "R 8 x", "R 8", ""] {
            assert_eq!(of(bad), Err(Why::NoRow), "{bad}");
        }
    }

    #[test]
    fn headings_and_a_text_without_one() {
        assert!(Table::of_heading(BCC).is_some_and(|t| t.read_or_write && !t.has_queue_times()));
        assert!(Table::of_heading(LIBBPF).is_some_and(|t| !t.read_or_write && t.has_queue_times()));
        let old = b"TIME(s)        COMM           PID    DISK    T  SECTOR    BYTES   LAT(ms)";
        assert!(Table::of_heading(old).is_some_and(|table| table.read_or_write));
        let stock = b"TIME(ms)     DISK    COMM             PID    LAT(ms)";
        assert!(Table::of_heading(stock).is_some_and(|table| !table.has_places()));
        assert_eq!(Table::of_heading(b"Device: rrqm/s wrqm/s r/s"), None);
        let with_queue = Table::of_row(b"1.0 a b 12 sda W 8 512 0.01 0.5").unwrap();
        assert!(with_queue.has_queue_times());
        assert!(!Table::of_row(b"1.0 a b 12 sda W 8 512 0.5").unwrap().has_queue_times());
        assert_eq!(Table::of_row(b"what is this line about"), None);
    }
}
