//! The block traces (`ds_*.csv`, `block_*.csv`) of cacheMon's io-tracer, for Linux, Windows, macOS
//! and Android. Later versions have a header; the columns of earlier ones, without, changed often.
//!
//! ```text
//! timestamp,operation,pid,tid,command,sector,size,latency_ms,device,flags,cpu_id,ppid,…
//! timestamp,pid,command,sector,operation,size,latency_ms,tid,cpu_id,ppid,dev,queue_time_ms,cmd_flags,op_code
//! timestamp,pid,command,sector,operation,size,latency_ms,tid,nr_sectors,cpu_id,ppid
//! 2024-01-15 10:30:45.123456,1234,python3,2048000,write,8192,1.234,1235,16,0,1233
//! ```
//!
//! The timestamp is that of the *completion*, in local time of an unknown zone; the issue was
//! `latency_ms` before it. Sectors are 512 bytes, the size is in bytes. The operation is the letters
//! of the block layer as words (`flush|write|sync` is FWS: a write with PREFLUSH); with `flags`, it
//! is the first of them and the flags are the rest.
//!
//! Source: <https://github.com/cacheMon/io-tracer>, `docs/TRACE_FORMAT.md`, `docs/traces/`,
//! `FlagMapper.py` (`format_block_ops`), and the same of io-tracer-win, -mac and -android.

mod columns;

use self::columns::Columns;
use super::ImportOptions;
use super::calendar::days_since_1970;
use super::dataset::clock::{Clock, Epoch, TimeUnit};
use super::dataset::fields::{Fields, Separator, scaled, whole};
use super::dataset::text::{LineFormat, NOT_A_NUMBER, Parsed, Skip, TextRows};
use super::dataset::{About, DataSet, lacks, probe};
use super::job::Job;
use super::kernel_text::rwbs;
use super::registry::Confidence;
use super::source::Source;
use crate::base::{BlockOp, OpFlags, Result, SECTOR_SIZE};
use crate::trace::NotRecorded;

/// What `latency_ms` counts.
const MILLISECOND_NS: u64 = 1_000_000;

/// The importer.
pub struct IoTracer;

impl DataSet for IoTracer {
    type Input = TextRows<Rows>;

    fn about(&self) -> About {
        use NotRecorded as N;
        About {
            options: &[],
            lacks: lacks()
                - (N::FLUSHES | N::DISCARDS | N::WRITE_ZEROES | N::FUA | N::PREFLUSH | N::HINTS),
            interpretation: &[
                "timestamp: local time of the completion; issue: latency_ms before it",
                "sector: units of 512 bytes; size: bytes",
            ],
            ..About::of(
                "io-tracer",
                "cacheMon io-tracer's block traces: timestamp,pid,command,sector,operation,size,…",
            )
        }
    }

    fn clock(&self, told: Option<TimeUnit>) -> Clock {
        // Times are put together from dates.
        Clock::new(Epoch::Start, TimeUnit::Ns, told)
    }

    fn looks_like(&self, head: &[u8]) -> Option<Confidence> {
        probe::likely(head, Rows::default(), self.clock(None))
    }

    fn inputs(
        &self,
        sources: Vec<Source>,
        _options: &ImportOptions,
        _job: &mut Job<'_>,
    ) -> Result<Vec<Self::Input>> {
        Ok(TextRows::all(sources, Rows::default))
    }
}

#[derive(Default)]
pub(super) struct Rows {
    /// What a header says.
    named: Option<Columns>,
}

impl LineFormat for Rows {
    const SEPARATOR: Separator = Separator::Byte(b',');

    fn parse<'l>(&mut self, fields: Fields<'l>, clock: &mut Clock) -> Result<Parsed<'l>, Skip> {
        if self.is_header(fields) {
            self.named = Columns::named(fields);
            return Err(Skip::Quiet);
        }
        let columns = self.named.or_else(|| Columns::of_row(fields));
        let columns = columns.ok_or(Skip::Malformed("row has less than 10 fields"))?;
        let done = date_ns(fields.get(0)).ok_or(Skip::Malformed("timestamp is no date"))?;
        let latency = match columns.latency.map_or(&b""[..], |at| fields.get(at)) {
            b"" => None,
            text => Some(scaled(text, MILLISECOND_NS).ok_or(NOT_A_NUMBER)?),
        };
        let issued = done.checked_sub(latency.unwrap_or(0)).ok_or(NOT_A_NUMBER)?;
        let time = clock.read_ticks(issued).ok_or(NOT_A_NUMBER)?;
        let sector = whole(fields.get(columns.sector)).ok_or(NOT_A_NUMBER)?;
        let len = whole(fields.get(columns.size)).ok_or(NOT_A_NUMBER)?;
        let offset = sector.checked_mul(SECTOR_SIZE).ok_or(NOT_A_NUMBER)?;
        let modifiers = columns.flags.map_or(&b""[..], |at| fields.get(at));
        let code = columns.code.map_or(&b""[..], |at| fields.get(at));
        let (op, flags) = operation(fields.get(columns.operation), modifiers, code, len)?;
        let device = columns.device(fields);
        let (offset, len) = if op.has_range() { (offset, len) } else { (0, 0) };
        Ok(Parsed { device, flags, latency, ..Parsed::request(time, op, offset, len) })
    }

    fn is_header(&self, fields: Fields<'_>) -> bool {
        fields.get(0).eq_ignore_ascii_case(b"timestamp")
    }
}

