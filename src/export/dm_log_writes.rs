//! The log of the device-mapper target `log-writes` (Linux `drivers/md/dm-log-writes.c`), which
//! `replay-log` and QEMU's `blklogwrites` share. Little endian, sectors of 512 bytes.
//!
//! ```text
//! sector 0:  u64 magic, u64 version, u64 nr_entries, u32 sectorsize
//! an entry:  one sector { u64 sector, u64 nr_sectors, u64 flags, u64 data_len, mark text … }
//!            then nr_sectors sectors of data, unless flags has DISCARD
//! ```
//!
//! The log is of one device, and of what changes it: writes with their data, discards, flushes,
//! marks. A write-zeroes stands as the zeros that it writes. Entries stand in the order of issue; a
//! write that failed is left out. The superblock counts the entries, so the trace is read twice.

use std::collections::HashSet;

use super::job::{Job, devices, lost_event};
use super::registry::Exporter;
use crate::base::limits::IN_FLIGHT_MAX;
use crate::base::{BlockOp, Error, OpFlags, Result, SECTOR_SIZE};
use crate::trace::{Event, InFlight, Issue, NotRecorded, PayloadRef};

/// `WRITE_LOG_MAGIC`.
const WRITE_LOG_MAGIC: u64 = 0x006a_7366_7773_6872;
/// `WRITE_LOG_VERSION`.
const WRITE_LOG_VERSION: u64 = 1;
const SECTOR_BYTES: usize = SECTOR_SIZE as usize;
/// The fixed part of an entry; a mark's text follows.
const ENTRY_BYTES: usize = 32;
/// The longest text of a mark: the kernel ends it with a zero.
const MARK_BYTES_MAX: usize = SECTOR_BYTES - ENTRY_BYTES - 1;
/// Zeros that one write-zeroes may become: a log of more is no use to anybody.
const ZEROES_BYTES_MAX: u64 = 4 << 30;

const LOG_FLUSH_FLAG: u64 = 1 << 0;
const LOG_FUA_FLAG: u64 = 1 << 1;
const LOG_DISCARD_FLAG: u64 = 1 << 2;
const LOG_MARK_FLAG: u64 = 1 << 3;
const LOG_METADATA_FLAG: u64 = 1 << 4;

/// The exporter.
pub struct DmLogWrites;

impl Exporter for DmLogWrites {
    fn name(&self) -> &'static str {
        "dm-log-writes"
    }

    fn description(&self) -> &'static str {
        "dm-log-writes and QEMU blklogwrites: writes with their data, of one device"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["logwrites", "blklogwrites"]
    }

    fn lacks(&self) -> Option<&'static str> {
        Some(
            "--ignore header,stream,tag,time,hints,zeroes,cpu,complete,read,get-id,\
             bus,memory,irq,ack,clock",
        )
    }

    fn export(&self, job: &mut Job<'_>) -> Result<()> {
        check_device(job)?;
        let failed = failed_writes(job)?;
        let (mut counted, mut writes, mut with_data) = (0u64, 0u64, 0u64);
        let mut events = job.events();
        while let Some((number, event)) = events.next(job)? {
            counted += u64::from(matches!(entry(number, &event, &failed), Ok(Some(_))));
            if let Event::Issue(Issue { op: BlockOp::Write, payload, .. }) = event {
                writes += 1;
                with_data += u64::from(payload != PayloadRef::Absent);
            }
        }
        if writes > 0 && with_data == 0 {
            return Err(without_data(job));
        }
        let mut block = [0; SECTOR_BYTES];
        put(&mut block, &[WRITE_LOG_MAGIC, WRITE_LOG_VERSION, counted, SECTOR_SIZE]);
        job.write(&block)?;
        let mut events = job.events();
        while let Some((number, event)) = events.next(job)? {
            match entry(number, &event, &failed) {
                Ok(Some(entry)) => write(number, &event, entry, job)?,
                Ok(None) => {}
                Err(reason) => match event {
                    Event::Issue(Issue { op: BlockOp::Read | BlockOp::GetId, .. }) => {
                        job.lose(reason, number);
                    }
                    Event::Issue(_) => job.misfit(reason, number),
                    _ => job.lose(reason, number),
                },
            }
        }
        Ok(())
    }
}

/// Devices in a message.
const DEVICES_SHOWN: usize = 8;

/// A log names no device: the events must all be of one.
fn check_device(job: &Job<'_>) -> Result<()> {
    let devices = devices(job);
    if devices.len() <= 1 {
        return Ok(());
    }
    // No device helps where the data is missing.
    if job.trace.summary().not_recorded.contains(NotRecorded::WRITE_DATA) {
        return Err(without_data(job));
    }
    let listed = devices.iter().take(DEVICES_SHOWN).map(|d| d.escape_debug().to_string());
    let more = (devices.len() > DEVICES_SHOWN).then(|| "…".to_owned());
    let listed: Vec<_> = listed.chain(more).collect();
    Err(Error::usage(format!("a log is of one device, and the trace has {}", devices.len()))
        .path(job.trace.path())
        .hint(format!("choose one with --device: {}", listed.join(", "))))
}

