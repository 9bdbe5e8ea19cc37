//! The text that blkparse(1) prints by default: a line for each request queued (Q), completed (C)
//! and each message (m).
//!
//! ```text
//!   8,0    1        7     0.001170500     0  Q WFS 524272 + 8 [qtrace]
//!   8,0    1        8     0.001426350     0  C WFS 524272 + 8 [0]
//! ```
//!
//! Fields: device, CPU, sequence number (counted for each device and CPU; 0 of messages), seconds,
//! process id, what happened, RWBS (F preflush, then W, R, D, WZ or N, then F FUA, A read-ahead, S
//! sync, M metadata), first sector + sectors of 512 bytes, and the process or, of a completion, its
//! error as the kernel's 16-bit field has it. A flush has no place. A trace has no processes: they
//! are 0 and `qtrace`.

use std::collections::HashMap;
use std::io::Write as _;

use super::job::{Job, lost_event, split_seconds};
use super::names::Names;
use super::registry::Exporter;
use crate::base::{BlockOp, Nanos, OpFlags, Result, SECTOR_SIZE};
use crate::trace::{Complete, Event, InFlight, Issue, Mark, PayloadRef};

/// A message of the kernel's tracer has at most so many bytes (`BLK_TN_MAX_MSG`).
const MESSAGE_BYTES_MAX: u64 = 128;

/// The exporter.
pub struct Blkparse;

impl Exporter for Blkparse {
    fn name(&self) -> &'static str {
        "blkparse"
    }

    fn description(&self) -> &'static str {
        "text as blkparse prints it: requests queued and completed"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["blkparse"]
    }

    fn lacks(&self) -> Option<&'static str> {
        Some(
            "--ignore header,stream,tag,twin,origin,unmap,cpu,data,get-id,bus,memory,irq,ack,clock",
        )
    }

    fn export(&self, job: &mut Job<'_>) -> Result<()> {
        let names = Names::new(job, device_numbers, |_, n| format!("0,{n}"));
        let mut lines = Lines::default();
        let mut requests = InFlight::default();
        let mut events = job.events();
        while let Some((number, event)) = events.next(job)? {
            lines.line.clear();
            let stream = event.stream();
            match &event {
                Event::Issue(issue) => {
                    if lines.issue(number, issue, names.of(stream), job) {
                        requests.issue(issue.stream, issue.tag, *issue);
                        job.record(&lines.line)?;
                    }
                }
                Event::Complete(complete) => {
                    let request = requests.complete(complete.stream, complete.tag);
                    if lines.complete(number, complete, request, names.of(stream), job) {
                        job.write(&lines.line)?;
                    }
                }
                Event::Mark(mark) => lines.mark(number, mark, names.of(stream), job)?,
                event => job.lose(lost_event(event), number),
            }
        }
        Ok(())
    }
}

/// `MAJOR,MINOR` of a device that is named so; else its number is made up, and said.
fn device_numbers(device: &str) -> String {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match device.split_once(',') {
        Some((major, minor)) if number(major) && number(minor) => device.to_owned(),
        _ => "0,0".to_owned(),
    }
}

#[derive(Default)]
struct Lines {
    line: Vec<u8>,
    /// By CPU and device.
    sequences: HashMap<u16, HashMap<String, u64>>,
}

impl Lines {
    /// Up to what happened: `%D %2c %8s %5T.%9t %5p %2a ` of blkparse's default format.
    fn begin(&mut self, device: &str, cpu: Option<u16>, time: Nanos, act: &str) {
        let cpu = cpu.unwrap_or(0);
        // The kernel numbers records, and no messages.
        let sequence = match act {
            "m" => 0,
            _ => self.next_sequence(device, cpu),
        };
        let (major, minor) = device.split_once(',').unwrap_or((device, "0"));
        let (seconds, nanos) = split_seconds(time);
        // Writing to a Vec cannot fail.
        let _ = write!(
            self.line,
            "{major:>3},{minor:<3} {cpu:>2} {sequence:>8} {seconds:>5}.{nanos:09} {:>5} {act:>2} ",
            0
        );
    }

    fn next_sequence(&mut self, device: &str, cpu: u16) -> u64 {
        let of_cpu = self.sequences.entry(cpu).or_default();
        if let Some(last) = of_cpu.get_mut(device) {
            *last += 1;
            return *last;
        }
        of_cpu.insert(device.to_owned(), 1);
        1
    }

    /// False when the request has no place in the format.
    fn issue(&mut self, number: u64, issue: &Issue, device: &str, job: &mut Job<'_>) -> bool {
        if issue.op == BlockOp::GetId {
            job.lose("get-id", number);
            return false;
        }
        if !(issue.offset | issue.len).is_multiple_of(SECTOR_SIZE) {
            job.misfit("request that is not in whole sectors of 512 bytes", number);
            return false;
        }
        if issue.len > u32::MAX.into() {
            job.misfit("request of 4 GiB or more", number);
            return false;
        }
        if issue.payload != PayloadRef::Absent {
            job.lose("data of a write", number);
        }
        if issue.flags.contains(OpFlags::UNMAP) {
            job.lose("flag unmap", number);
        }
        if issue.cpu.is_none() {
            job.summary.note("CPUs that the trace does not know stand as 0");
        }
        self.begin(device, issue.cpu, issue.time, "Q");
        let rwbs = rwbs(issue);
        let _ = match place(issue) {
            Some((sector, sectors)) => {
                writeln!(self.line, "{rwbs:>3} {sector} + {sectors} [qtrace]")
            }
            None => writeln!(self.line, "{rwbs:>3} [qtrace]"),
        };
        true
    }

