//! Traces out: one file per foreign format.
//!
//! - [`registry`]: what an exporter is, and the table of them; a new format is a file and a line;
//! - [`job`]: what exporters read from and write to;
//! - [`output`]: a file that appears whole or not at all, or standard output.
//!
//! # What becomes of what a format has no place for
//! Fields and events that the format lacks are left out and counted, by reason, with the first
//! place. Nothing is invented: a field that the format demands and the trace does not have leaves
//! its request out, unless an option says what to write.

pub mod job;
pub mod output;
pub mod registry;

pub mod blkparse;
pub mod dm_log_writes;
pub mod fio_iolog;
pub mod json_lines;
pub mod msr_csv;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod qtest;

mod names;
#[cfg(test)]
pub(crate) mod testing;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use self::job::Job;
use self::registry::Exporter;
use crate::base::{Error, ErrorKind, Nanos, Result};
use crate::trace::{Filter, Loss, Trace};

/// How to export.
#[derive(Clone, Debug, Default)]
pub struct ExportOptions {
    /// fio: the file that the log is about, in place of the names of the devices.
    pub file_name: Option<String>,
    /// MSR: the response time of requests whose answer was not recorded.
    pub response: Option<Nanos>,
    /// JSON lines: the data too.
    pub data: bool,
    /// Becomes true when the user wants to stop.
    pub stop: Option<Arc<AtomicBool>>,
}

/// What an export did.
#[derive(Clone, Debug)]
pub struct ExportReport {
    /// The format.
    pub format: &'static str,
    /// Requests, accesses and marks written.
    pub records: u64,
    /// What has no place in the format, by reason.
    pub losses: Vec<Loss>,
    /// Events that are changed or left out although the format has a place for their kind.
    pub misfits: u64,
    /// Things a reader should know that lost nothing.
    pub notes: Vec<String>,
}

/// Writes what `filter` means of `trace` to `out`, which goes by `name`, as `exporter` has it.
///
/// # Errors
/// Usage: the format cannot hold such a trace; Nothing: nothing of it has a place in the format;
/// Input: the trace is damaged; Incomplete: it cannot be written; Interrupted.
pub fn export(
    trace: &Trace,
    filter: Filter,
    exporter: &dyn Exporter,
    options: &ExportOptions,
    (out, name): (&mut (dyn Write + Send), &str),
    progress: &mut dyn FnMut(u64),
) -> Result<ExportReport> {
    let mut job = Job::new(trace, filter, options, (out, name), progress);
    exporter.export(&mut job)?;
    if job.has_marks_only() {
        let format = exporter.name();
        let lost = match job.summary.losses().first() {
            Some(loss) => format!("; the first is lost: {} ({})", loss.reason, loss.first),
            None => String::new(),
        };
        let what = format!("nothing of the trace has a place in {format}{lost}");
        return Err(Error::new(ErrorKind::Nothing, what)
            .path(trace.path())
            .hint("qtrace info says what it holds; nothing was written"));
    }
    Ok(ExportReport {
        format: exporter.name(),
        records: job.records(),
        losses: job.summary.losses().to_vec(),
        misfits: job.misfits(),
        notes: job.summary.notes().to_vec(),
    })
}
