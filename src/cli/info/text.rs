//! `qtrace info` for people.

use std::fmt::Write;

use super::facts::{Bus, Facts, Stream};
use super::profile_text;
use crate::base::BlockOp;
use crate::base::units::{human_bytes, human_nanos, utc_date};
use crate::import::summary::counted;
use crate::report::lines::printable;

/// Streams printed one by one; `--format json` has all of them.
const STREAMS_SHOWN: usize = 16;

/// The whole page.
pub(super) fn render(facts: &Facts) -> String {
    let mut page = Page(String::new());
    let state = match (facts.complete, facts.being_recorded) {
        (true, _) => "complete",
        (false, true) => "BEING RECORDED",
        (false, false) => "CUT SHORT",
    };
    let size = human_bytes(facts.file_bytes);
    page.head(&format!("{}: {} events, {size}, {state}", facts.file, facts.events));
    if let Some(cut) = facts.truncation.as_ref().filter(|_| !facts.being_recorded) {
        let (lost, at) = (human_bytes(cut.bytes_lost), cut.offset);
        page.row("cut short", &format!("at offset {at}, {lost} unusable: {}", cut.why));
    }
    page.row("source", &format!("{}, written by {}", facts.source_format, facts.tool));
    for line in &facts.interpretation {
        page.row("read as", line);
    }
    if let Some(origin) = facts.origin_unix_ns {
        let (second, ns) = ((origin / 1_000_000_000).cast_signed(), origin % 1_000_000_000);
        page.row("time 0 is", &format!("{}.{ns:09} UTC", utc_date(second)));
    }
    page.row("duration", &human_nanos(facts.duration_ns));
    // A trace of a bus has no requests to speak of, and the other way round.
    let bus = !facts.bus.is_empty();
    if !bus || facts.ops.values().any(|count| *count > 0) {
        page.row("disk", &format!("{} holds every request", human_bytes(facts.end_bytes)));
        operations(&mut page, facts);
        let completions = format!("{}, {} with an error", facts.completions, facts.failures);
        page.row("completions", &completions);
    }
    if bus {
        bus_events(&mut page, &facts.bus);
    }
    page.row("marks", &facts.marks.to_string());
    payloads(&mut page, facts);
    profile_text::render(&mut page, &facts.profile);
    if !facts.not_recorded.is_empty() {
        page.row("not recorded", &facts.not_recorded.join(", "));
    }
    for loss in &facts.losses {
        page.row("lost", &format!("{} × {}, first at {}", loss.count, loss.reason, loss.first));
    }
    for note in &facts.notes {
        page.row("note", note);
    }
    for stream in facts.streams.iter().take(STREAMS_SHOWN) {
        page.row(&format!("stream {}", stream.id), &describe(stream));
    }
    if let Some(more) = facts.streams.len().checked_sub(STREAMS_SHOWN).filter(|more| *more > 0) {
        page.row("streams", &format!("{more} more; --format json has them all"));
    }
    page.0
}

fn operations(page: &mut Page, facts: &Facts) {
    for op in BlockOp::ALL {
        let name = op.name();
        let count = facts.ops.get(name).copied().unwrap_or_default();
        let bytes = facts.bytes.get(name).copied().unwrap_or_default();
        let bytes = if op.has_range() { human_bytes(bytes) } else { String::new() };
        page.row(name, format!("{count:>12}  {bytes}").trim_end());
        let prefix = format!("{name}+");
        for (flags, count) in &facts.flags {
            if let Some(flags) = flags.strip_prefix(&prefix) {
                page.row("", &format!("{count:>12}  with {flags}"));
            }
        }
    }
}

fn bus_events(page: &mut Page, bus: &Bus) {
    let both = |reads: u64, writes: u64| format!("{reads:>12} reads {writes:>12} writes");
    page.row("ports", &both(bus.port_reads, bus.port_writes));
    page.row("mmio", &both(bus.mmio_reads, bus.mmio_writes));
    let rows = [
        ("memory", bus.memory_writes, "written"),
        ("", bus.memory_fills, "filled"),
        ("", bus.memory_reads, "found"),
        ("interrupts", bus.irqs_fired, "fired"),
        ("", bus.irqs_low, "low"),
        ("", bus.acknowledges, "acknowledged"),
        ("clock", bus.clock_steps, "steps"),
    ];
    for (label, count, what) in rows.into_iter().filter(|(_, count, _)| *count > 0) {
        page.row(label, &format!("{count:>12} {what}"));
    }
}

fn payloads(page: &mut Page, facts: &Facts) {
    let stored = &facts.payloads;
    let what = format!(
        "{} stored (data and texts, each once), {} in {}; {} and {} carry data",
        stored.count,
        human_bytes(stored.raw_bytes),
        human_bytes(stored.stored_bytes),
        counted(facts.issues_with_payload, "issue", "issues"),
        counted(facts.completions_with_payload, "completion", "completions"),
    );
    page.row("payloads", &what);
}

fn describe(stream: &Stream) -> String {
    let info = &stream.info;
    let mut parts = Vec::new();
    if !info.device.is_empty() {
        parts.push(info.device.clone());
    }
    parts.extend(info.queue.map(|queue| format!("queue {queue}")));
    parts.extend(info.device_bytes.map(human_bytes));
    parts.extend(info.block_bytes.map(|bytes| format!("blocks of {bytes} B")));
    let requests = stream.ops.values().fold(0u64, |sum, n| sum.saturating_add(*n));
    if requests > 0 || stream.bus.is_empty() {
        parts.push(format!("{requests} requests"));
        parts.push(format!("up to {}", human_bytes(stream.end_bytes)));
    }
    if let Some((first, last)) = stream.bus.addresses {
        let Bus { port_reads, port_writes, mmio_reads, mmio_writes, .. } = stream.bus;
        let reads = port_reads.saturating_add(mmio_reads);
        let writes = port_writes.saturating_add(mmio_writes);
        parts.push(format!("{reads} reads, {writes} writes at {first:#x} to {last:#x}"));
    }
    parts.join(", ")
}

/// A heading and rows of a label and a text.
pub(super) struct Page(String);

impl Page {
    fn head(&mut self, text: &str) {
        self.0.push_str(&printable(text));
        self.0.push('\n');
    }

    pub(super) fn row(&mut self, label: &str, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "  {label:<13} {}", printable(text));
    }
}