    fn complete(
        &mut self,
        number: u64,
        complete: &Complete,
        request: Option<Issue>,
        device: &str,
        job: &mut Job<'_>,
    ) -> bool {
        let Some(request) = request else {
            job.lose("completion of a request that was not written", number);
            return false;
        };
        if complete.payload != PayloadRef::Absent {
            job.lose("data of a read", number);
        }
        self.begin(device, request.cpu, complete.time, "C");
        // The kernel stores a negative errno in an unsigned short.
        let error = complete.status.wrapping_neg();
        // What a flush was queued as is answered as a write without length.
        let rwbs = rwbs(&request);
        let rwbs = if request.op == BlockOp::Flush { rwbs.trim_start_matches('F') } else { &rwbs };
        let _ = match place(&request) {
            Some((sector, sectors)) => {
                writeln!(self.line, "{rwbs:>3} {sector} + {sectors} [{error}]")
            }
            None => writeln!(self.line, "{rwbs:>3} 0 [{error}]"),
        };
        true
    }

    fn mark(&mut self, number: u64, mark: &Mark, device: &str, job: &mut Job<'_>) -> Result<()> {
        let len = mark.text_len.min(MESSAGE_BYTES_MAX);
        if len < mark.text_len {
            job.misfit("text of a mark beyond 128 bytes", number);
        }
        let mut text = vec![0; usize::try_from(len).unwrap_or(0)];
        if len > 0 {
            job.trace.read_payload(mark.text, mark.text_len, 0, &mut text)?;
        }
        self.begin(device, None, mark.time, "m");
        let text = String::from_utf8_lossy(&text).replace(|c: char| c.is_control(), " ");
        let _ = writeln!(self.line, "  N {text}");
        job.mark(&self.line)
    }
}

/// First sector and sectors; a flush has none.
fn place(issue: &Issue) -> Option<(u64, u64)> {
    (issue.len > 0).then_some((issue.offset / SECTOR_SIZE, issue.len / SECTOR_SIZE))
}

/// The letters as blkparse's `fill_rwbs` writes them; a flush is a write of nothing with F.
fn rwbs(issue: &Issue) -> String {
    let mut letters = String::new();
    let flags = issue.flags;
    if issue.op == BlockOp::Flush || flags.contains(OpFlags::PREFLUSH) {
        letters.push('F');
    }
    letters.push_str(match issue.op {
        BlockOp::Read => "R",
        BlockOp::Write | BlockOp::Flush => "W",
        BlockOp::Discard => "D",
        // Linux 6.19; before it there is no letter.
        BlockOp::WriteZeroes => "WZ",
        BlockOp::GetId => "N",
    });
    let marks =
        [(OpFlags::FUA, 'F'), (OpFlags::RAHEAD, 'A'), (OpFlags::SYNC, 'S'), (OpFlags::META, 'M')];
    letters.extend(marks.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, c)| c));
    letters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::ExportOptions;
    use crate::export::testing::{Made, complete, issue};

    #[test]
    fn lines_are_as_blkparse_writes_them() {
        let mut made = Made::new(&["254,32", "vda"]);
        let commit = Issue {
            flags: OpFlags::PREFLUSH | OpFlags::FUA | OpFlags::SYNC | OpFlags::META,
            cpu: Some(1),
            tag: 7,
            ..issue(816_343_040, 0, BlockOp::Write, 229_400 * 512, 1024)
        };
        made.event(Event::Issue(commit));
        let flush = issue(1_000_000_001, 1, BlockOp::Flush, 0, 0);
        made.event(Event::Issue(flush));
        made.event(Event::Complete(Complete { status: 5, ..complete(2_000_000_000, 0, 7) }));
        made.event(Event::Complete(complete(2_000_000_001, 1, 0)));
        made.event(Event::Issue(issue(0, 1, BlockOp::Read, 100, 512)));
        let (text, report) = made.export(&Blkparse, &ExportOptions::default());
        let want = "\
254,32   1        1     0.816343040     0  Q FWFSM 229400 + 2 [qtrace]
  0,0    0        1     1.000000001     0  Q  FW [qtrace]
254,32   1        2     2.000000000     0  C FWFSM 229400 + 2 [65531]
  0,0    0        2     2.000000001     0  C   W 0 [0]
";
        assert_eq!(text.unwrap(), want);
        let report = report.unwrap();
        assert_eq!(report.records, 2);
        assert_eq!(report.losses[0].reason, "request that is not in whole sectors of 512 bytes");
        assert!(report.notes.contains(&"device 'vda' is called '0,0'".to_owned()));
    }

    #[test]
    fn messages_have_no_number_and_each_device_counts_its_own() {
        let mut made = Made::new(&["8,0", "8,16"]);
        made.event(Event::Issue(issue(1, 0, BlockOp::Discard, 0, 512)));
        made.mark("a mark");
        made.event(Event::Issue(issue(2, 1, BlockOp::Discard, 0, 512)));
        made.event(Event::Issue(issue(3, 0, BlockOp::Discard, 0, 1 << 32)));
        let (text, report) = made.export(&Blkparse, &ExportOptions::default());
        let want = "  8,0    0        1     0.000000001     0  Q   D 0 + 1 [qtrace]
  8,0    0        0     0.000000000     0  m   N a mark
  8,16   0        1     0.000000002     0  Q   D 0 + 1 [qtrace]
";
        assert_eq!(text.unwrap(), want);
        assert_eq!(report.unwrap().losses[0].reason, "request of 4 GiB or more");
    }
}
