//! Events as lines for people.

use std::fmt::Write as _;

use super::Request;
use crate::base::units::human_nanos;
use crate::base::{BusSpace, Nanos};
use crate::report::lines::printable;
use crate::trace::{Event, Issue, MemoryEvent, MemoryOp, PayloadRef, StreamInfo};

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// How lines are written for one trace.
pub(super) struct Lines {
    /// A name for each stream.
    names: Vec<String>,
    name_width: usize,
    /// The source has no times.
    timeless: bool,
}

/// Columns that the name of a device may take; a longer one pushes the rest of its line.
const NAME_WIDTH_MAX: usize = 20;

impl Lines {
    pub(super) fn new(streams: &[StreamInfo], timeless: bool) -> Self {
        let name = |(number, info): (usize, &StreamInfo)| {
            let device = printable(&info.device);
            let name = if device.is_empty() { number.to_string() } else { device };
            match info.queue {
                Some(queue) => format!("{name}:{queue}"),
                None => name,
            }
        };
        let names: Vec<String> = streams.iter().enumerate().map(name).collect();
        let widest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        Self { names, name_width: widest.min(NAME_WIDTH_MAX), timeless }
    }

    /// The line of `event`, without its end. `request` is what a completion answers, `text` a
    /// mark's.
    pub(super) fn line(
        &self,
        number: u64,
        event: &Event,
        request: Option<&Request>,
        text: &str,
    ) -> String {
        let stream = event.stream().0;
        let unnamed = String::new();
        let name = self.names.get(stream as usize).unwrap_or(&unnamed);
        let time = if self.timeless { "-".to_owned() } else { seconds(event.time()) };
        let what = what(event, request, text);
        let width = self.name_width;
        format!("{number:>9} {time:>15} {name:<width$} {what}").trim_end().to_owned()
    }
}

/// Seconds with all nine digits.
fn seconds(time: Nanos) -> String {
    format!("{}.{:09}", time.0 / SECOND_NS, time.0 % SECOND_NS)
}

fn what(event: &Event, request: Option<&Request>, text: &str) -> String {
    match event {
        Event::Issue(issue) => describe_issue(issue),
        Event::Complete(complete) => {
            let mut line = String::from("complete     ");
            if let Some(request) = request {
                let _ = write!(line, "{}", range(request.op.name(), request.offset, request.len));
            }
            let _ = write!(line, " tag {}", complete.tag);
            if let Some(request) = request {
                let _ = write!(line, ", {}", human_nanos(complete.time - request.time));
            }
            if complete.status != 0 {
                let error = std::io::Error::from_raw_os_error(complete.status.into());
                let _ = write!(line, ", FAILED: {error}");
            }
            line + data(complete.payload)
        }
        Event::Mark(mark) => {
            let cut = if mark.text_len > text.len() as u64 { "…" } else { "" };
            format!("mark         \"{}{cut}\"", printable(text))
        }
        Event::Bus(bus) => {
            let access = bus.access;
            let verb = match (access.space, access.write) {
                (BusSpace::Pio, false) => "in",
                (BusSpace::Pio, true) => "out",
                (BusSpace::Mmio, false) => "mmio-read",
                (BusSpace::Mmio, true) => "mmio-write",
            };
            let arrow = if access.write { "<-" } else { "->" };
            let cpu = bus.cpu.map_or_else(String::new, |cpu| format!(" cpu {cpu}"));
            format!(
                "{verb:<12} {:#x}/{} {arrow} {:#x}{cpu}",
                access.addr, access.size, access.value
            )
        }
        Event::Memory(memory) => describe_memory(memory),
        Event::Irq(irq) => {
            format!("irq          {} {}", irq.line, if irq.high { "fired" } else { "went low" })
        }
        Event::Ack(ack) => match ack.vector {
            Some(vector) => format!("ack          cpu {} took vector {vector:#x}", ack.cpu),
            None => format!("ack          cpu {} found no interrupt", ack.cpu),
        },
        Event::Clock(step) => format!("clock        to {}", seconds(step.to)),
    }
}

fn describe_issue(issue: &Issue) -> String {
    let mut line = range(issue.op.name(), issue.offset, issue.len);
    if !issue.flags.is_empty() {
        let _ = write!(line, " {}", issue.flags.names());
    }
    let _ = write!(line, " tag {}", issue.tag);
    if let Some(cpu) = issue.cpu {
        let _ = write!(line, " cpu {cpu}");
    }
    line + data(issue.payload)
}

fn describe_memory(memory: &MemoryEvent) -> String {
    let (addr, len) = (memory.addr, memory.len);
    let what = match memory.op {
        MemoryOp::Write => "written".to_owned(),
        MemoryOp::Fill => format!("filled with {:#04x}", memory.fill),
        MemoryOp::Read => "found".to_owned(),
    };
    format!("memory       {addr:#x} + {len} {what}{}", data(memory.payload))
}

fn data(payload: PayloadRef) -> &'static str {
    if payload == PayloadRef::Absent { "" } else { " data" }
}

/// Operation and place; one without a range has none.
fn range(op: &str, offset: u64, len: u64) -> String {
    if len == 0 { format!("{op:<12}") } else { format!("{op:<12} {offset} + {len}") }
}

/// Bytes of a line of a hexdump.
const ROW_BYTES: usize = 16;

/// Appends `bytes`, the first of which has the address `from`, as rows of sixteen; rows equal to
/// the one before are left out behind a `*`.
pub(super) fn hexdump(out: &mut String, from: u64, bytes: &[u8], total: u64) {
    let mut before: Option<&[u8]> = None;
    let mut starred = false;
    for (number, row) in bytes.chunks(ROW_BYTES).enumerate() {
        if before == Some(row) {
            if !starred {
                out.push_str("            *\n");
            }
            starred = true;
            continue;
        }
        (before, starred) = (Some(row), false);
        let address = from.saturating_add((number * ROW_BYTES) as u64);
        let _ = write!(out, "            {address:012x} ");
        for at in 0..ROW_BYTES {
            let gap = if at == ROW_BYTES / 2 { " " } else { "" };
            let _ = match row.get(at) {
                Some(byte) => write!(out, "{gap} {byte:02x}"),
                None => write!(out, "{gap}   "),
            };
        }
        let text = row.iter().map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        });
        let _ = writeln!(out, "  |{}|", text.collect::<String>());
    }
    let left = total.saturating_sub(bytes.len() as u64);
    if left > 0 {
        let _ = writeln!(out, "            … {left} bytes more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hexdump_has_addresses_text_and_no_repeated_rows() {
        let mut bytes = vec![0u8; 64];
        bytes.extend_from_slice(b"EXT4 \x1b[2J");
        let mut out = String::new();
        hexdump(&mut out, 0x1000, &bytes, 100);
        let lines: Vec<&str> = out.lines().map(str::trim).collect();
        assert_eq!(lines.len(), 4, "{out}");
        assert!(lines[0].starts_with("000000001000  00 00 00 00 00 00 00 00  00"), "{out}");
        assert_eq!(lines[1], "*");
        assert!(lines[2].starts_with("000000001040  45 58 54 34 20 1b"), "{out}");
        assert!(lines[2].ends_with("|EXT4 .[2J|"), "{out}");
        assert_eq!(lines[3], "… 27 bytes more");
    }
}