/// Where no write carries its data, flushes and discards alone would be taken for the whole.
fn without_data(job: &Job<'_>) -> Error {
    Error::usage("the trace does not hold the data of its writes, which such a log is made of")
        .path(job.trace.path())
        .hint("fio-iolog, blkparse, msr-csv and json-lines do without")
}

/// Numbers of the issues whose completion says that they failed.
fn failed_writes(job: &mut Job<'_>) -> Result<HashSet<u64>> {
    let mut failed = HashSet::new();
    if job.trace.totals().iter().all(|totals| totals.completes == 0) {
        return Ok(failed);
    }
    let mut requests = InFlight::default();
    let mut events = job.events();
    while let Some((number, event)) = events.next(job)? {
        match event {
            Event::Issue(issue) if issue.op.changes_content() => {
                requests.issue(issue.stream, issue.tag, number);
            }
            Event::Complete(complete) if complete.status != 0 => {
                failed.extend(requests.complete(complete.stream, complete.tag));
                if failed.len() > IN_FLIGHT_MAX {
                    return Err(Error::input("more than a million writes failed")
                        .path(job.trace.path())
                        .hint("leave them out with --range or --time"));
                }
            }
            Event::Complete(complete) => {
                requests.complete(complete.stream, complete.tag);
            }
            _ => {}
        }
    }
    Ok(failed)
}

/// The fixed part of an entry.
#[derive(Clone, Copy)]
struct Entry {
    sector: u64,
    nr_sectors: u64,
    flags: u64,
    data_len: u64,
}

/// The entry of an event; `None` for one that goes without saying, the reason for one that is lost.
fn entry(number: u64, event: &Event, failed: &HashSet<u64>) -> Result<Option<Entry>, &'static str> {
    let issue = match event {
        Event::Issue(issue) => issue,
        Event::Mark(mark) => {
            let data_len = mark.text_len.min(MARK_BYTES_MAX as u64);
            let flags = LOG_MARK_FLAG;
            return Ok(Some(Entry { sector: 0, nr_sectors: 0, flags, data_len }));
        }
        // They told which writes failed.
        Event::Complete(_) => return Ok(None),
        event => return Err(lost_event(event)),
    };
    if failed.contains(&number) {
        return Err("request that failed");
    }
    if !(issue.offset | issue.len).is_multiple_of(SECTOR_SIZE) {
        return Err("request that is not in whole sectors of 512 bytes");
    }
    let mut flags = flags(issue);
    match issue.op {
        BlockOp::Read => return Err("read"),
        BlockOp::GetId => return Err("get-id"),
        BlockOp::Write if issue.len == 0 => return Err("request of length 0"),
        BlockOp::Write if issue.payload == PayloadRef::Absent => {
            return Err("write without its data");
        }
        BlockOp::WriteZeroes if issue.len > ZEROES_BYTES_MAX => {
            return Err("write-zeroes of more than 4 GiB");
        }
        BlockOp::Discard => flags |= LOG_DISCARD_FLAG,
        BlockOp::Flush => flags |= LOG_FLUSH_FLAG,
        BlockOp::Write | BlockOp::WriteZeroes => {}
    }
    let (sector, nr_sectors) = (issue.offset / SECTOR_SIZE, issue.len / SECTOR_SIZE);
    Ok(Some(Entry { sector, nr_sectors, flags, data_len: 0 }))
}

fn flags(issue: &Issue) -> u64 {
    let pairs = [
        (OpFlags::PREFLUSH, LOG_FLUSH_FLAG),
        (OpFlags::FUA, LOG_FUA_FLAG),
        (OpFlags::META, LOG_METADATA_FLAG),
    ];
    pairs.into_iter().filter(|(flag, _)| issue.flags.contains(*flag)).map(|(_, bit)| bit).sum()
}