/// `write|sync|meta`: the letters of the block layer as words, in its order. Modifiers in a column
/// of their own may hold other systems' words, which are passed over.
fn operation(
    text: &[u8],
    modifiers: &[u8],
    code: &[u8],
    bytes: u64,
) -> Result<(BlockOp, OpFlags), Skip> {
    let words = |text: &[u8]| text.to_ascii_lowercase();
    let (text, modifiers) = (words(text), words(modifiers));
    let own = text.split(|byte| *byte == b'|').filter(|word| *word != b"prio").map(letter);
    let letters: Option<Vec<u8>> = own.collect();
    let mut letters = letters.ok_or(Skip::Malformed("unknown operation"))?;
    let words = modifiers.split(|byte| *byte == b'|').filter(|word| !word.is_empty());
    letters.extend(words.filter_map(letter));
    let rwbs = match letters.as_slice() {
        [b'E', ..] => return Err(SECURE_ERASE),
        // The letters of Linux before 6.19 do not tell this one.
        [b'N', ..] if code == b"REQ_OP_WRITE_ZEROES" => rwbs::parse(b"WZ"),
        letters => rwbs::parse(letters),
    };
    match rwbs.ok_or(Skip::Malformed("unknown operation"))? {
        rwbs if rwbs.secure => Err(SECURE_ERASE),
        rwbs if rwbs.other => Err(Skip::Lost("no operation: metadata only")),
        rwbs => rwbs.request(u32::try_from(bytes).unwrap_or(u32::MAX)).map_err(Skip::Lost),
    }
}

const SECURE_ERASE: Skip = Skip::Lost("secure erase: no operation of a trace");

fn letter(word: &[u8]) -> Option<u8> {
    Some(match word {
        b"read" => b'R',
        b"write" => b'W',
        b"discard" => b'D',
        b"secure_erase" => b'E',
        b"flush" | b"fua" => b'F',
        b"none" | b"" => b'N',
        b"ahead" => b'A',
        b"sync" => b'S',
        b"meta" => b'M',
        b"barrier" => b'B',
        _ => return None,
    })
}

