//! Events as text, for a difference.

use crate::base::BusAccess;
use crate::trace::{Complete, Event, Issue, PayloadRef};

/// An event on a line.
pub(super) fn describe(event: &Event) -> String {
    let payload = |payload: PayloadRef| match payload {
        PayloadRef::Absent => "",
        PayloadRef::Stored(_) => ", with data",
    };
    match event {
        Event::Issue(issue) => {
            let Issue { time, tag, stream, op, flags, offset, len, .. } = issue;
            let flags = match flags.names() {
                names if names.is_empty() => names,
                names => format!(" {names}"),
            };
            format!(
                "{time}: {op}{flags} of {len} bytes at offset {offset}, tag {tag}, stream {}{}",
                stream.0,
                payload(issue.payload)
            )
        }
        Event::Complete(Complete { time, tag, stream, status, payload: data }) => {
            format!(
                "{time}: completion of tag {tag}, stream {}, status {status}{}",
                stream.0,
                payload(*data)
            )
        }
        Event::Mark(mark) => {
            format!("{}: mark of {} bytes, stream {}", mark.time, mark.text_len, mark.stream.0)
        }
        event => describe_bus(event, &payload),
    }
}

/// An event of a bus on a line.
fn describe_bus(event: &Event, payload: &dyn Fn(PayloadRef) -> &'static str) -> String {
    let what = match event {
        Event::Bus(bus) => {
            let BusAccess { space, write, addr, size, value } = bus.access;
            let (verb, to) = if write { ("write of", "to") } else { ("read of", "from") };
            format!("{verb} {value:#x}/{size} {to} {} {addr:#x}", space.name())
        }
        Event::Memory(memory) => {
            let data = payload(memory.payload);
            let fill =
                if memory.fill == 0 { String::new() } else { format!(" with {}", memory.fill) };
            format!(
                "memory {}{fill} of {} bytes at {:#x}{data}",
                memory.op.name(),
                memory.len,
                memory.addr
            )
        }
        Event::Irq(irq) => {
            format!("interrupt {} {}", irq.line, if irq.high { "fired" } else { "went low" })
        }
        Event::Ack(ack) => match ack.vector {
            Some(vector) => format!("CPU {} took vector {vector:#x}", ack.cpu),
            None => format!("CPU {} found no interrupt", ack.cpu),
        },
        Event::Clock(step) => format!("clock stepped to {}", step.to),
        Event::Issue(_) | Event::Complete(_) | Event::Mark(_) => String::new(),
    };
    format!("{}: {what}, stream {}", event.time(), event.stream().0)
}
