//! fio's iolog, version 3 (fio 3.31 and later; fio HOWTO, "Trace file format"), and a job that
//! replays it.
//!
//! ```text
//! fio version 3 iolog
//! 0 /dev/vda add
//! 0 /dev/vda open
//! 17 /dev/vda write 4096 512
//! 20 /dev/vda sync 0 0
//! 31 /dev/vda close
//! ```
//!
//! Times are whole microseconds; offsets and lengths bytes. fio reads a name of at most 256
//! characters without blanks, and a length of 32 bits: longer requests are cut into pieces. A
//! discard is `trim`, a flush `sync`; a write-zeroes, which fio does not have, stands as a write.

use std::io::Write as _;
use std::path::Path;

use super::job::{Job, devices, lost_event};
use super::names::Names;
use super::registry::Exporter;
use crate::base::{BlockOp, Error, Nanos, Result};
use crate::trace::{Event, Issue, PayloadRef};

/// Characters of a name that fio's `sscanf` takes.
const NAME_CHARS_MAX: usize = 256;
/// A request is cut into pieces of this size where fio's 32 bits do not hold its length.
const PIECE_BYTES: u64 = 1 << 30;
/// What a device without a name is called.
const UNNAMED: &str = "disk";
/// Requests that the job keeps in flight: fio's own default of 1 would wait for each.
const JOB_IODEPTH: u32 = 32;

/// The exporter.
pub struct FioIolog;

impl Exporter for FioIolog {
    fn name(&self) -> &'static str {
        "fio-iolog"
    }

    fn description(&self) -> &'static str {
        "fio's iolog, version 3; --job writes a job that replays it"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["iolog"]
    }

    fn options(&self) -> &'static [&'static str] {
        &["--job", "--file-name"]
    }

    fn lacks(&self) -> Option<&'static str> {
        Some(
            "--ignore header,stream,tag,origin,flags,cpu,data,zeroes,complete,mark,get-id,\
             bus,memory,irq,ack,clock --time-unit 1us",
        )
    }

    fn export(&self, job: &mut Job<'_>) -> Result<()> {
        let names = match &job.options.file_name {
            Some(name) => {
                let devices = devices(job).len();
                if devices > 1 {
                    job.summary.note(format!("requests of {devices} devices stand on one file"));
                }
                Names::one(job, name)
            }
            None => Names::new(job, fio_name, |name, n| format!("{name}_{n}")),
        };
        job.write(b"fio version 3 iolog\n")?;
        for action in ["add", "open"] {
            for name in names.all() {
                job.write(format!("0 {name} {action}\n").as_bytes())?;
            }
        }
        let mut events = job.events();
        let (mut first, mut last, mut trims) = (None, 0, false);
        let mut line = Vec::new();
        while let Some((number, event)) = events.next(job)? {
            let Event::Issue(issue) = event else {
                job.lose(lost_event(&event), number);
                continue;
            };
            // fio waits for the first request too: it stands at 0.
            let first = *first.get_or_insert(whole_micros(issue.time));
            // Its clock does not go back.
            let time = whole_micros(issue.time).saturating_sub(first);
            if time < last {
                job.misfit("order of time (moved to that of the request before)", number);
            }
            last = time.max(last);
            trims |= issue.op == BlockOp::Discard;
            self.request(number, &issue, last, names.of(issue.stream), &mut line, job)?;
        }
        for name in names.all() {
            job.write(format!("{last} {name} close\n").as_bytes())?;
        }
        if trims {
            job.summary.note("discards are 'trim': fio before 3.34 passes over them (bad ddir: 2)");
        }
        Ok(())
    }
}

impl FioIolog {
    fn request(
        &self,
        number: u64,
        issue: &Issue,
        time: u64,
        name: &str,
        line: &mut Vec<u8>,
        job: &mut Job<'_>,
    ) -> Result<()> {
        let word = match issue.op {
            BlockOp::Read => "read",
            BlockOp::Write => "write",
            BlockOp::Flush => "sync",
            BlockOp::Discard => "trim",
            BlockOp::WriteZeroes => {
                job.lose("write-zeroes: stands as a write", number);
                "write"
            }
            BlockOp::GetId => {
                job.lose("get-id", number);
                return Ok(());
            }
        };
        if issue.op.has_range() && issue.len == 0 {
            job.misfit("request of length 0", number);
            return Ok(());
        }
        lose_fields(number, issue, job);
        line.clear();
        if issue.len <= u64::from(u32::MAX) {
            // Writing to a Vec cannot fail.
            let _ = writeln!(line, "{time} {name} {word} {} {}", issue.offset, issue.len);
        } else {
            job.misfit("length beyond 32 bits: cut into pieces of 1 GiB", number);
            return pieces(number, issue, job, |offset, len, job| {
                job.write(format!("{time} {name} {word} {offset} {len}\n").as_bytes())
            });
        }
        job.record(line)
    }
}

/// Pieces of one request at most: a length of the whole disk there can be is a billion of them.
const PIECES_MAX: u64 = 1 << 16;

