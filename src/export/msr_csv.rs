//! The CSV of the MSR Cambridge traces (SNIA IOTTA set 388), without a header line.
//!
//! ```text
//! Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime
//! 128166372003061629,hm,1,Read,383496192,32768,413
//! ```
//!
//! Timestamp (of the issue) and ResponseTime are ticks of 100 ns, the former since 1601-01-01 UTC;
//! Offset and Size bytes. A row needs a response time: a request whose answer was not recorded has
//! none, and is left out unless `--response` says what to write.

use std::io::Write as _;

use super::job::{Job, lost_event};
use super::names::Names;
use super::registry::Exporter;
use crate::base::{BlockOp, Error, Nanos, Result};
use crate::trace::{Complete, Event, Issue, PayloadRef};

/// Nanoseconds of a FILETIME tick ([MS-DTYP] §2.3.3).
const TICK_NS: u64 = 100;
/// Ticks from 1601-01-01 to the Unix epoch.
const UNIX_EPOCH_TICKS: u64 = 116_444_736_000_000_000;
/// What a device without a name is called.
const UNNAMED: &str = "disk";

/// The exporter.
pub struct MsrCsv;

impl Exporter for MsrCsv {
    fn name(&self) -> &'static str {
        "msr-csv"
    }

    fn description(&self) -> &'static str {
        "CSV as the MSR Cambridge traces have it: reads and writes with response times"
    }

    fn endings(&self) -> &'static [&'static str] {
        &["csv"]
    }

    fn options(&self) -> &'static [&'static str] {
        &["--response"]
    }

    fn lacks(&self) -> Option<&'static str> {
        Some(
            "--ignore header,stream,tag,origin,flags,cpu,data,status,flush,discard,write-zeroes,\
             get-id,mark,bus,memory,irq,ack,clock --time-unit 100ns",
        )
    }

    fn export(&self, job: &mut Job<'_>) -> Result<()> {
        let names = Names::new(job, host_and_disk, |name, n| format!("{name}_{n}"));
        let origin = job.trace.header().origin_unix_ns;
        if origin.is_none() {
            job.summary
                .note("the trace does not say when it began: times count from 1970-01-01 UTC");
        }
        let mut items = job.joined();
        let mut row = Vec::new();
        while let Some(item) = items.next(job)? {
            let Event::Issue(issue) = item.event else {
                job.lose(lost_event(&item.event), item.number);
                continue;
            };
            let Some(kind) = kind(item.number, &issue, job) else { continue };
            let Some(response) = response(item.number, &issue, item.answer, job) else { continue };
            let ticks = ticks(item.number, issue.time, origin, job)?;
            let (host, disk) = names.of(issue.stream).rsplit_once('_').unwrap_or_default();
            row.clear();
            // Writing to a Vec cannot fail.
            let _ = writeln!(
                row,
                "{ticks},{host},{disk},{kind},{},{},{}",
                issue.offset,
                issue.len,
                // The tick of the answer less that of the issue, so that both keep theirs.
                (issue.time + response).0 / TICK_NS - issue.time.0 / TICK_NS
            );
            job.record(&row)?;
        }
        Ok(())
    }
}

/// `HOST_DISK`, as an import calls the device.
fn host_and_disk(device: &str) -> String {
    let bad = |c: char| c == ',' || c.is_whitespace() || c.is_control();
    let name = device.replace(bad, "_");
    let numbered = |name: &str| {
        name.rsplit_once('_').is_some_and(|(host, disk)| {
            !host.is_empty() && disk.parse::<u32>().is_ok() && !disk.starts_with('+')
        })
    };
    match name {
        name if numbered(&name) => name,
        name if name.is_empty() => format!("{UNNAMED}_0"),
        name => format!("{name}_0"),
    }
}

