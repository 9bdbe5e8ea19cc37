//! `qtrace show`: the events of a trace, one a line.

mod text;

use std::io::{BufWriter, StdoutLock, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use super::Format;
use super::select::{Selection, warn_if_cut};
use crate::base::units::parse_size;
use crate::base::{BlockOp, Error, ErrorKind, Nanos, Result};
use crate::export::json_lines::{self, Data};
use crate::trace::{
    Chooser, Event, Filter, InFlight, MemoryOp, NotRecorded, PayloadRef, Span, Trace,
    is_being_written,
};
use text::Lines;

const EXAMPLES: &str = "\
Examples:
  qtrace show t.qtrace | less
  qtrace show t.qtrace --op write,flush --time 1s-1.5s   part of it, each request with its answer
  qtrace show t.qtrace --range 2048s+8s                  who touched these sectors
  qtrace show t.qtrace --around 1234 --payload           an event, what surrounds it, and the data
  qtrace show boot.qtrace --op bus --range 0x70-0x72     accesses to the CMOS
  qtrace show t.qtrace --format json | jq -c 'select(.kind == \"issue\" and .len > 65536)'";

const EXIT_CODES: &str = "\
A line has the event's number, its time in seconds, the device, and what happened: offset + length
in bytes; a completion with its request and how long that took, when the request is in the part of
the trace that is looked at. JSON is one object a line.
Exit codes: 0 printed; 3 the file cannot be read or is damaged; 4 no event matches.";

/// Bytes of a payload that `--payload` prints when it is not told how many.
const PAYLOAD_SHOWN: &str = "512";

/// The most that it prints.
const PAYLOAD_SHOWN_MAX: u64 = 64 << 20;

/// Bytes of a mark's text that are shown.
const MARK_BYTES_SHOWN: u64 = 1024;

/// Arguments of `qtrace show`.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = EXIT_CODES)]
pub struct Args {
    /// A .qtrace.
    file: PathBuf,
    #[command(flatten)]
    selection: Selection,
    /// Only event N and those around it.
    #[arg(long, value_name = "N", conflicts_with = "events")]
    around: Option<u64>,
    /// How many events --around shows on either side.
    #[arg(long, value_name = "K", default_value_t = 10, requires = "around")]
    context: u64,
    /// Print the data too, where it was recorded, up to SIZE bytes of each; 512 without =SIZE.
    #[arg(long, value_name = "SIZE", num_args = 0..=1, require_equals = true,
        default_missing_value = PAYLOAD_SHOWN, value_parser = payload_size)]
    payload: Option<u64>,
    /// How it is printed; json: one object a line.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn payload_size(text: &str) -> std::result::Result<u64, String> {
    parse_size(text)
        .filter(|size| *size <= PAYLOAD_SHOWN_MAX)
        .ok_or_else(|| "a size up to 64M, such as 512 or 4k".to_owned())
}

/// What a completion answers.
#[derive(Clone, Copy, Debug)]
struct Request {
    op: BlockOp,
    time: Nanos,
    offset: u64,
    len: u64,
}

/// Runs the command; returns the exit code.
///
/// # Errors
/// Usage, Input, and Nothing when no event matches.
pub fn run(args: &Args) -> Result<u8> {
    let trace = Trace::open(&args.file)?;
    if trace.truncation().is_some() && is_being_written(&args.file) {
        let file = args.file.display();
        tracing::warn!("{file}: is being recorded: shown is what it holds so far");
    } else {
        warn_if_cut(&trace);
    }
    let mut filter = args.selection.filter(&trace)?;
    if let Some(centre) = args.around {
        if centre >= trace.events() {
            let what =
                format!("--around {centre}: the trace has {} events, from 0", trace.events());
            return Err(Error::usage(what).path(&args.file));
        }
        let to = centre.saturating_add(args.context).saturating_add(1);
        filter.events = Span { from: centre.saturating_sub(args.context), to };
    }
    let shown = Show::new(args, &trace).run(filter)?;
    if shown == 0 {
        return Err(Error::new(ErrorKind::Nothing, "no event of the trace matches the selection")
            .path(&args.file)
            .hint("qtrace info says what it holds"));
    }
    Ok(0)
}

/// The command at work.
struct Show<'a> {
    args: &'a Args,
    trace: &'a Trace,
    lines: Lines,
    requests: InFlight<Request>,
    out: BufWriter<StdoutLock<'static>>,
    data: Vec<u8>,
    line: Vec<u8>,
}