fn pieces(
    number: u64,
    issue: &Issue,
    job: &mut Job<'_>,
    mut write: impl FnMut(u64, u64, &mut Job<'_>) -> Result<()>,
) -> Result<()> {
    if issue.len > PIECES_MAX * PIECE_BYTES {
        job.misfit("request of more than 64 TiB", number);
        return Ok(());
    }
    let mut done = 0;
    while done < issue.len {
        let len = (issue.len - done).min(PIECE_BYTES);
        write(issue.offset + done, len, job)?;
        done += len;
    }
    job.count(1);
    Ok(())
}

fn whole_micros(time: Nanos) -> u64 {
    time.0 / 1_000
}

fn lose_fields(number: u64, issue: &Issue, job: &mut Job<'_>) {
    for (flag, _) in issue.flags.iter_names() {
        job.lose(&format!("flag {}", flag.to_lowercase()), number);
    }
    if issue.payload != PayloadRef::Absent {
        job.lose("data of a write", number);
    }
    if !issue.time.0.is_multiple_of(1_000) {
        job.lose("time below a microsecond", number);
    }
    if issue.cpu.is_some() {
        job.lose("cpu", number);
    }
}

/// A word that fio reads back.
fn fio_name(device: &str) -> String {
    let word = device.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c });
    let mut name: String = word.collect();
    while name.len() > NAME_CHARS_MAX - 8 {
        name.pop();
    }
    if name.is_empty() { UNNAMED.to_owned() } else { name }
}

/// What fio takes for a comment, for a variable of its own or of the environment, or for the end of
/// an option; a job file has no way to say otherwise.
const NOT_IN_A_JOB: [char; 5] = [';', '#', '$', '\n', '\r'];

/// A job file that replays the log at `iolog`.
///
/// # Errors
/// Usage: fio could not read that name in a job.
pub fn job_file(iolog: &Path) -> Result<String> {
    let path = iolog.to_str().filter(|path| !path.contains(NOT_IN_A_JOB)).ok_or_else(|| {
        Error::usage("--job: a job of fio cannot hold the path of this log")
            .path(iolog)
            .hint("give -o a path of UTF-8 without ; # $ and ends of lines")
    })?;
    // fio takes a colon in this option for the end of a name.
    let path = path.replace(':', "\\:");
    Ok(format!(
        "; Replays an exported trace: fio THIS_FILE (3.31 or later). Writes to the files or devices\n\
         ; that the log names; replay_redirect= names another.\n\
         [replay]\n\
         read_iolog={path}\n\
         ioengine=libaio\n\
         iodepth={JOB_IODEPTH}\n\
         ; A long log is read piece by piece, and not held in memory.\n\
         read_iolog_chunked=1\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::OpFlags;
    use crate::export::ExportOptions;
    use crate::export::testing::{Made, issue};

    #[test]
    fn requests_are_lines_and_what_fio_lacks_is_counted() {
        let mut made = Made::new(&["vda", "a b", ""]);
        made.event(Event::Issue(Issue {
            flags: OpFlags::FUA,
            ..issue(5_999, 0, BlockOp::Write, 4096, 512)
        }));
        made.event(Event::Issue(issue(7_000, 1, BlockOp::Flush, 0, 0)));
        made.event(Event::Issue(issue(7_000, 2, BlockOp::WriteZeroes, 0, 8192)));
        made.event(Event::Issue(issue(6_000, 0, BlockOp::Discard, 0, 5 << 30)));
        let (text, report) = made.export(&FioIolog, &ExportOptions::default());
        let text = text.unwrap();
        let mut want = String::from("fio version 3 iolog\n");
        for action in ["add", "open"] {
            ["vda", "a_b", "disk"].iter().for_each(|name| want += &format!("0 {name} {action}\n"));
        }
        want += "0 vda write 4096 512\n2 a_b sync 0 0\n2 disk write 0 8192\n";
        (0..5u64).for_each(|n| want += &format!("2 vda trim {} 1073741824\n", n << 30));
        want += "2 vda close\n2 a_b close\n2 disk close\n";
        assert_eq!(text, want);
        let report = report.unwrap();
        assert_eq!(report.records, 4);
        let losses: Vec<_> =
            report.losses.iter().map(|loss| (loss.reason.as_str(), loss.count)).collect();
        assert_eq!(
            losses,
            [
                ("flag fua", 1),
                ("time below a microsecond", 1),
                ("write-zeroes: stands as a write", 1),
                ("order of time (moved to that of the request before)", 1),
                ("length beyond 32 bits: cut into pieces of 1 GiB", 1),
            ]
        );
        let trims = "discards are 'trim': fio before 3.34 passes over them (bad ddir: 2)";
        let called = ["device 'a b' is called 'a_b'", "device '' is called 'disk'", trims];
        assert_eq!(report.notes, called);
    }

    #[test]
    fn one_name_for_all_when_it_is_given() {
        let mut made = Made::new(&["vda", "vdb"]);
        made.event(Event::Issue(issue(0, 1, BlockOp::Read, 0, 512)));
        let options =
            ExportOptions { file_name: Some("/tmp/x".into()), ..ExportOptions::default() };
        let (text, _) = made.export(&FioIolog, &options);
        assert!(text.unwrap().contains("0 /tmp/x read 0 512\n"));
    }
}