fn kind(number: u64, issue: &Issue, job: &mut Job<'_>) -> Option<&'static str> {
    let kind = match issue.op {
        BlockOp::Read => "Read",
        BlockOp::Write => "Write",
        op => {
            job.lose(op.name(), number);
            return None;
        }
    };
    if issue.len == 0 {
        job.misfit("request of length 0", number);
        return None;
    }
    Some(kind)
}

/// Nanoseconds from issue to answer; what else the format lacks is counted.
fn response(
    number: u64,
    issue: &Issue,
    answer: Option<Complete>,
    job: &mut Job<'_>,
) -> Option<u64> {
    let response = match (answer, job.options.response) {
        (Some(answer), _) => answer.time - issue.time,
        (None, Some(response)) => {
            job.summary.note("requests without an answer have the response time of --response");
            job.made();
            response.0
        }
        (None, None) => {
            let reason = "request without a recorded answer (--response TIME gives it one)";
            job.misfit(reason, number);
            return None;
        }
    };
    if let Some(answer) = answer {
        if answer.status != 0 {
            job.lose("error of a completion", number);
        }
        if answer.payload != PayloadRef::Absent {
            job.lose("data of a read", number);
        }
    }
    if issue.payload != PayloadRef::Absent {
        job.lose("data of a write", number);
    }
    for (flag, _) in issue.flags.iter_names() {
        job.lose(&format!("flag {}", flag.to_lowercase()), number);
    }
    if issue.cpu.is_some() {
        job.lose("cpu", number);
    }
    let exact = issue.time.0.is_multiple_of(TICK_NS) && response.is_multiple_of(TICK_NS);
    if !exact {
        job.lose("time below 100 ns", number);
    }
    Some(response)
}

fn ticks(number: u64, time: Nanos, origin: Option<u64>, job: &Job<'_>) -> Result<u64> {
    // Both are cut to ticks, so that differences of times stay what they are to a tick.
    let ticks = origin.unwrap_or(0) / TICK_NS + time.0 / TICK_NS;
    // Ticks times 100 must be nanoseconds of 64 bits for those that read it.
    ticks.checked_add(UNIX_EPOCH_TICKS).filter(|ticks| *ticks <= u64::MAX / TICK_NS).ok_or_else(
        || {
            Error::input(format!("{time} is beyond what a row can say"))
                .path(job.trace.path())
                .at(crate::base::error::Place::Event(number))
                .hint("leave that part out with --time")
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::ExportOptions;
    use crate::export::testing::{Made, complete, issue};

    #[test]
    fn a_request_and_its_answer_are_a_row() {
        let mut made = Made::new(&["hm_1", "vd,a"]);
        made.header.origin_unix_ns = Some(1_172_163_600_000_000_000);
        made.event(Event::Issue(Issue { tag: 1, ..issue(100, 0, BlockOp::Read, 4096, 512) }));
        made.event(Event::Issue(Issue { tag: 2, ..issue(250, 1, BlockOp::Write, 0, 1024) }));
        made.event(Event::Complete(complete(1_100, 1, 2)));
        made.event(Event::Complete(complete(5_100, 0, 1)));
        made.event(Event::Issue(issue(6_000, 0, BlockOp::Flush, 0, 0)));
        made.event(Event::Issue(issue(7_000, 0, BlockOp::Read, 0, 512)));
        let (text, report) = made.export(&MsrCsv, &ExportOptions::default());
        let want = "128166372000000001,hm,1,Read,4096,512,50\n\
                    128166372000000002,vd_a,0,Write,0,1024,9\n";
        assert_eq!(text.unwrap(), want);
        let losses = report.unwrap().losses;
        let losses: Vec<_> = losses.iter().map(|loss| (loss.reason.as_str(), loss.count)).collect();
        let no_answer = "request without a recorded answer (--response TIME gives it one)";
        assert_eq!(losses, [("time below 100 ns", 1), ("flush", 1), (no_answer, 1)]);
        let options = ExportOptions { response: Some(Nanos(0)), ..ExportOptions::default() };
        let (text, _) = made.export(&MsrCsv, &options);
        assert!(text.unwrap().ends_with("hm,1,Read,0,512,0\n"));
    }

    #[test]
    fn a_time_that_no_row_can_say_is_an_error() {
        let mut made = Made::new(&["a"]);
        made.event(Event::Issue(issue(u64::MAX - 5, 0, BlockOp::Read, 0, 512)));
        let options = ExportOptions { response: Some(Nanos(0)), ..ExportOptions::default() };
        let error = made.export(&MsrCsv, &options).1.unwrap_err();
        assert_eq!(error.kind().exit_code(), 3);
    }
}