impl<'a> Show<'a> {
    fn new(args: &'a Args, trace: &'a Trace) -> Self {
        let timeless = trace.summary().not_recorded.contains(NotRecorded::TIMES);
        Self {
            args,
            trace,
            lines: Lines::new(trace.streams(), timeless),
            requests: InFlight::default(),
            out: BufWriter::with_capacity(64 << 10, std::io::stdout().lock()),
            data: Vec::new(),
            line: Vec::new(),
        }
    }

    /// Shows what `filter` means; returns how many events that was.
    fn run(mut self, filter: Filter) -> Result<u64> {
        let (events, times) = (filter.events, filter.times);
        let answered = self.trace.totals().iter().any(|totals| totals.completes > 0);
        let mut chooser = Chooser::new(filter);
        let mut cursor = self.trace.cursor(events.from).near(times);
        let mut shown = 0;
        while cursor.position() < events.to
            && let Some((number, event)) = cursor.next()?
        {
            let request = match &event {
                Event::Issue(issue) if answered => {
                    let (op, time, offset, len) = (issue.op, issue.time, issue.offset, issue.len);
                    self.requests.issue(issue.stream, issue.tag, Request { op, time, offset, len });
                    None
                }
                Event::Complete(complete) => self.requests.complete(complete.stream, complete.tag),
                _ => None,
            };
            if events.holds(number) && chooser.takes(number, &event) {
                shown += 1;
                if self.event(number, &event, request)?.is_break() {
                    return Ok(shown);
                }
            }
        }
        let flushed = self.out.flush();
        gone_or(flushed).map(|_| shown)
    }

    fn event(
        &mut self,
        number: u64,
        event: &Event,
        request: Option<Request>,
    ) -> Result<ControlFlow<()>> {
        let len = self.load(event, request)?;
        self.line.clear();
        let data = len.map(|total| Data { bytes: &self.data, total });
        match self.args.format {
            Format::Json => json_lines::append(&mut self.line, number, event, data),
            Format::Text => {
                let text = match (event, data) {
                    (Event::Mark(_), Some(data)) => String::from_utf8_lossy(data.bytes),
                    _ => "".into(),
                };
                let centre = self.args.around.map_or("", |n| if n == number { ">" } else { " " });
                let mut page = format!(
                    "{centre}{}\n",
                    self.lines.line(number, event, request.as_ref(), &text)
                );
                if let (Some(data), false) = (data, matches!(event, Event::Mark(_))) {
                    text::hexdump(&mut page, address(event, request), data.bytes, data.total);
                }
                self.line.extend_from_slice(page.as_bytes());
            }
        }
        let written = self.out.write_all(&self.line);
        gone_or(written)
    }

    /// Reads the data of `event` that is printed; returns its whole length when there is any.
    fn load(&mut self, event: &Event, request: Option<Request>) -> Result<Option<u64>> {
        let wanted = self.args.payload;
        let (payload, total, most) = match event {
            Event::Mark(mark) => (mark.text, mark.text_len, Some(MARK_BYTES_SHOWN)),
            Event::Issue(issue) => (issue.payload, issue.len, wanted),
            Event::Memory(memory) if memory.op != MemoryOp::Fill => {
                (memory.payload, memory.len, wanted)
            }
            Event::Complete(complete) => match request {
                Some(request) => (complete.payload, request.len, wanted),
                // Nothing says how long its data is.
                None => return Ok(None),
            },
            _ => return Ok(None),
        };
        let Some(most) = most.filter(|_| payload != PayloadRef::Absent) else { return Ok(None) };
        let len = usize::try_from(total.min(most)).unwrap_or(0);
        self.data.resize(len, 0);
        self.trace.read_payload(payload, total, 0, &mut self.data)?;
        Ok(Some(total))
    }
}

/// The address of the first byte of an event's data: on the disk, or in guest memory.
fn address(event: &Event, request: Option<Request>) -> u64 {
    match event {
        Event::Issue(issue) => issue.offset,
        Event::Memory(memory) => memory.addr,
        _ => request.map_or(0, |request| request.offset),
    }
}

/// A reader that has seen enough is no error, and needs no more.
fn gone_or(result: std::io::Result<()>) -> Result<ControlFlow<()>> {
    match result {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Error::incomplete("cannot write to stdout").source(error)),
    }
}