/// `YYYY-MM-DD HH:MM:SS[.ffffff]` as nanoseconds since 1970 of its own zone.
fn date_ns(text: &[u8]) -> Option<u64> {
    let (date, time) = (text.get(..10)?, text.get(11..)?);
    if !matches!(text.get(10), Some(b' ' | b'T')) {
        return None;
    }
    let part = |text: &[u8], from: usize, to: usize| whole(text.get(from..to)?);
    let is = |text: &[u8], at: usize, byte: u8| text.get(at) == Some(&byte);
    let fits = is(date, 4, b'-') && is(date, 7, b'-') && is(time, 2, b':') && is(time, 5, b':');
    let (year, month, day) = (part(date, 0, 4)?, part(date, 5, 7)?, part(date, 8, 10)?);
    let (hour, minute) = (part(time, 0, 2)?, part(time, 3, 5)?);
    let within = (1970..2262).contains(&year) && hour < 24 && minute < 60;
    let seconds = scaled(time.get(6..)?, 1_000_000_000).filter(|ns| *ns < 61_000_000_000)?;
    if !fits || !within {
        return None;
    }
    let minutes = (days_since_1970(year, month, day)? * 24 + hour) * 60 + minute;
    minutes.checked_mul(60_000_000_000)?.checked_add(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::testing::{import_bytes, losses};

    #[test]
    fn dates() {
        for (text, ns) in [
            (&b"1970-01-01 00:00:00"[..], Some(0)),
            (b"2000-02-29 12:00:00.5", Some(951_825_600_500_000_000)),
            (b"2024-01-15 10:30:45.123456", Some(1_705_314_645_123_456_000)),
            (b"2024-12-31T23:59:60", Some(1_735_689_600_000_000_000)),
            (b"2024-13-01 00:00:00", None),
            (b"2024-02-30 00:00:00", None),
            (b"1969-12-31 00:00:00", None),
            (b"2024-01-15", None),
            (b"2024/01/15 10:30:45", None),
            (b"2024-01-15 10:30:99", None),
            (b"", None),
        ] {
            assert_eq!(date_ns(text), ns, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_issue_is_before_the_completion() {
        let text = "2024-01-15 10:30:45.000002,1,cp,8,write|sync|fua,4096,0.001,1,8,0,1\n\
                    2024-01-15 10:30:45.000003,1,cp,16,read,512,0.003,1,8,0,1\n\
                    2024-01-15 10:30:45.000004,1,cp,0,flush,0,0,1,0,0,1\n\
                    2024-01-15 10:30:45.000004,1,cp,0,none,0,0,1,0,0,1\n\
                    2024-01-15 10:30:45.000004,1,cp,0,spin,0,0,1,0,0,1\n";
        let (report, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(report.format, "io-tracer");
        assert_eq!(
            out.issues_brief(),
            [
                (0, BlockOp::Read, 8192, 512),
                (1000, BlockOp::Write, 4096, 4096),
                (4000, BlockOp::Flush, 0, 0),
            ]
        );
        assert_eq!(out.issues()[1].flags, OpFlags::SYNC | OpFlags::FUA);
        let mut done = out.completes();
        done.sort_unstable();
        assert_eq!(done, [(0, 2000, 0), (1, 3000, 0), (2, 4000, 0)]);
        assert_eq!(
            losses(&report),
            [("no operation: metadata only", 1, "line 4"), ("unknown operation", 1, "line 5")]
        );
    }

    #[test]
    fn the_words_of_an_operation_are_the_letters_of_the_block_layer() {
        let op = |text: &[u8], bytes| operation(text, b"", b"", bytes);
        let pre = OpFlags::PREFLUSH;
        for (text, bytes, op_wanted, flags) in [
            (&b"flush|write|sync"[..], 4096, BlockOp::Write, pre | OpFlags::SYNC),
            (b"write|flush|sync", 4096, BlockOp::Write, OpFlags::FUA | OpFlags::SYNC),
            (b"flush|flush", 0, BlockOp::Flush, OpFlags::empty()),
            (b"read|ahead|meta|prio", 512, BlockOp::Read, OpFlags::RAHEAD | OpFlags::META),
            (b"write|barrier", 512, BlockOp::Write, pre | OpFlags::FUA),
            (b"READ", 512, BlockOp::Read, OpFlags::empty()),
        ] {
            assert_eq!(op(text, bytes), Ok((op_wanted, flags)), "{}", text.escape_ascii());
        }
        for text in [&b"discard|secure_erase"[..], b"secure_erase"] {
            assert_eq!(op(text, 512), Err(SECURE_ERASE));
        }
        let zeroes = operation(b"none", b"", b"REQ_OP_WRITE_ZEROES", 512);
        assert_eq!(zeroes, Ok((BlockOp::WriteZeroes, OpFlags::empty())));
    }

    #[test]
    fn columns_are_those_of_the_version() {
        let date = "2026-01-15 10:30:45.5";
        let aligned = "timestamp,operation,pid,tid,command,sector,size,latency_ms,device,flags";
        for (rows, device, latency) in [
            (format!("{date},1,cp,8,write|sync,4096,0.5,1,0,1,8:0"), "8:0", true),
            (format!("{date},1,cp,8,write|sync,4096,0.5,1,0,1,8:0,0.1"), "8:0", true),
            (format!("{date},1,cp,8,write|sync,4096,0.5,1,0,1,8:0,,"), "8:0", true),
            (format!("{date},1,cp,8,write|sync,4096,0.5,1,8,0,1,8:0"), "8:0", true),
            (format!("{date},1,cp,8,write|sync,4096,0.5,1,0,1,8:0,,,,7,99"), "8:0", true),
            (format!("{date},1,cp,8,write|sync,4096,1,8,0,1,sh"), "", false),
            (format!("{date},write,1,1,cp,8,4096,0.5,8:0,sync,0,1,,,,7,99"), "8:0", true),
            (format!("{date},write,1,1,cp.exe,8,4096,,0,IRP_NOCACHE|sync,0x1"), "0", false),
            (format!("{aligned}\n{date},write,1,,cp,8,4096,0.5,8:0,sync"), "8:0", true),
            (format!("timestamp,size,sector,operation\n{date},4096,8,write|sync"), "", false),
        ] {
            let (report, out) = import_bytes(format!("{rows}\n").as_bytes()).unwrap();
            assert_eq!(report.format, "io-tracer", "{rows}");
            assert_eq!(out.issues_brief(), [(0, BlockOp::Write, 4096, 4096)], "{rows}");
            assert_eq!(out.issues()[0].flags, OpFlags::SYNC, "{rows}");
            let wanted: &[_] = if latency { &[(0, 500_000, 0)] } else { &[] };
            assert_eq!(out.completes(), wanted, "{rows}");
            assert_eq!(out.streams[0].device, device, "{rows}");
            assert!(report.summary.losses.is_empty(), "{rows}");
        }
        assert!(import_bytes(format!("{date},1,cp,8,write\n").as_bytes()).is_err());
    }

    #[test]
    fn the_later_version_names_devices() {
        let flush = "2026-01-15 10:30:45.5,1,a,8,flush|write,512,0.5,1,0,1,259:0,0.1,,\n";
        let (report, _) = import_bytes(flush.as_bytes()).unwrap();
        assert!(!report.summary.not_recorded.contains(NotRecorded::PREFLUSH));
        let text = "2026-01-15 10:30:45.5,1,\"a,b\",8,discard,4096,0.5,1,0,1,259:0,0.1,,3\n";
        let (_, out) = import_bytes(text.as_bytes()).unwrap();
        assert_eq!(out.streams[0].device, "259:0");
        assert_eq!(out.issues_brief(), [(0, BlockOp::Discard, 4096, 4096)]);
    }
}