fn put(sector: &mut [u8; SECTOR_BYTES], words: &[u64]) {
    for (place, word) in sector.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

fn write(number: u64, event: &Event, entry: Entry, job: &mut Job<'_>) -> Result<()> {
    let mut sector = [0; SECTOR_BYTES];
    put(&mut sector, &[entry.sector, entry.nr_sectors, entry.flags, entry.data_len]);
    match event {
        Event::Mark(mark) => {
            let len = usize::try_from(entry.data_len).unwrap_or(0);
            if entry.data_len < mark.text_len {
                job.misfit("text of a mark beyond its sector", number);
            }
            let text = sector.get_mut(ENTRY_BYTES..ENTRY_BYTES + len);
            if let (Some(text), true) = (text, len > 0) {
                job.trace.read_payload(mark.text, mark.text_len, 0, text)?;
            }
            job.mark(&sector)
        }
        Event::Issue(issue) => {
            lose_fields(number, issue, job);
            job.record(&sector)?;
            match issue.op {
                BlockOp::Write => {
                    job.payload(issue.payload, issue.len, |job, piece| job.write(piece))
                }
                BlockOp::WriteZeroes => zeroes(issue.len, job),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

fn lose_fields(number: u64, issue: &Issue, job: &mut Job<'_>) {
    if issue.op == BlockOp::WriteZeroes {
        job.lose("write-zeroes: stands as a write of zeros", number);
    }
    let kept = OpFlags::PREFLUSH | OpFlags::FUA | OpFlags::META;
    for (flag, _) in (issue.flags - kept).iter_names() {
        job.lose(&format!("flag {}", flag.to_lowercase()), number);
    }
    if issue.time.0 != 0 {
        job.lose("time", number);
    }
    if issue.cpu.is_some() {
        job.lose("cpu", number);
    }
}

fn zeroes(len: u64, job: &mut Job<'_>) -> Result<()> {
    static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
    let mut left = len;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(ZEROES.len()).min(ZEROES.len());
        job.write(&ZEROES[..n])?;
        left -= n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::ExportOptions;
    use crate::export::testing::{Made, complete, issue};
    use crate::import::testing::import_bytes;
    use crate::trace::Complete;

    #[test]
    fn what_is_written_is_read_back_and_what_has_no_place_is_counted() {
        let mut made = Made::new(&[""]);
        let data = made.payload(&[7; 1024]);
        let both = OpFlags::FUA | OpFlags::PREFLUSH;
        let write = Issue { payload: data, flags: both, ..issue(9, 0, BlockOp::Write, 512, 1024) };
        made.event(Event::Issue(write));
        made.event(Event::Issue(Issue { tag: 1, ..write }));
        made.event(Event::Complete(Complete { status: 5, ..complete(10, 0, 1) }));
        made.event(Event::Issue(issue(0, 0, BlockOp::Discard, 4096, 4096)));
        made.event(Event::Issue(issue(0, 0, BlockOp::WriteZeroes, 0, 100 << 10)));
        made.event(Event::Issue(issue(0, 0, BlockOp::Flush, 0, 0)));
        made.mark("here");
        made.event(Event::Issue(issue(0, 0, BlockOp::Read, 0, 512)));
        made.event(Event::Issue(issue(0, 0, BlockOp::Write, 0, 512)));
        let (log, report) = made.export_bytes(&DmLogWrites, &ExportOptions::default());
        let losses = report.unwrap().losses;
        let losses: Vec<_> =
            losses.iter().map(|loss| (loss.reason.as_str(), loss.first.as_str())).collect();
        assert_eq!(
            losses,
            [
                ("time", "event 0"),
                ("request that failed", "event 1"),
                ("write-zeroes: stands as a write of zeros", "event 4"),
                ("read", "event 7"),
                ("write without its data", "event 8"),
            ]
        );
        let (report, back) = import_bytes(&log.unwrap()).unwrap();
        assert_eq!(report.summary.losses, []);
        assert_eq!(
            back.issues_brief(),
            [
                (0, BlockOp::Write, 512, 1024),
                (0, BlockOp::Discard, 4096, 4096),
                (0, BlockOp::Write, 0, 100 << 10),
                (0, BlockOp::Flush, 0, 0),
            ]
        );
        assert_eq!(back.issues()[0].flags, both);
        assert_eq!(back.data(back.issues()[0].payload), [7; 1024]);
        assert_eq!(back.marks(), [(0, "here".to_owned())]);
    }

    #[test]
    fn a_trace_without_data_and_one_of_two_devices_are_refused() {
        let mut made = Made::new(&["a"]);
        made.event(Event::Issue(issue(0, 0, BlockOp::Write, 0, 512)));
        let error = made.export(&DmLogWrites, &ExportOptions::default()).1.unwrap_err();
        assert_eq!(error.kind().exit_code(), 2, "{error}");
        let mut made = Made::new(&["a", "b"]);
        made.event(Event::Issue(issue(0, 0, BlockOp::Flush, 0, 0)));
        made.event(Event::Issue(issue(0, 1, BlockOp::Flush, 0, 0)));
        let error = made.export(&DmLogWrites, &ExportOptions::default()).1.unwrap_err();
        assert_eq!(error.hint_text(), Some("choose one with --device: a, b"));
    }

    #[test]
    fn marks_alone_are_no_log() {
        let mut made = Made::new(&["vda"]);
        made.mark("begin");
        let formats: [&dyn Exporter; 2] = [&DmLogWrites, &crate::export::blkparse::Blkparse];
        for format in formats {
            let (_, report) = made.export_bytes(format, &ExportOptions::default());
            assert_eq!(report.unwrap_err().kind(), crate::base::ErrorKind::Nothing);
        }
    }
}
