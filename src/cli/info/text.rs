//! `qtrace info` for people.

use std::fmt::Write;

use super::facts::{Facts, Stream};
use crate::base::BlockOp;
use crate::base::units::{human_bytes, human_nanos};
use crate::import::summary::counted;

/// Streams printed one by one; `--format json` has all of them.
const STREAMS_SHOWN: usize = 16;

/// The whole page.
pub(super) fn render(facts: &Facts) -> String {
    let mut page = Page(String::new());
    let state = if facts.complete { "complete" } else { "CUT SHORT" };
    let size = human_bytes(facts.file_bytes);
    page.head(&format!("{}: {} events, {size}, {state}", facts.file, facts.events));
    if let Some(cut) = &facts.truncation {
        let (lost, at) = (human_bytes(cut.bytes_lost), cut.offset);
        page.row("cut short", &format!("at offset {at}, {lost} unusable: {}", cut.why));
    }
    page.row("source", &format!("{}, written by {}", facts.source_format, facts.tool));
    for line in &facts.interpretation {
        page.row("read as", line);
    }
    page.row("duration", &human_nanos(facts.duration_ns));
    page.row("disk", &format!("{} holds every request", human_bytes(facts.end_bytes)));
    operations(&mut page, facts);
    page.row("completions", &format!("{}, {} with an error", facts.completions, facts.failures));
    page.row("marks", &facts.marks.to_string());
    payloads(&mut page, facts);
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
    parts.push(format!("{requests} requests"));
    parts.push(format!("up to {}", human_bytes(stream.end_bytes)));
    parts.join(", ")
}

/// A heading and rows of a label and a text.
struct Page(String);

impl Page {
    fn head(&mut self, text: &str) {
        self.0.push_str(&printable(text));
        self.0.push('\n');
    }

    fn row(&mut self, label: &str, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "  {label:<13} {}", printable(text));
    }
}

/// Text out of a file, safe for a terminal: control characters are escaped.
fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { safe.extend(c.escape_debug()) } else { safe.push(c) }
    }
    safe
}
